"""Confidence intervals of differences between models."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys.domain.types import F64


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its 95 % confidence interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"


def bootstrap(difference: F64, rounds: int, seed: int) -> Interval:
    """Return the percentile bootstrap interval of the mean of paired differences, resampling viewers (Efron 1979).

    difference [V]  one model's figure minus the other's, per viewer

    >>> bootstrap(np.full(50, 0.25), rounds=100, seed=1)
    Interval(mean=0.25, low=0.25, high=0.25)
    """
    if not len(difference):
        raise ValueError("a bootstrap needs at least one viewer")
    drawn = np.random.default_rng(seed).integers(len(difference), size=(rounds, len(difference)))
    low, high = np.quantile(difference[drawn].mean(axis=1), [0.025, 0.975])
    return Interval(float(difference.mean()), float(low), float(high))
