"""How different the items of one page are from each other."""

from __future__ import annotations

import numpy as np

from recsys.domain.types import F64, Bool


def intra_list_diversity(label: Bool) -> float:
    """Mean Jaccard distance of all pairs on a page (Ziegler et al. 2005; Smyth & McClave 2001), in [0, 1].

    label  [K, L]  labels of the items; two items without labels count as equal. NaN below two items

    >>> intra_list_diversity(np.array([[True, False], [True, False], [False, True]])).__round__(3)
    0.667
    """
    k = len(label)
    if k < 2:
        return float("nan")
    both = label.astype(np.float64) @ label.T
    size = label.sum(axis=1)
    union = size[:, None] + size[None, :] - both
    alike: F64 = np.divide(both, union, out=np.ones_like(both), where=union > 0)
    return float(1.0 - (alike.sum() - np.trace(alike)) / (k * (k - 1)))
