"""Intervals of paired differences without any chance: a Poisson bootstrap whose weights are hashed, not drawn.

Every viewer counts Poisson(1) times in each round (Hanley & MacGibbon 2006; Chamandy et al. 2012), which for many
viewers is the bootstrap of Efron (1979) with viewers as units. The weight is a function of (seed, viewer, round) alone,
so figures neither depend on the order in which results come in nor change between two runs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from recsys.domain.types import F64

U64 = npt.NDArray[np.uint64]
ROUNDS = 400

_POISSON = np.array([0.36787944117144233, 0.7357588823428847, 0.9196986029286058, 0.9810118431238462,
                     0.9963401531726563, 0.9994058151824183, 0.9999167588507119, 0.9999897508033253])  # fmt: skip
"""Distribution function of Poisson(1) at 0..7; eight and more are once in a million and count as eight."""


class Estimate(BaseModel):
    """A mean, and where it would lie in 95 of 100 repetitions with other viewers of the same kind."""

    model_config = ConfigDict(frozen=True)

    mean: float
    low: float
    high: float


def weights(units: Sequence[int], rounds: int = ROUNDS, seed: int = 0) -> F64:
    """[rounds, n] how often each of n requests counts in each round; those of one unit (viewer) go together.

    >>> w = weights([0, 0, 1], rounds=2000)
    >>> bool((w[:, 0] == w[:, 1]).all()), bool(abs(w.mean() - 1) < 0.05)
    (True, True)
    """
    unit = np.asarray(units, np.uint64)
    known, place = np.unique(unit, return_inverse=True)
    round_ = np.arange(1, rounds + 1, dtype=np.uint64)[:, None]
    with np.errstate(over="ignore"):
        key = _mixed(_mixed(known + np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15))[None, :] ^ _mixed(round_))
    uniform = (key >> np.uint64(11)).astype(np.float64) / 2.0**53
    return np.searchsorted(_POISSON, uniform, side="right").astype(np.float64)[:, place]


def _mixed(x: U64) -> U64:
    """The finaliser of splitmix64 (Steele, Lea & Flood 2014): every bit depends on every other."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: U64 = x ^ (x >> np.uint64(31))
    return mixed


def ratio(above: F64, below: F64, w: F64) -> Estimate:
    """Sum of `above` over sum of `below` [n], with its interval under `w` [rounds, n]; all zero where below is."""
    total = float(below.sum())
    if not len(below) or total == 0:
        return Estimate(mean=0.0, low=0.0, high=0.0)
    top, bottom = w @ above, w @ below
    spread = top[bottom != 0] / bottom[bottom != 0]
    low, high = np.quantile(spread, [0.025, 0.975]) if len(spread) else (0.0, 0.0)
    return Estimate(mean=float(above.sum()) / total, low=float(low), high=float(high))


def mean(per_request: F64, w: F64) -> Estimate:
    """The mean over requests with its interval.

    >>> mean(np.full(50, 0.25), weights(range(50)))
    Estimate(mean=0.25, low=0.25, high=0.25)
    """
    return ratio(per_request, np.ones(len(per_request)), w)
