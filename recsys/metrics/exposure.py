"""Exposure: the distribution of attention over outlets or items, its inequality, and coverage."""

from __future__ import annotations

import numpy as np

from recsys.domain.types import F64, I32


def exposure(code: I32, attention: F64, groups: int) -> F64:
    """Return [groups] the attention that each group gets; codes below 0 belong to no group.

    >>> exposure(np.array([0, 1, 0, -1], np.int32), np.array([1.0, 0.5, 0.25, 1.0]), 3)
    array([1.25, 0.5 , 0.  ])
    """
    grouped = code >= 0
    return np.asarray(np.bincount(code[grouped], attention[grouped], groups), np.float64)


def gini(amount: F64) -> float:
    """Return the Gini coefficient of n amounts >= 0: 0 if all are equal, (n - 1) / n if one has everything (Gini 1912).

    G = sum_i (2 i - n - 1) x_i / (n sum x), with x in ascending order. NaN if the sum is 0.

    >>> gini(np.array([1.0, 1.0, 1.0])), gini(np.array([0.0, 0.0, 0.0, 8.0]))
    (0.0, 0.75)
    """
    x = np.sort(np.asarray(amount, np.float64))
    n, total = len(x), float(x.sum())
    if n == 0 or total <= 0:
        return float("nan")
    return float((2.0 * np.arange(1, n + 1) - n - 1) @ x / (n * total))


def coverage(amount: F64) -> float:
    """Return the share of groups that get any attention, in [0, 1].

    >>> coverage(np.array([3.0, 0.0, 0.1, 0.0]))
    0.5
    """
    return float(np.mean(np.asarray(amount) > 0)) if len(amount) else float("nan")
