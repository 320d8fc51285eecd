"""Calibration of a page to its viewer's history or to editorial targets (Steck 2018, "Calibrated recommendations").

    p(g) = sum_i w_i p(g | i) / sum_i w_i      over the history, w_i the weight of the action
    q(g) = sum_i a_i p(g | i) / sum_i a_i      over the page, a_i the attention of its slot

with p(g | i) = 1 / (number of labels of i) for each label of i. Steck computes KL(p || q~) with q~ smoothed. The main
metric here is the Jensen-Shannon divergence, which is bounded and symmetric; KL is available for comparison.
"""

from __future__ import annotations

import numpy as np

from recsys.domain.types import F64, Bool
from recsys.metrics.divergence import jensen_shannon, kullback_leibler, smoothed


def profile(label: Bool, weight: F64) -> F64:
    """Return [L] the label distribution of M items. Each item spreads its weight evenly over its labels.

    label   [M, L]  labels of the items
    weight  [M]     weight of each item

    >>> profile(np.array([[True, True], [True, False]]), np.array([1.0, 1.0]))
    array([0.75, 0.25])
    """
    size = np.maximum(label.sum(axis=1), 1)
    mass = (weight / size) @ label
    return np.asarray(mass / max(float(mass.sum()), 1e-12), np.float64)


def miscalibration(history: F64, page: F64) -> float:
    """Return the Jensen-Shannon divergence of history and page [L], to base 2; 0 if their distributions are equal."""
    return jensen_shannon(history, page)


def steck_kl(history: F64, page: F64, alpha: float = 0.01) -> float:
    """Return KL(p || q~) in bits, with Steck's smoothing.

    >>> steck_kl(np.array([0.5, 0.5]), np.array([0.5, 0.5]))
    0.0
    """
    return kullback_leibler(history, smoothed(page, history, alpha))
