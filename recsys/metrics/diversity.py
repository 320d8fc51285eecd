"""Diversity of the items within a page."""

from __future__ import annotations

import numpy as np

from recsys.domain.types import F64, Bool


def intra_list_diversity(label: Bool) -> float:
    """Return the mean Jaccard distance of all pairs on a page (Ziegler et al. 2005; Smyth & McClave 2001), in [0, 1].

    label  [K, L]  labels of the items; two items without labels count as equal

    NaN for fewer than two items.

    >>> intra_list_diversity(np.array([[True, False], [True, False], [False, True]])).__round__(3)
    0.667
    """
    k = len(label)
    if k < 2:
        return float("nan")
    both = label.astype(np.float64) @ label.T
    size = label.sum(axis=1)
    union = size[:, None] + size[None, :] - both
    similarity: F64 = np.divide(both, union, out=np.ones_like(both), where=union > 0)
    return float(1.0 - (similarity.sum() - np.trace(similarity)) / (k * (k - 1)))
