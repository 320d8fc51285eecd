"""Content-based similarity: text vectors of items compared with those of the items that the viewer liked.

It needs no plays, so it also reaches new items.
"""

from __future__ import annotations

import numpy as np

from recsys.domain.catalog import Catalog
from recsys.domain.decay import HALF_LIFE_S
from recsys.domain.types import F32, I32
from recsys.domain.viewer import ViewerState
from recsys.models.history import WEIGHT, history


def content_profile(viewer: ViewerState | None, catalog: Catalog, now: float) -> F32 | None:
    """Return [D] the mean text vector of the items that the viewer liked, scaled to length one.

    Recent and strong actions have more weight. None for an unknown viewer, or if none of these items has a vector.
    """
    if viewer is None or not len(catalog.content.vectors):
        return None
    liked = {i: w for i, w in history(viewer).items() if w > WEIGHT["dislike"] and i in catalog.row_of}
    if not liked:
        return None
    last_at = {action.item_id: action.at for action in viewer.recent}
    age_s = np.maximum(now - np.array([last_at[item_id] for item_id in liked]), 0.0)
    weight = np.array(list(liked.values())) * np.exp2(-age_s / HALF_LIFE_S)
    mean: F32 = (weight / max(float(weight.max()), 1e-300)).astype(np.float32) @ catalog.content.of(catalog.rows(liked))
    length = float(np.linalg.norm(mean))
    return None if length < 1e-6 else mean / np.float32(length)


def content_similarity(rows: I32, profile: F32 | None, catalog: Catalog) -> F32:
    """Return [N] the cosine of each row's text vector with a profile, in [-1, 1]; 0 where either is missing."""
    if profile is None:
        return np.zeros(len(rows), np.float32)
    cosine: F32 = np.vecdot(catalog.content.of(rows), profile)  # row by row: no bit depends on the other rows
    np.clip(cosine, -1.0, 1.0, out=cosine)
    return cosine
