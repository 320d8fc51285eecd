"""Deterministic bootstrap intervals of paired differences: a Poisson bootstrap with hashed instead of drawn weights.

Every viewer counts Poisson(1) times in each round (Hanley & MacGibbon 2006; Chamandy et al. 2012). With many viewers
this approximates the bootstrap of Efron (1979) with viewers as units. A weight depends only on seed, viewer and round,
so the intervals do not depend on the order of the results and do not change between runs.
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
"""Distribution function of Poisson(1) at 0..7; larger values occur about once in 100,000 and count as eight."""


class Estimate(BaseModel):
    """A mean with its 95 % bootstrap interval over viewers."""

    model_config = ConfigDict(frozen=True)

    mean: float
    low: float
    high: float


def weights(units: Sequence[int], rounds: int = ROUNDS, seed: int = 0) -> F64:
    """Return [rounds, n] how often each of n requests counts in each round; requests of a unit (viewer) share a weight.

    >>> w = weights([0, 0, 1], rounds=2000)
    >>> bool((w[:, 0] == w[:, 1]).all()), bool(abs(w.mean() - 1) < 0.05)
    (True, True)
    """
    unit = np.asarray(units, np.uint64)
    unique_units, index = np.unique(unit, return_inverse=True)
    round_ = np.arange(1, rounds + 1, dtype=np.uint64)[:, None]
    with np.errstate(over="ignore"):
        key = _mixed(_mixed(unique_units + np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15))[None, :] ^ _mixed(round_))
    uniform = (key >> np.uint64(11)).astype(np.float64) / 2.0**53
    return np.searchsorted(_POISSON, uniform, side="right").astype(np.float64)[:, index]


def _mixed(x: U64) -> U64:
    """Apply the finaliser of splitmix64 (Steele, Lea & Flood 2014): every output bit depends on every input bit."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: U64 = x ^ (x >> np.uint64(31))
    return mixed


def ratio(numerator: F64, denominator: F64, w: F64) -> Estimate:
    """Return the sum of `numerator` over that of `denominator` [n], with its interval under weights `w` [rounds, n].

    All figures are 0 if the denominators sum to 0.
    """
    total = float(denominator.sum())
    if not len(denominator) or total == 0:
        return Estimate(mean=0.0, low=0.0, high=0.0)
    top, bottom = w @ numerator, w @ denominator
    spread = top[bottom != 0] / bottom[bottom != 0]
    low, high = np.quantile(spread, [0.025, 0.975]) if len(spread) else (0.0, 0.0)
    return Estimate(mean=float(numerator.sum()) / total, low=float(low), high=float(high))


def mean(per_request: F64, w: F64) -> Estimate:
    """Return the mean over requests with its interval.

    >>> mean(np.full(50, 0.25), weights(range(50)))
    Estimate(mean=0.25, low=0.25, high=0.25)
    """
    return ratio(per_request, np.ones(len(per_request)), w)
