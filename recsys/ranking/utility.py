"""From probabilities to what ranking maximises."""

from __future__ import annotations

import numpy as np

from recsys.types import F32, F64

WORTH: F64 = np.array([1.0, 1.0, 2.0, -3.0])
"""Worth in clicks of each action of `recsys.types.ACTIONS`: play, complete, like, dislike."""


def utility(p: F32, worth: F64 = WORTH) -> F64:
    """Expected worth of each candidate to its viewer.

    p       [N, A]  calibrated probability of each action, in [0, 1]
    worth   [A]     worth of one action, in clicks; negative for harm
    return  [N]     in clicks

    >>> utility(np.array([[0.5, 0.1]]), np.array([1.0, -2.0])).round(2)
    array([0.3])
    """
    return np.asarray(p @ worth, np.float64)
