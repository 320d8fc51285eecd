"""Alike in content: what items say against what the viewer liked lately. Needs no plays, so it knows new items too."""

from __future__ import annotations

import numpy as np

from recsys.domain.catalog import Catalog
from recsys.domain.decay import HALF_LIFE_S
from recsys.domain.types import F32, I32
from recsys.domain.viewer import ViewerState
from recsys.models.history import WEIGHT, history


def content_profile(viewer: ViewerState | None, catalog: Catalog, now: float) -> F32 | None:
    """[D] the mean text vector of what the viewer liked, fresh and strong actions weighing more, of length one.

    None for who is unknown, and where none of that has a vector.
    """
    if viewer is None or not len(catalog.content.vectors):
        return None
    liked = {i: w for i, w in history(viewer).items() if w > WEIGHT["dislike"] and i in catalog.row_of}
    if not liked:
        return None
    last = {action.item_id: action.at for action in viewer.recent}
    age_s = np.maximum(now - np.array([last[item_id] for item_id in liked]), 0.0)
    weight = np.array(list(liked.values())) * np.exp2(-age_s / HALF_LIFE_S)
    mean: F32 = (weight / max(float(weight.max()), 1e-300)).astype(np.float32) @ catalog.content.of(catalog.rows(liked))
    length = float(np.linalg.norm(mean))
    return None if length < 1e-6 else mean / np.float32(length)


def content_similarity(rows: I32, wanted: F32 | None, catalog: Catalog) -> F32:
    """[N] cosine of each row's text vector with a taste, in [-1, 1]; 0 where either is missing."""
    if wanted is None:
        return np.zeros(len(rows), np.float32)
    cosine: F32 = np.vecdot(catalog.content.of(rows), wanted)  # row by row: no bit depends on what else is asked for
    np.clip(cosine, -1.0, 1.0, out=cosine)
    return cosine
