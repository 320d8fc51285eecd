"""Divergences between distributions, and the rank discount of a page."""

from __future__ import annotations

import numpy as np

from recsys.domain.types import F64


def jensen_shannon(p: F64, q: F64) -> float:
    """Return the Jensen-Shannon divergence to base 2: 0 for equal, 1 for disjoint distributions (Lin 1991).

    JSD = H(m) - (H(p) + H(q)) / 2 with m = (p + q) / 2. Its square root is a metric (Endres & Schindelin 2003).

    p, q  [G]  masses >= 0, scaled to sum 1; NaN if either has no mass

    >>> jensen_shannon(np.array([1.0, 1.0, 0.0]), np.array([0.0, 0.0, 3.0]))
    1.0
    """
    p, q = np.asarray(p, np.float64), np.asarray(q, np.float64)
    if p.sum() <= 0 or q.sum() <= 0:
        return float("nan")
    p, q = p / p.sum(), q / q.sum()
    m = (p + q) / 2.0
    return float(min(max((_entropy_against(p, m) + _entropy_against(q, m)) / 2.0, 0.0), 1.0))


def smoothed(p: F64, q: F64, alpha: float = 0.01) -> F64:
    """Return p mixed with a share `alpha` of q, so that no ratio is infinite (Steck 2018, eq. 7).

    >>> smoothed(np.array([1.0, 0.0]), np.array([0.5, 0.5])).round(3)
    array([0.995, 0.005])
    """
    return np.asarray((1.0 - alpha) * p + alpha * q, np.float64)


def kullback_leibler(p: F64, q: F64) -> float:
    """Return sum p log2(p / q) in bits; infinite if q is 0 where p is not (Kullback & Leibler 1951).

    >>> kullback_leibler(np.array([0.5, 0.5]), np.array([0.25, 0.75])).__round__(4)
    0.2075
    """
    return float(_entropy_against(p, q))


def reciprocal_log(slots: int) -> F64:
    """Return [slots] RADio's rank discount: 1 / log2(slot + 1) as in nDCG, scaled to sum 1 (Vrijenhoek et al. 2022).

    >>> reciprocal_log(3).round(3)
    array([0.469, 0.296, 0.235])
    """
    weight = 1.0 / np.log2(np.arange(2, slots + 2))
    return np.asarray(weight / max(float(weight.sum()), 1e-12), np.float64)


def _entropy_against(p: F64, q: F64) -> float:
    positive = p > 0
    with np.errstate(divide="ignore"):
        return float(np.sum(p[positive] * np.log2(p[positive] / q[positive])))
