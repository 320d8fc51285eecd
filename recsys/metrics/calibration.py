"""Does a page look like its viewer's history, or like what editors aim at? (Steck 2018, "Calibrated recommendations")

    p(g) = sum_i w_i p(g | i) / sum_i w_i      over the history, w_i how fresh or strong an action was
    q(g) = sum_i a_i p(g | i) / sum_i a_i      over the page, a_i the attention of its slot

with p(g | i) one over the number of the item's labels for each of them. Steck measures KL(p || q~), q~ smoothed; here
the Jensen-Shannon divergence is the first figure, since it is bounded and symmetric, and KL is there to compare with.
"""

from __future__ import annotations

import numpy as np

from recsys.domain.types import F64, Bool
from recsys.metrics.divergence import jensen_shannon, kullback_leibler, smoothed


def profile(label: Bool, weight: F64) -> F64:
    """[L] label distribution of M items: each item spreads its weight evenly over its labels.

    label   [M, L]  labels of the items
    weight  [M]     how much each item counts

    >>> profile(np.array([[True, True], [True, False]]), np.array([1.0, 1.0]))
    array([0.75, 0.25])
    """
    size = np.maximum(label.sum(axis=1), 1)
    mass = (weight / size) @ label
    return np.asarray(mass / max(float(mass.sum()), 1e-12), np.float64)


def miscalibration(history: F64, page: F64) -> float:
    """Jensen-Shannon divergence of history and page [L], to base 2: 0 when the page mirrors the history."""
    return jensen_shannon(history, page)


def steck_kl(history: F64, page: F64, alpha: float = 0.01) -> float:
    """KL(p || q~) in bits with Steck's smoothing.

    >>> steck_kl(np.array([0.5, 0.5]), np.array([0.5, 0.5]))
    0.0
    """
    return kullback_leibler(history, smoothed(page, history, alpha))
