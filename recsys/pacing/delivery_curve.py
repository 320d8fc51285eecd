"""The plan of a target: which part of its amount should be delivered by when.

A plan runs over traffic, not over the clock: `progress` is the part of the window's attention that has been served,
as far as counters and forecast can tell, and a curve turns it into the part of the amount that should be delivered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from recsys.domain.types import F64
from recsys.guidance.policy.schedule import span_of
from recsys.pacing.forecast import WEEK_S, Forecast, correction

Pacing = Literal["even", "frontloaded", "asap", "by_day_part"]

GOOD_FAITH = 0.15
"""The forecast is trusted as if this part of the window had been seen to agree with it."""


def progress(served: float, start: float, at: float, end: float, forecast: Forecast) -> float:
    """Part of a window's attention that is served, in [0, 1].

    served  attention counted since `start`, up to `at` (unix seconds)

    What is still to come is the forecast from `at` to `end`, corrected by how far traffic has kept to it so far. At
    `end` it is 1 however wrong the forecast was.

    >>> round(progress(served=50.0, start=0.0, at=50.0, end=100.0, forecast=Forecast.flat(1.0)), 3)
    0.5
    """
    if at >= end:
        return 1.0
    whole = forecast.mass(start, end)
    ahead = forecast.mass(at, end) * correction(served, forecast.mass(start, at), GOOD_FAITH * whole)
    return served / (served + ahead) if served + ahead > 0 else 0.0


def total(served: float, start: float, at: float, end: float, forecast: Forecast) -> float:
    """Attention of the whole window: what was served and what is still expected."""
    whole = forecast.mass(start, end)
    ahead = forecast.mass(at, end) * correction(served, forecast.mass(start, at), GOOD_FAITH * whole)
    return served + (ahead if at < end else 0.0)


def planned(shape: Pacing, done: float) -> float:
    """Part of the amount that should be delivered when part `done` of the traffic is served; both in [0, 1].

    even   in step with traffic
    frontloaded  twice the pace at the start, falling evenly to none at the end: reserves against a short evening
    asap   all at once: the price stays at its limit until the amount is there

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
    """[B] weight of each bin of a forecast so that every day gets the parts of its amount that editors gave.

    parts     "18:00-24:00" -> part of the day's amount
    offset_h  hours that the clock of the parts is ahead of UTC

    Within a part the plan is in step with traffic; outside of all parts nothing is planned.
    """
    bins = len(forecast.rate)
    clock_s = ((np.arange(bins) + 0.5) * WEEK_S / bins + offset_h * 3600.0) % 86_400.0
    weight = np.zeros(bins)
    for hours, part in parts.items():
        first, last = span_of(hours)
        inside = ((clock_s >= first) & (clock_s < last)) | (clock_s < last - 86_400)
        usual = float(forecast.rate[inside].sum())
        weight[inside] += part / usual if usual > 0 else 0.0
    return weight
