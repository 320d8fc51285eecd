"""Where a target will stand at its deadline: expected, with an interval, and what is at risk."""

from __future__ import annotations

import math
from dataclasses import dataclass

MEMORY = 0.05
"""The pace is that of the last this part of the window."""

AT_LIMIT = 0.98
"""From this part of its limit on, a price counts as being there."""

SURE = 1.645
"""Standard deviations either way of an interval that holds in nine cases of ten."""


@dataclass(frozen=True)
class DeliveryRate:
    """How delivery went lately: `rate` amounts per window of traffic (1 = in step), `noise` variance of delivery per
    window; `progress` and `delivered` at the last look."""

    rate: float = -1.0  # nothing seen yet
    noise: float = 0.0
    progress: float = 0.0
    delivered: float = 0.0


@dataclass(frozen=True)
class Projection:
    """Part of the amount at the deadline: `expected`, and `low` to `high` in nine cases of ten; `limited` when the
    price is at its limit."""

    expected: float
    low: float
    high: float
    limited: bool

    def at_risk(self, amount: float, cap: bool = False) -> float:
        """Attention that may be missing at the deadline; of a cap, that may be above it.

        >>> Projection(0.9, 0.8, 1.1, True).at_risk(1000.0), Projection(0.9, 0.8, 1.1, True).at_risk(1000.0, cap=True)
        (200.0, 100.0)
        """
        return round(max(self.high - 1.0 if cap else 1.0 - self.low, 0.0), 12) * amount


def updated_rate(pace: DeliveryRate, progress: float, delivered: float) -> DeliveryRate:
    """The pace after another look at the counters; progress must have grown.

    >>> updated_rate(DeliveryRate(1.0, 0.0, 0.5, 0.5), 0.55, 0.6).rate.__round__(2)
    1.63
    """
    step, won = progress - pace.progress, delivered - pace.delivered
    if pace.rate < 0:
        return DeliveryRate(won / step, 0.0, progress, delivered)
    new = 1.0 - math.exp(-step / MEMORY)
    surprise = (won - pace.rate * step) ** 2 / step
    rate = pace.rate + new * (won / step - pace.rate)
    return DeliveryRate(rate, pace.noise + new * (surprise - pace.noise), progress, delivered)


def project(
    pace: DeliveryRate, progress: float, delivered: float, sign: int, price: float, max_price: float, slope: float
) -> Projection:
    """The outlook at a price.

    With room below its limit the price will do what is needed, as far as `slope` (amounts per window and play
    equivalent) says that it can; at its limit delivery goes on as it went. What is delivered stays: `low` is never
    less.
    """
    left = max(1.0 - progress, 0.0)
    rate = max(pace.rate, 0.0) if pace.rate >= 0 else 1.0
    limited = price >= AT_LIMIT * max_price
    room = 0.0 if limited else slope * (max_price - price)
    if sign > 0:
        at_most = delivered + (rate + room) * left
        least = delivered + max(rate - slope * price, 0.0) * left  # what comes without any price
        expected = min(max(1.0, least), at_most)
    else:
        at_least = delivered + max(rate - room, 0.0) * left
        most = delivered + (rate + slope * price) * left
        expected = max(min(1.0, most), at_least)
    steered = abs(expected - 1.0) < 1e-9
    spread = SURE * math.sqrt(max(pace.noise, 0.0) * (min(left, 0.03) if steered else left))
    return Projection(expected, max(expected - spread, delivered), expected + spread, limited)
