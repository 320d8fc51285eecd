"""The ranker's feature columns, computed from states and the catalog for both training and serving.

`columns` computes the features of a page: many items, one viewer, one time. Point-in-time queries call its two halves,
`item_columns` and `viewer_columns`, for many times at once (`features.point_in_time.query`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

import numpy as np

from features.item_counts import MEASURES, ItemCounts
from features.state.viewer_fold import SESSION_GAP_S
from recsys.candidates.content_based import content_profile, content_similarity
from recsys.domain.catalog import Catalog
from recsys.domain.decay import DAY_S, FAST_HALF_LIFE_S, HALF_LIFE_S, forward_weight
from recsys.domain.item import KINDS
from recsys.domain.item_statistics import ItemStats
from recsys.domain.placement import Screen
from recsys.domain.types import F32, F64, I32
from recsys.domain.viewer import Session, ViewerState
from recsys.models.history import WEIGHT, history

# Append new features at the end, so that older recordings and models stay readable
# (`features.point_in_time.skew_audit`, `recsys.models.served_model`). A feature whose meaning changes needs a new name.
FEATURES: tuple[str, ...] = (
    "affinity",  # retrieval score of viewer and item: about 1 for a strong match, 0 for none
    "log_popularity",  # decayed visits: how many viewers opened or played the item, log
    "relative_popularity",  # decayed visits relative to the mean item, log
    "like_rate",  # likes per play, shrunk towards the catalog's rate
    "complete_rate",
    "dislike_rate",
    "hide_rate",  # hides per impression, shrunk towards the catalog's rate
    "visit_rate",  # visits per impression, at most 1, shrunk towards the catalog's rate
    "trend",  # visits of the last hours relative to a constant rate of visits, log: 0 if constant, positive if rising
    "log_local_popularity",  # visits from the viewer's region
    "screen_share",  # share of the item's visits on this screen, shrunk towards one half
    "label_match",  # share of the viewer's liked labels that the item carries, by weight
    "label_dislike",  # the same for the viewer's disliked labels
    "label_skipped",  # the same for the labels of items skipped in this session
    "same_outlet",  # share of the viewer's history from this item's outlet
    "same_series",
    "outlet_affinity",  # share of the viewer's actions on pages of this item's outlet
    "log_age_d",  # days since publication
    "log_duration_min",
    "shown_before",  # how often the item was shown to this viewer, log
    "progress",  # how much of the item this viewer has played; 0 if not started or finished
    "history",  # number of items in the viewer's history, log
    "satisfaction",  # share of positive feedback in the viewer's recent feedback; one half without feedback
    "screen_affinity",  # share of the viewer's actions on this screen
    "hour_affinity",  # share of the viewer's actions in this hour of the day and the two adjacent hours
    "session_actions",  # number of the viewer's actions in this session, log
    "skip_rate",  # share of plays in this session abandoned within seconds, shrunk towards zero
    "is_live",
    "is_local",  # about the viewer's region or a region within it
    "on_tv",
    "on_mobile",
    "content_match",  # cosine of the item's text vector with those of the viewer's liked items; 0 without vectors
    "axis_match",  # cosine of the item's editorial values with those of the viewer's liked items; 0 without values
    "same_kind",  # share of the viewer's history of this item's kind (film, article, live broadcast, ...)
    "format_match",  # share of the viewer's history in a format of this item (vertical, audio, text, ...)
)
AT = {name: column for column, name in enumerate(FEATURES)}

SHRINK = 20.0
"""Prior weight of the catalog's mean in rates per play, in plays."""

SHRINK_IMPRESSIONS = 200.0
"""Prior weight of the catalog's mean in rates per impression, in impressions."""

SHRINK_TREND, SHRINK_SKIPS = 5.0, 4.0

K = TypeVar("K")
_RECENT_FRACTION = FAST_HALF_LIFE_S / HALF_LIFE_S  # recent visits / visits when visits arrive at a constant rate


def columns(
    rows: I32,
    affinity: F32,
    viewer: ViewerState | None,
    catalog: Catalog,
    stats: ItemStats,
    now: float,
    region: str,
    screen: str,
) -> F32:
    """Return the features [N, F] of the candidates at `rows` for one viewer at unix second `now`; F as in FEATURES.

    affinity  [N]  inner product from retrieval, 0 if unknown

    A row depends on its own item only, never on the other candidates, so training can sample negatives freely. Every
    column is finite for any input.
    """
    out = empty_features(len(rows))
    if len(rows):
        out[:, AT["affinity"]] = affinity
        item_columns(out, rows, catalog, ItemCounts.of(stats, rows, region, screen), now, region, screen)
        if viewer is not None:
            viewer_columns(out, rows, viewer, catalog, now, screen)
    return out


def empty_features(size: int) -> F32:
    """Return default features [N, F] of a viewer without history, to be filled in by the two halves."""
    out = np.zeros((size, len(FEATURES)), np.float32)
    out[:, AT["satisfaction"]] = 0.5
    return out


def item_columns(
    out: F32, rows: I32, catalog: Catalog, counts: ItemCounts, now: float | F64, region: str, screen: str
) -> None:
    """Fill in the features that do not depend on the viewer. out [N, F], rows [N], now [N] or scalar (unix seconds)."""
    count = {name: counts.count[:, n] for n, name in enumerate(MEASURES)}
    total = {name: counts.total[..., n] for n, name in enumerate(MEASURES)}
    plays, impressions, visits = count["play"], count["impressions"], count["visits"]

    out[:, AT["log_popularity"]] = np.log1p(visits)
    out[:, AT["relative_popularity"]] = np.log1p(visits / np.maximum(total["visits"] / max(counts.items, 1), 1e-9))
    for action in ("complete", "like", "dislike"):
        mean = total[action] / np.maximum(total["play"], 1.0)
        out[:, AT[f"{action}_rate"]] = (count[action] + SHRINK * mean) / (plays + SHRINK)
    for name, part in (("hide_rate", "hides"), ("visit_rate", "visits")):
        mean = np.minimum(total[part] / np.maximum(total["impressions"], 1.0), 1.0)
        out[:, AT[name]] = np.minimum(
            (count[part] + SHRINK_IMPRESSIONS * mean) / (impressions + SHRINK_IMPRESSIONS), 1.0
        )
    out[:, AT["trend"]] = np.log((counts.recent + SHRINK_TREND) / (visits * _RECENT_FRACTION + SHRINK_TREND))
    out[:, AT["log_local_popularity"]] = np.log1p(counts.local)
    out[:, AT["screen_share"]] = (counts.on_screen + SHRINK / 2) / (visits + SHRINK)

    age_s = np.maximum(now - catalog.published_at[rows], 0.0)
    out[:, AT["log_age_d"]] = np.log1p(age_s / DAY_S)
    out[:, AT["log_duration_min"]] = np.log1p(catalog.duration_s[rows] / 60.0)
    out[:, AT["is_live"]] = catalog.kind[rows] == KINDS.index("live")
    out[:, AT["is_local"]] = np.isin(catalog.region[rows], catalog.regions.subtree(region, "."))
    out[:, AT["on_tv"]] = screen == Screen.TV
    out[:, AT["on_mobile"]] = screen == Screen.MOBILE


def viewer_columns(out: F32, rows: I32, viewer: ViewerState, catalog: Catalog, now: float, screen: str) -> None:
    """Fill in the features that compare items with a viewer's history at unix second `now`. out [N, F], rows [N]."""
    if forward_weight(now) > 0:  # weights underflow to 0 before 1987
        out[:, AT["satisfaction"]] = viewer.satisfaction(now)
    out[:, AT["screen_affinity"]] = _share(viewer.screens, (screen,))
    hour = int(now % DAY_S // 3600)
    out[:, AT["hour_affinity"]] = _share(viewer.hours, ((hour - 1) % 24, hour, (hour + 1) % 24))
    _outlet_affinity(out, rows, viewer, catalog)
    if viewer.shown:
        times_shown = {
            catalog.row_of[i]: shown_times[0] for i, shown_times in viewer.shown.items() if i in catalog.row_of
        }
        out[:, AT["shown_before"]] = np.log1p([times_shown.get(row, 0) for row in rows.tolist()])
    for item_id, position in viewer.positions.items():
        if not position.finished and position.duration_s > 0 and (row := catalog.row_of.get(item_id)) is not None:
            out[rows == row, AT["progress"]] = min(position.position_s / position.duration_s, 1.0)
    if now - viewer.session.at <= SESSION_GAP_S:
        _session_columns(out, rows, viewer.session, catalog)
    _history_columns(out, rows, viewer, catalog, now)
    out[:, AT["content_match"]] = content_similarity(rows, content_profile(viewer, catalog, now), catalog)


def _share(weights: Mapping[K, float], names: Iterable[K]) -> float:
    """Return the share of these names in all weights, in [0, 1]; 0 if there are no weights."""
    total = sum(weights.values())
    return sum(weights.get(name, 0.0) for name in names) / total if total > 0 else 0.0


def _outlet_affinity(out: F32, rows: I32, viewer: ViewerState, catalog: Catalog) -> None:
    total = sum(viewer.outlets.values())
    if total > 0:
        share = np.zeros(len(catalog.outlets.names))
        for outlet, weight in viewer.outlets.items():
            if (code := catalog.outlets.code.get(outlet)) is not None:
                share[code] = weight / total
        out[:, AT["outlet_affinity"]] = share[catalog.outlet[rows]]


def _session_columns(out: F32, rows: I32, session: Session, catalog: Catalog) -> None:
    skipped, watched = len(session.skipped), len(session.watched)
    out[:, AT["session_actions"]] = np.log1p(session.actions)
    out[:, AT["skip_rate"]] = skipped / (skipped + watched + SHRINK_SKIPS)
    if skipped:
        skipped_rows = catalog.rows(session.skipped)
        _label_column(out, "label_skipped", rows, skipped_rows, np.ones(len(skipped_rows)), catalog)


def _label_column(out: F32, name: str, rows: I32, history_rows: I32, weight: F64, catalog: Catalog) -> None:
    """Fill in the weighted overlap of the labels of the items at `rows` with those of the items at `history_rows`."""
    labels = catalog.label[rows]
    profile: F64 = weight @ catalog.label[history_rows]
    out[:, AT[name]] = (labels @ profile) / np.maximum(labels.sum(axis=1), 1) / max(float(profile.max(initial=0)), 1e-9)


def _cosine(rows: F32, profile: F64) -> F64:
    """Return the cosine [N] of each row [N, V] with a profile [V]; 0 if either is zero.

    The result is in [0, 1] for non-negative values. It is computed row by row, so no bit depends on the other rows.
    """
    lengths = np.sqrt(np.vecdot(rows, rows, dtype=np.float64) * float(profile @ profile))
    cosine: F64 = np.vecdot(rows, profile) / np.maximum(lengths, 1e-12)
    return np.minimum(cosine, 1.0)


def _history_columns(out: F32, rows: I32, viewer: ViewerState, catalog: Catalog, now: float) -> None:
    """Fill in the matches with labels, values, kinds, formats, outlets and series of the viewer's history.

    Recent actions have more weight.
    """
    weights = {item_id: w for item_id, w in history(viewer).items() if item_id in catalog.row_of}
    out[:, AT["history"]] = np.log1p(len(weights))
    if not weights:
        return
    last = {action.item_id: action.at for action in viewer.recent}
    history_rows = catalog.rows(weights)
    recency = np.exp2(-np.maximum(now - np.array([last[i] for i in weights]), 0.0) / HALF_LIFE_S)
    action_weight = np.array(list(weights.values()))
    is_dislike, weight = action_weight == WEIGHT["dislike"], action_weight * recency  # a later like replaces a dislike
    liked, disliked = np.where(is_dislike, 0.0, weight), np.where(is_dislike, recency, 0.0)

    _label_column(out, "label_match", rows, history_rows, liked, catalog)
    _label_column(out, "label_dislike", rows, history_rows, disliked, catalog)
    total = max(float(liked.sum()), 1e-9)
    out[:, AT["axis_match"]] = _cosine(catalog.axis[rows], liked / total @ catalog.axis[history_rows])
    by_kind = np.bincount(catalog.kind[history_rows], liked, len(KINDS)) / total
    out[:, AT["same_kind"]] = by_kind[catalog.kind[rows]]
    by_format = liked / total @ catalog.format[history_rows]
    out[:, AT["format_match"]] = np.where(catalog.format[rows], by_format, 0.0).max(axis=1)
    by_outlet = np.bincount(catalog.outlet[history_rows], liked, len(catalog.outlets.names)) / total
    out[:, AT["same_outlet"]] = by_outlet[catalog.outlet[rows]]
    series = catalog.series[history_rows]
    by_series = np.bincount(series[series >= 0], liked[series >= 0], len(catalog.series_names.names) + 1) / total
    of_series = catalog.series[rows]
    out[:, AT["same_series"]] = np.where(of_series >= 0, by_series[of_series], 0.0)
