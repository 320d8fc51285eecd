"""Metrics of a simulated day, as reported by the benchmark."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys.domain.types import F64
from training.simulation.day import DayRecord
from training.simulation.strategies import planned_delivery
from training.simulation.world import Scenario

PUSH_THRESHOLD = 0.01
"""Price above which a target counts as pushed, in play equivalents per unit of attention."""


@dataclass(frozen=True)
class DeliveryErrors:
    """Delivery metrics of a day, in per cent.

    utility_loss      utility lost compared with a day without targets
    shortfall    [C]  missing part of the amount at the deadline (for a cap: the part above it)
    pacing       [C]  mean distance from the plan over the day, relative to the amount
    excess       [C]  delivery beyond the amount (0 for a cap)
    """

    utility_loss: float
    shortfall: F64
    pacing: F64
    excess: F64


def measure(day: Scenario, record: DayRecord, free: float) -> DeliveryErrors:
    """Return the metrics of a day. `free` is the utility of the same day without targets."""
    delivered = record.credit / day.amount
    shortfall = np.maximum(np.where(day.sign > 0, 1.0 - delivered, delivered - 1.0), 0.0)
    excess = np.where(day.sign > 0, np.maximum(delivered - 1.0, 0.0), 0.0)
    utility_loss = 100.0 * (1.0 - record.utility / free)
    pacing = pacing_errors(day, record).mean(axis=0)
    return DeliveryErrors(utility_loss, 100.0 * shortfall, 100.0 * pacing, 100.0 * excess)


def pacing_errors(day: Scenario, record: DayRecord) -> F64:
    """Return the distance from the plan [P, C] at each recorded point in time, as a fraction of the amount.

    Being ahead of the plan counts only while the target is pushed: organic delivery at a price of zero is not an error
    of the strategy, and a minimum does not limit it. Delivery beyond the amount is reported as `excess`.
    """
    ahead = (record.delivered - planned_delivery(day, record=record)) / day.amount * day.sign
    return np.where(record.push > PUSH_THRESHOLD, np.abs(ahead), np.maximum(-ahead, 0.0))


def recovery_time(day: Scenario, record: DayRecord, since: float, tolerance: float = 0.02) -> float:
    """Return how long recovery from an outage takes, as a fraction of the pages that remain after it.

    The outage ends when the fraction `since` of all pages has been served. Recovery is reached when all targets are
    within `tolerance` of their plan and stay there for a tenth of the remaining pages; 1 means never.
    """
    is_off = pacing_errors(day, record).max(axis=1) > tolerance
    pages = len(day.at)
    after = record.page >= since * pages
    remaining = pages * (1.0 - since)
    for p in np.flatnonzero(after):
        window = (record.page >= record.page[p]) & (record.page <= record.page[p] + 0.1 * remaining)
        if not is_off[window].any():
            return float((record.page[p] - since * pages) / remaining)
    return 1.0
