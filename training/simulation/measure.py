"""What a simulated day came to, in the figures of the benchmark."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys.domain.types import F64
from training.simulation.day import DayRecord
from training.simulation.strategies import planned_delivery
from training.simulation.world import Scenario

PUSH_THRESHOLD = 0.01
"""Play equivalents per unit of attention above which a target counts as pushed."""


@dataclass(frozen=True)
class DeliveryErrors:
    """All in per cent.

    lost         utility lost against a day without targets
    short        [C] of its amount that a target is short of (a cap: above) at the deadline
    pacing       [C] mean distance from the plan over the day, as part of the amount
    over         [C] delivered beyond the amount (of a cap: nothing)
    """

    utility_loss: float
    shortfall: F64
    pacing: F64
    excess: F64


def measure(day: Scenario, record: DayRecord, free: float) -> DeliveryErrors:
    """The figures of a day. `free`: utility of the same day without targets."""
    part = record.credit / day.amount
    short = np.maximum(np.where(day.sign > 0, 1.0 - part, part - 1.0), 0.0)
    over = np.where(day.sign > 0, np.maximum(part - 1.0, 0.0), 0.0)
    lost = 100.0 * (1.0 - record.utility / free)
    return DeliveryErrors(lost, 100.0 * short, 100.0 * pacing_errors(day, record).mean(axis=0), 100.0 * over)


def pacing_errors(day: Scenario, record: DayRecord) -> F64:
    """[P, C] distance from the plan at each moment, as part of the amount.

    Being ahead of the plan counts while the target is pushed: what comes by itself, at a price of nothing, is no error
    of whoever steers, and a target is not there to hold it back. What was delivered beyond the amount is `over`.
    """
    ahead = (record.delivered - planned_delivery(day, record=record)) / day.amount * day.sign
    return np.where(record.push > PUSH_THRESHOLD, np.abs(ahead), np.maximum(-ahead, 0.0))


def recovery_time(day: Scenario, record: DayRecord, since: float, tolerance: float = 0.02) -> float:
    """After an outage that ended when part `since` of the pages was served: part of the remaining pages until all
    targets are within `tolerance` of their plan, and stay so for at least a tenth of the rest."""
    off = pacing_errors(day, record).max(axis=1) > tolerance
    pages = len(day.at)
    after = record.page >= since * pages
    rest = pages * (1.0 - since)
    for p in np.flatnonzero(after):
        soon = (record.page >= record.page[p]) & (record.page <= record.page[p] + 0.1 * rest)
        if not off[soon].any():
            return float((record.page[p] - since * pages) / rest)
    return 1.0
