"""The delivery curve of a target: the fraction of its amount that is planned at each point of the window.

A plan follows traffic, not the clock. `progress` estimates the fraction of the window's attention that has been served,
from counters and forecast; the curve maps it to the fraction of the amount that should be delivered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from recsys.domain.types import F64
from recsys.guidance.policy.schedule import span_of
from recsys.pacing.forecast import WEEK_S, Forecast, correction

Pacing = Literal["even", "frontloaded", "asap", "by_day_part"]

PRIOR_WEIGHT = 0.15
"""Weight of the forecast in its own correction, as a part of the window that is assumed to match it."""


def progress(served: float, start: float, at: float, end: float, forecast: Forecast) -> float:
    """Return the fraction of a window's attention that was served, in [0, 1].

    served  attention counted since `start`, up to `at` (unix seconds)

    The remaining attention is the forecast from `at` to `end`, corrected by the ratio of traffic to forecast so far. At
    `end` progress is 1, however wrong the forecast was.

    >>> round(progress(served=50.0, start=0.0, at=50.0, end=100.0, forecast=Forecast.flat(1.0)), 3)
    0.5
    """
    if at >= end:
        return 1.0
    expected = forecast.mass(start, end)
    remaining = forecast.mass(at, end) * correction(served, forecast.mass(start, at), PRIOR_WEIGHT * expected)
    return served / (served + remaining) if served + remaining > 0 else 0.0


def total(served: float, start: float, at: float, end: float, forecast: Forecast) -> float:
    """Return the attention of the whole window: served plus expected."""
    expected = forecast.mass(start, end)
    remaining = forecast.mass(at, end) * correction(served, forecast.mass(start, at), PRIOR_WEIGHT * expected)
    return served + (remaining if at < end else 0.0)


def planned(shape: Pacing, done: float) -> float:
    """Return the planned fraction of the amount when the fraction `done` of the traffic was served; both in [0, 1].

    even         in proportion to traffic
    frontloaded  twice that rate at the start, falling linearly to zero at the end, as a reserve against low traffic
    asap         everything at once: the price stays at its limit until the amount is delivered

    >>> [planned(shape, 0.5) for shape in ("even", "frontloaded", "asap")]
    [0.5, 0.75, 1.0]
    """
    done = min(max(done, 0.0), 1.0)
    if shape == "frontloaded":
        return done * (2.0 - done)
    if shape == "asap":
        return 1.0
    return done


def day_part_weights(parts: Mapping[str, float], offset_h: float, forecast: Forecast) -> F64:
    """Return [B] the weight of each forecast bin that gives every day part its share of the day's amount.

    parts     "18:00-24:00" -> share of the day's amount
    offset_h  offset of the clock of the parts from UTC, in hours

    Within a part the plan is proportional to traffic; outside all parts nothing is planned.
    """
    bins = len(forecast.rate)
    clock_s = ((np.arange(bins) + 0.5) * WEEK_S / bins + offset_h * 3600.0) % 86_400.0
    weight = np.zeros(bins)
    for hours, part in parts.items():
        first, last = span_of(hours)
        inside = ((clock_s >= first) & (clock_s < last)) | (clock_s < last - 86_400)
        traffic = float(forecast.rate[inside].sum())
        weight[inside] += part / traffic if traffic > 0 else 0.0
    return weight
