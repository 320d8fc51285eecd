"""State x catalogue -> named columns. The one place where features are computed, for training and serving alike.

`columns` is what a page asks for: many items, one viewer, one moment. `item_columns` and `viewer_columns` are its two
halves; the offline log calls them for many moments at once (`features.point_in_time.query`).
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

# New ones go to the end: what older engines recorded and older models take stays readable
# (`features.point_in_time.skew_audit`, `recsys.models.served_model`). One that comes to mean something else needs a new
# name.
FEATURES: tuple[str, ...] = (
    "affinity",  # retrieval's match of viewer and item: about 1 for what the viewer surely wants, 0 for no match
    "log_popularity",  # decayed visits: viewers who opened or played it
    "relative_popularity",  # decayed visits against the mean item's, log
    "like_rate",  # likes per play, shrunk towards the catalogue's
    "complete_rate",
    "dislike_rate",
    "hide_rate",  # hides per impression, shrunk towards the catalogue's
    "visit_rate",  # visits per impression, at most 1, shrunk towards the catalogue's
    "trend",  # visits of the last hours against a steady stream of the same visits, log: 0 steady, more for a rise
    "log_local_popularity",  # visits from the viewer's region
    "screen_share",  # share of its visits that came on this screen, shrunk towards one half
    "label_match",  # share of the viewer's liked labels that the item carries, by weight
    "label_dislike",  # the same for what the viewer disliked
    "label_skipped",  # the same for what was skipped in this session
    "same_outlet",  # share of the viewer's history from this item's outlet
    "same_series",
    "outlet_affinity",  # share of what the viewer did on pages of this item's outlet
    "log_age_d",  # days since publication
    "log_duration_min",
    "shown_before",  # how often this viewer was shown it, log
    "progress",  # how far this viewer got into it, 0 for what was not begun or was finished
    "history",  # how much is known of the viewer, log
    "satisfaction",  # share of what the viewer said lately that was good; one half for who has said nothing
    "screen_affinity",  # share of what the viewer did on this screen
    "hour_affinity",  # share of what the viewer did in this hour of the day and the two beside it
    "session_actions",  # what the viewer did in this session, log
    "skip_rate",  # share of what was begun in this session and left within seconds, shrunk towards none
    "is_live",
    "is_local",  # about the viewer's region or a place in it
    "on_tv",
    "on_mobile",
    "content_match",  # cosine of the item's text vector with those of what the viewer liked; 0 without vectors
    "axis_match",  # cosine of the item's editorial values with those of what the viewer liked; 0 where unsaid
    "same_kind",  # share of the viewer's history that is of this item's kind: a film, an article, a live broadcast
    "format_match",  # share of the viewer's history that comes in a format of this item: upright, to listen, to read
)
AT = {name: column for column, name in enumerate(FEATURES)}

SHRINK = 20.0
"""Rates per play are pulled towards the catalogue's mean as by this many plays."""

SHRINK_IMPRESSIONS = 200.0
"""Rates per impression, as by this many impressions."""

SHRINK_TREND, SHRINK_SKIPS = 5.0, 4.0

K = TypeVar("K")
_CONSTANT_COLUMNS = FAST_HALF_LIFE_S / HALF_LIFE_S


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
    """[N, F] features of the candidates at `rows` for one viewer at unix second `now`; F as in FEATURES.

    affinity [N] is retrieval's inner product, 0 where there is none. Each row depends on its own item only, never on
    the other candidates, so training may sample its negatives as it likes. Every column is finite for any input.
    """
    out = empty_features(len(rows))
    if len(rows):
        out[:, AT["affinity"]] = affinity
        item_columns(out, rows, catalog, ItemCounts.of(stats, rows, region, screen), now, region, screen)
        if viewer is not None:
            viewer_columns(out, rows, viewer, catalog, now, screen)
    return out


def empty_features(size: int) -> F32:
    """[N, F] features of somebody who has done nothing, items left out: what the two halves fill in."""
    out = np.zeros((size, len(FEATURES)), np.float32)
    out[:, AT["satisfaction"]] = 0.5
    return out


def item_columns(
    out: F32, rows: I32, catalog: Catalog, figures: ItemCounts, now: float | F64, region: str, screen: str
) -> None:
    """Fill in what is the same for every viewer. out [N, F], rows [N], now [N] or one moment for all."""
    count = {name: figures.count[:, n] for n, name in enumerate(MEASURES)}
    total = {name: figures.total[..., n] for n, name in enumerate(MEASURES)}
    plays, shown, visits = count["play"], count["impressions"], count["visits"]

    out[:, AT["log_popularity"]] = np.log1p(visits)
    out[:, AT["relative_popularity"]] = np.log1p(visits / np.maximum(total["visits"] / max(figures.items, 1), 1e-9))
    for action in ("complete", "like", "dislike"):
        mean = total[action] / np.maximum(total["play"], 1.0)
        out[:, AT[f"{action}_rate"]] = (count[action] + SHRINK * mean) / (plays + SHRINK)
    for name, part in (("hide_rate", "hides"), ("visit_rate", "visits")):
        mean = np.minimum(total[part] / np.maximum(total["impressions"], 1.0), 1.0)
        out[:, AT[name]] = np.minimum((count[part] + SHRINK_IMPRESSIONS * mean) / (shown + SHRINK_IMPRESSIONS), 1.0)
    out[:, AT["trend"]] = np.log((figures.recent + SHRINK_TREND) / (visits * _CONSTANT_COLUMNS + SHRINK_TREND))
    out[:, AT["log_local_popularity"]] = np.log1p(figures.local)
    out[:, AT["screen_share"]] = (figures.on_screen + SHRINK / 2) / (visits + SHRINK)

    age_s = np.maximum(now - catalog.published_at[rows], 0.0)
    out[:, AT["log_age_d"]] = np.log1p(age_s / DAY_S)
    out[:, AT["log_duration_min"]] = np.log1p(catalog.duration_s[rows] / 60.0)
    out[:, AT["is_live"]] = catalog.kind[rows] == KINDS.index("live")
    out[:, AT["is_local"]] = np.isin(catalog.region[rows], catalog.regions.subtree(region, "."))
    out[:, AT["on_tv"]] = screen == Screen.TV
    out[:, AT["on_mobile"]] = screen == Screen.MOBILE


def viewer_columns(out: F32, rows: I32, viewer: ViewerState, catalog: Catalog, now: float, screen: str) -> None:
    """Fill in what compares items with what one viewer did by unix second `now`. out [N, F], rows [N]."""
    if forward_weight(now) > 0:  # before 1987 nothing weighs anything
        out[:, AT["satisfaction"]] = viewer.satisfaction(now)
    out[:, AT["screen_affinity"]] = _share(viewer.screens, (screen,))
    hour = int(now % DAY_S // 3600)
    out[:, AT["hour_affinity"]] = _share(viewer.hours, ((hour - 1) % 24, hour, (hour + 1) % 24))
    _outlet_affinity(out, rows, viewer, catalog)
    if viewer.shown:
        shown = {catalog.row_of[i]: known[0] for i, known in viewer.shown.items() if i in catalog.row_of}
        out[:, AT["shown_before"]] = np.log1p([shown.get(row, 0) for row in rows.tolist()])
    for item_id, position in viewer.positions.items():
        if not position.finished and position.duration_s > 0 and (row := catalog.row_of.get(item_id)) is not None:
            out[rows == row, AT["progress"]] = min(position.position_s / position.duration_s, 1.0)
    if now - viewer.session.at <= SESSION_GAP_S:
        _session_columns(out, rows, viewer.session, catalog)
    _history_columns(out, rows, viewer, catalog, now)
    out[:, AT["content_match"]] = content_similarity(rows, content_profile(viewer, catalog, now), catalog)


def _share(weights: Mapping[K, float], names: Iterable[K]) -> float:
    """What these names have of all weights, in [0, 1]; 0 where there are none."""
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
        past = catalog.rows(session.skipped)
        _label_column(out, "label_skipped", rows, past, np.ones(len(past)), catalog)


def _label_column(out: F32, name: str, rows: I32, past: I32, weight: F64, catalog: Catalog) -> None:
    """How far the labels of the items at `rows` are those of the items at `past`, by weight."""
    labels = catalog.label[rows]
    profile: F64 = weight @ catalog.label[past]
    out[:, AT[name]] = (labels @ profile) / np.maximum(labels.sum(axis=1), 1) / max(float(profile.max(initial=0)), 1e-9)


def _cosine(rows: F32, profile: F64) -> F64:
    """[N] cosine of each row [N, V] with a profile [V], in [0, 1] for values that are not negative; 0 where either is
    nought. Row by row: no bit depends on what else is asked for."""
    lengths = np.sqrt(np.vecdot(rows, rows, dtype=np.float64) * float(profile @ profile))
    cosine: F64 = np.vecdot(rows, profile) / np.maximum(lengths, 1e-12)
    return np.minimum(cosine, 1.0)


def _history_columns(out: F32, rows: I32, viewer: ViewerState, catalog: Catalog, now: float) -> None:
    """Labels, values, kinds, formats, outlets and series of what was played; fresh actions weigh more."""
    weights = {item_id: w for item_id, w in history(viewer).items() if item_id in catalog.row_of}
    out[:, AT["history"]] = np.log1p(len(weights))
    if not weights:
        return
    last = {action.item_id: action.at for action in viewer.recent}
    past = catalog.rows(weights)
    fresh = np.exp2(-np.maximum(now - np.array([last[i] for i in weights]), 0.0) / HALF_LIFE_S)
    said = np.array(list(weights.values()))
    against, weight = said == WEIGHT["dislike"], said * fresh  # what was liked after all is no longer disliked
    liked, bad = np.where(against, 0.0, weight), np.where(against, fresh, 0.0)

    _label_column(out, "label_match", rows, past, liked, catalog)
    _label_column(out, "label_dislike", rows, past, bad, catalog)
    total = max(float(liked.sum()), 1e-9)
    out[:, AT["axis_match"]] = _cosine(catalog.axis[rows], liked / total @ catalog.axis[past])
    by_kind = np.bincount(catalog.kind[past], liked, len(KINDS)) / total
    out[:, AT["same_kind"]] = by_kind[catalog.kind[rows]]
    by_format = liked / total @ catalog.format[past]
    out[:, AT["format_match"]] = np.where(catalog.format[rows], by_format, 0.0).max(axis=1)
    by_outlet = np.bincount(catalog.outlet[past], liked, len(catalog.outlets.names)) / total
    out[:, AT["same_outlet"]] = by_outlet[catalog.outlet[rows]]
    known = catalog.series[past]
    by_series = np.bincount(known[known >= 0], liked[known >= 0], len(catalog.series_names.names) + 1) / total
    of_series = catalog.series[rows]
    out[:, AT["same_series"]] = np.where(of_series >= 0, by_series[of_series], 0.0)
