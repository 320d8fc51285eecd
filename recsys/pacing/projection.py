"""Projection of a target's delivery at its deadline, with an interval and the amount at risk."""

from __future__ import annotations

import math
from dataclasses import dataclass

RATE_WINDOW = 0.05
"""Part of the window over which the delivery rate is averaged."""

AT_LIMIT = 0.98
"""Part of its limit from which a price counts as being at the limit."""

Z_90 = 1.645
"""Half-width of a 90 % interval, in standard deviations."""


@dataclass(frozen=True)
class DeliveryRate:
    """The recent rate of delivery.

    rate                 amounts per window of traffic; 1 is on plan
    noise                variance of delivery per window
    progress, delivered  at the last reading
    """

    rate: float = -1.0  # negative: no reading yet
    noise: float = 0.0
    progress: float = 0.0
    delivered: float = 0.0


@dataclass(frozen=True)
class Projection:
    """The projected delivery at the deadline, as fractions of the amount.

    expected   expected delivery
    low, high  90 % interval
    limited    the price is at its limit
    """

    expected: float
    low: float
    high: float
    limited: bool

    def at_risk(self, amount: float, cap: bool = False) -> float:
        """Return the attention that may be missing at the deadline, or that may exceed a cap.

        >>> Projection(0.9, 0.8, 1.1, True).at_risk(1000.0), Projection(0.9, 0.8, 1.1, True).at_risk(1000.0, cap=True)
        (200.0, 100.0)
        """
        return round(max(self.high - 1.0 if cap else 1.0 - self.low, 0.0), 12) * amount


def updated_rate(previous: DeliveryRate, progress: float, delivered: float) -> DeliveryRate:
    """Return the delivery rate after another reading; progress must have increased.

    >>> updated_rate(DeliveryRate(1.0, 0.0, 0.5, 0.5), 0.55, 0.6).rate.__round__(2)
    1.63
    """
    step, gained = progress - previous.progress, delivered - previous.delivered
    if previous.rate < 0:
        return DeliveryRate(gained / step, 0.0, progress, delivered)
    weight = 1.0 - math.exp(-step / RATE_WINDOW)
    squared_error = (gained - previous.rate * step) ** 2 / step
    new_rate = previous.rate + weight * (gained / step - previous.rate)
    return DeliveryRate(new_rate, previous.noise + weight * (squared_error - previous.noise), progress, delivered)


def project(
    previous: DeliveryRate, progress: float, delivered: float, sign: int, price: float, max_price: float, slope: float
) -> Projection:
    """Return the projection at a price.

    slope  response of delivery to the price: fraction of the amount delivered per window, for each play equivalent

    A price below its limit is assumed to adjust as needed, as far as `slope` allows. At the limit, delivery continues
    at its current rate. `low` is never below what is already delivered.
    """
    remaining = max(1.0 - progress, 0.0)
    rate = max(previous.rate, 0.0) if previous.rate >= 0 else 1.0
    limited = price >= AT_LIMIT * max_price
    room = 0.0 if limited else slope * (max_price - price)
    if sign > 0:
        upper = delivered + (rate + room) * remaining
        lower = delivered + max(rate - slope * price, 0.0) * remaining  # delivery at price 0
        expected = min(max(1.0, lower), upper)
    else:
        lower = delivered + max(rate - room, 0.0) * remaining
        upper = delivered + (rate + slope * price) * remaining
        expected = max(min(1.0, upper), lower)
    on_course = abs(expected - 1.0) < 1e-9
    spread = Z_90 * math.sqrt(max(previous.noise, 0.0) * (min(remaining, 0.03) if on_course else remaining))
    return Projection(expected, max(expected - spread, delivered), expected + spread, limited)
