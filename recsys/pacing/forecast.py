"""Forecast of the audience's attention by time of the week, fitted to counters and corrected by current traffic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from recsys.domain.types import F64

WEEK_S = 7 * 86_400
HOUR_S = 3600
MONDAY = 4 * 86_400  # 1970-01-05T00:00:00Z, a Monday: the start of the first bin
HALF_LIFE_WEEKS = 4.0
"""Age at which a week has half its weight in the forecast."""


@dataclass(frozen=True)
class Forecast:
    """A repeating week of attention per second, in equal bins that start on Monday 00:00 UTC.

    rate [B]  attention per second, >= 0; 168 bins are hours
    """

    rate: F64
    _sum: F64 = field(init=False, repr=False, compare=False)  # [B + 1] attention since Monday at each edge

    def __post_init__(self) -> None:
        width_s = WEEK_S / len(self.rate)
        object.__setattr__(self, "_sum", np.concatenate([[0.0], np.cumsum(self.rate * width_s)]))

    @classmethod
    def flat(cls, per_s: float = 1.0) -> Forecast:
        """Return a constant forecast, for outlets without any counts."""
        return cls(np.full(168, per_s))

    def mass(self, since: float, until: float) -> float:
        """Return the attention expected between two unix seconds; 0 if `until` is not later than `since`.

        >>> Forecast.flat(2.0).mass(1000.0, 1010.0)
        20.0
        """
        return max(self._since_monday(until) - self._since_monday(since), 0.0) if until > since else 0.0

    def _since_monday(self, at: float) -> float:
        weeks, rest_s = divmod(at - MONDAY, WEEK_S)
        position = rest_s * len(self.rate) / WEEK_S
        b = min(int(position), len(self.rate) - 1)
        inside = self._sum[b] + (position - b) * (self._sum[b + 1] - self._sum[b])
        return float(weeks * self._sum[-1] + inside)

    def weighted(self, weight: F64) -> Forecast:
        """Return the forecast with the rate of each bin multiplied by `weight` ([B], >= 0)."""
        return Forecast(self.rate * weight)

    def scaled(self, by: float) -> Forecast:
        """Return the forecast with every rate multiplied by `by`."""
        return Forecast(self.rate * by)


def fit(attention_of_hour: Mapping[int, float], until: float) -> Forecast:
    """Fit a forecast by hour and weekday to the attention counted per full hour (hours since 1970 UTC).

    until  unix seconds; the incomplete hour that contains it is excluded

    Older weeks have less weight. An hour of the week without counts takes the mean of the same hour on other days, or
    else the overall mean, so a new outlet has a forecast from its second day. An hour without events between counted
    hours counts as zero attention.
    """
    last = int(until // HOUR_S) - 1
    counted = {hour: attention for hour, attention in attention_of_hour.items() if hour <= last}
    if not counted:
        return Forecast.flat()
    hours = np.arange(min(counted), last + 1, dtype=np.int64)
    attention = np.array([counted.get(int(hour), 0.0) for hour in hours])
    weight = 0.5 ** ((last - hours) / (168.0 * HALF_LIFE_WEEKS))
    bin_of = (hours - MONDAY // HOUR_S) % 168
    mean = attention @ weight / weight.sum()
    by_clock = _means(bin_of % 24, attention, weight, np.full(24, mean))
    return Forecast(_means(bin_of, attention, weight, np.tile(by_clock, 7)) / HOUR_S)


def _means(bins: npt.NDArray[np.int64], attention: F64, weight: F64, default: F64) -> F64:
    """Return the weighted mean per bin; `default` for an empty bin."""
    total, count = np.zeros(len(default)), np.zeros(len(default))
    np.add.at(total, bins, attention * weight)
    np.add.at(count, bins, weight)
    return np.where(count > 0, total / np.maximum(count, 1e-300), default)


def correction(observed: float, expected: float, prior: float) -> float:
    """Return the ratio of traffic to forecast so far, shrunk towards 1 by `prior` attention that matches the forecast.

    >>> correction(observed=300.0, expected=100.0, prior=100.0), correction(0.0, 0.0, 100.0)
    (2.0, 1.0)
    """
    return (observed + prior) / (expected + prior) if expected + prior > 0 else 1.0
