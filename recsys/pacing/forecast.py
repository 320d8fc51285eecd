"""How much attention the audience will give: by time of the week, from what was counted, corrected by today."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from recsys.domain.types import F64

WEEK_S = 7 * 86_400
HOUR_S = 3600
MONDAY = 4 * 86_400  # 1970-01-05T00:00:00Z, a Monday: where the bins of a week begin
HALF_LIFE_WEEKS = 4.0
"""A week this old counts half in the forecast."""


@dataclass(frozen=True)
class Forecast:
    """Attention per second over one week of equal bins, the first from Monday 00:00 UTC; the week repeats.

    rate [B]  attention per second, >= 0; 168 bins are hours
    """

    rate: F64
    _sum: F64 = field(init=False, repr=False, compare=False)  # [B + 1] attention since Monday at each edge

    def __post_init__(self) -> None:
        width_s = WEEK_S / len(self.rate)
        object.__setattr__(self, "_sum", np.concatenate([[0.0], np.cumsum(self.rate * width_s)]))

    @classmethod
    def flat(cls, per_s: float = 1.0) -> Forecast:
        """The same at all hours: where nothing was ever counted."""
        return cls(np.full(168, per_s))

    def mass(self, since: float, until: float) -> float:
        """Attention expected between two unix seconds; 0 when `until` is not later.

        >>> Forecast.flat(2.0).mass(1000.0, 1010.0)
        20.0
        """
        return max(self._since_monday(until) - self._since_monday(since), 0.0) if until > since else 0.0

    def _since_monday(self, at: float) -> float:
        weeks, rest_s = divmod(at - MONDAY, WEEK_S)
        place = rest_s * len(self.rate) / WEEK_S
        b = min(int(place), len(self.rate) - 1)
        inside = self._sum[b] + (place - b) * (self._sum[b + 1] - self._sum[b])
        return float(weeks * self._sum[-1] + inside)

    def weighted(self, weight: F64) -> Forecast:
        """The same week with each bin's rate times `weight` ([B], >= 0)."""
        return Forecast(self.rate * weight)

    def scaled(self, by: float) -> Forecast:
        """The same week, everything times `by`."""
        return Forecast(self.rate * by)


def fit(attention_of_hour: Mapping[int, float], until: float) -> Forecast:
    """The forecast from attention counted per full hour (hours since 1970 UTC), by hour and weekday.

    until  unix seconds; the hour it lies in is not complete and is left out

    Weeks count less the older they are. An hour of the week that was never counted takes the mean of that hour on
    other days, and then the mean of all: a new outlet has a forecast from its second day on. A gap (no event at all in
    an hour between counted ones) counts as an hour without attention.
    """
    last = int(until // HOUR_S) - 1
    counted = {hour: worth for hour, worth in attention_of_hour.items() if hour <= last}
    if not counted:
        return Forecast.flat()
    hours = np.arange(min(counted), last + 1, dtype=np.int64)
    worth = np.array([counted.get(int(hour), 0.0) for hour in hours])
    weight = 0.5 ** ((last - hours) / (168.0 * HALF_LIFE_WEEKS))
    bin_of = (hours - MONDAY // HOUR_S) % 168
    mean = worth @ weight / weight.sum()
    by_clock = _means(bin_of % 24, worth, weight, np.full(24, mean))
    return Forecast(_means(bin_of, worth, weight, np.tile(by_clock, 7)) / HOUR_S)


def _means(bins: npt.NDArray[np.int64], worth: F64, weight: F64, otherwise: F64) -> F64:
    """Weighted mean per bin; `otherwise` where a bin has nothing."""
    total, count = np.zeros(len(otherwise)), np.zeros(len(otherwise))
    np.add.at(total, bins, worth * weight)
    np.add.at(count, bins, weight)
    return np.where(count > 0, total / np.maximum(count, 1e-300), otherwise)


def correction(seen: float, expected: float, prior: float) -> float:
    """By how much traffic differs from its forecast so far, shrunk towards 1 by `prior` attention of good faith.

    >>> correction(seen=300.0, expected=100.0, prior=100.0), correction(0.0, 0.0, 100.0)
    (2.0, 1.0)
    """
    return (seen + prior) / (expected + prior) if expected + prior > 0 else 1.0
