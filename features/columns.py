"""State x catalogue -> named columns. The one place where features are computed, for training and serving alike."""

from __future__ import annotations

import numpy as np

from recsys.candidates.retrieval import history
from recsys.candidates.similar import match, taste
from recsys.catalog import KINDS, Catalog
from recsys.state import HALF_LIFE_S, ItemStats, ViewerState
from recsys.types import F32, F64, I32, Screen

FEATURES: tuple[str, ...] = (
    "affinity",  # retrieval's match of viewer and item: about 1 for what the viewer surely wants, 0 for no match
    "log_popularity",  # decayed plays
    "relative_popularity",  # decayed plays against the mean item's, log
    "like_rate",  # likes per play, shrunk towards the catalogue's
    "complete_rate",
    "dislike_rate",
    "log_local_popularity",  # plays from the viewer's region
    "label_match",  # share of the viewer's liked labels that the item carries, by weight
    "label_dislike",  # the same for what the viewer disliked
    "same_outlet",  # share of the viewer's history from this item's outlet
    "same_series",
    "log_age_d",  # days since publication
    "log_duration_min",
    "shown_before",  # how often this viewer was shown it, log
    "history",  # how much is known of the viewer, log
    "is_live",
    "is_local",  # about the viewer's region or a place in it
    "on_tv",
    "on_mobile",
    "content_match",  # cosine of the item's text vector with those of what the viewer liked; 0 without vectors
)

SHRINK = 20.0
"""Rates are pulled towards the catalogue's mean as by this many plays."""


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
    out = np.zeros((len(rows), len(FEATURES)), np.float32)
    if not len(rows):
        return out
    at = {name: column for column, name in enumerate(FEATURES)}
    count = stats.count[rows].astype(np.float64)
    plays = count[:, 0]

    everything = stats.count[:, 0]
    out[:, at["affinity"]] = affinity
    out[:, at["log_popularity"]] = np.log1p(plays)
    out[:, at["relative_popularity"]] = np.log1p(plays / max(float(everything.mean()), 1e-9))
    for name, action in (("complete_rate", 1), ("like_rate", 2), ("dislike_rate", 3)):
        mean = float(stats.count[:, action].sum()) / max(float(everything.sum()), 1.0)
        out[:, at[name]] = (count[:, action] + SHRINK * mean) / (plays + SHRINK)
    if region in stats.by_region:
        out[:, at["log_local_popularity"]] = np.log1p(stats.by_region[region][rows])

    if viewer is not None:
        _viewer_columns(out, at, rows, viewer, catalog, now)

    age_s = np.maximum(now - catalog.published_at[rows], 0.0)
    out[:, at["log_age_d"]] = np.log1p(age_s / 86_400.0)
    out[:, at["log_duration_min"]] = np.log1p(catalog.duration_s[rows] / 60.0)
    out[:, at["is_live"]] = catalog.kind[rows] == KINDS.index("live")
    out[:, at["is_local"]] = np.isin(catalog.region[rows], catalog.regions.subtree(region, "."))
    out[:, at["on_tv"]] = screen == Screen.TV
    out[:, at["on_mobile"]] = screen == Screen.MOBILE
    out[:, at["content_match"]] = match(rows, taste(viewer, catalog, now), catalog)
    return out


def _viewer_columns(out: F32, at: dict[str, int], rows: I32, viewer: ViewerState, catalog: Catalog, now: float) -> None:
    """The columns that compare an item with what the viewer did; fresh actions weigh more."""
    weights = {item_id: w for item_id, w in history(viewer).items() if item_id in catalog.row_of}
    out[:, at["history"]] = np.log1p(len(weights))
    if viewer.shown:
        shown = {catalog.row_of[i]: n for i, (n, _) in viewer.shown.items() if i in catalog.row_of}
        out[:, at["shown_before"]] = np.log1p([shown.get(row, 0) for row in rows.tolist()])
    if not weights:
        return
    last = {action.item_id: action.at for action in viewer.recent}
    past = catalog.rows(weights)
    fresh = np.exp2(-np.maximum(now - np.array([last[i] for i in weights]), 0.0) / HALF_LIFE_S)
    disliked = {a.item_id for a in viewer.recent if a.kind in ("dislike", "hide")}
    against = np.array([i in disliked for i in weights])
    weight = np.array(list(weights.values())) * fresh
    liked, bad = np.where(against, 0.0, weight), np.where(against, fresh, 0.0)

    labels = catalog.label[rows]
    size = np.maximum(labels.sum(axis=1), 1)
    for name, w in (("label_match", liked), ("label_dislike", bad)):
        profile: F64 = w @ catalog.label[past]
        out[:, at[name]] = (labels @ profile) / size / max(float(profile.max()), 1e-9)
    total = max(float(liked.sum()), 1e-9)
    by_outlet = np.bincount(catalog.outlet[past], liked, len(catalog.outlets.names)) / total
    out[:, at["same_outlet"]] = by_outlet[catalog.outlet[rows]]
    known = catalog.series[past]
    by_series = np.bincount(known[known >= 0], liked[known >= 0], len(catalog.series_names.names) + 1) / total
    of_series = catalog.series[rows]
    out[:, at["same_series"]] = np.where(of_series >= 0, by_series[of_series], 0.0)
