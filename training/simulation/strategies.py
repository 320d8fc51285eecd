"""Ways to steer a simulated day: the controller of `recsys.pacing`, and what it is compared with."""

from __future__ import annotations

import numpy as np

from recsys.domain.types import F64
from recsys.pacing.controller import HOURS, ControllerState, Gains, Measurement, update
from recsys.pacing.delivery_curve import planned, progress, total
from recsys.pacing.tracker import SLOPE
from training.simulation.day import Counters, DayRecord, run_day
from training.simulation.world import Scenario

MAX_PRICE = 0.6
"""Play equivalents per unit of attention, for all targets of the simulated days."""

UNKNOWN_SLOPE = SLOPE / MAX_PRICE
"""What serving presumes of every target."""


class ConstantPrices:
    """The same bonus all day: nothing, a fixed boost, or yesterday's best prices."""

    def __init__(self, day: Scenario, price: F64) -> None:
        """`price` [C], play equivalents per unit of attention."""
        self.push: F64 = price
        self._bonus: F64 = (day.member * day.sign) @ price

    def bonus(self, seen: Counters) -> F64:
        """[I]"""
        return self._bonus

    def restart(self) -> None:
        """Nothing to forget."""


class Greedy:
    """The top slots for whatever is behind its plan (or, with `front`, for whatever is not done)."""

    def __init__(self, day: Scenario, front: bool = False) -> None:
        """`front`: does not wait for the plan."""
        self._day, self._front = day, front
        self.push: F64 = np.zeros(len(day.amount))

    def bonus(self, seen: Counters) -> F64:
        """[I]"""
        day = self._day
        wanted = day.amount.copy()
        if not self._front:
            wanted *= [planned_fraction(day, c, float(seen.served[c]), seen.counted_until) for c in range(len(wanted))]
        over = day.amount * [
            planned_fraction(day, c, float(seen.served[c]), seen.counted_until) for c in range(len(wanted))
        ]
        behind = np.where(day.sign > 0, seen.delivered < wanted, seen.delivered > over)
        begun = seen.now >= day.start
        self.push = np.where(behind & begun, 10.0, 0.0)
        answer: F64 = (day.member * day.sign) @ self.push
        return answer

    def restart(self) -> None:
        """Nothing to forget."""


def uninformed_prices(day: Scenario) -> F64:
    """[C, 24] first prices of a cold start: 0."""
    return np.zeros((len(day.amount), HOURS))


class PriceController:
    """The real controller, one price per target, as every serving process runs it."""

    def __init__(self, day: Scenario, usual: F64, gains: Gains | None = None) -> None:
        """`usual` [C, 24]: prices by hour, from yesterday, or a guess."""
        self._day, self._gains = day, gains or Gains()
        self.push: F64 = np.asarray(usual.mean(axis=1), np.float64)
        self.states = [ControllerState.first(tuple(p.tolist()), day.start_at) for p in usual]

    def bonus(self, seen: Counters) -> F64:
        """[I]"""
        day = self._day
        for c, state in enumerate(self.states):
            if seen.now < day.start[c] or seen.counted_until < day.start[c]:
                continue
            self.states[c] = update(
                state,
                measurement(day, c, seen),
                sign=int(day.sign[c]),
                max_price=MAX_PRICE,
                slope=UNKNOWN_SLOPE,
                gains=self._gains,
            )
        self.push = np.array([state.price for state in self.states])
        answer: F64 = (day.member * day.sign) @ self.push
        return answer

    def restart(self) -> None:
        """What is remembered is in the store, not in the process."""


def measurement(day: Scenario, c: int, seen: Counters) -> Measurement:
    """The counters of target c against its plan."""
    served, start = float(seen.served[c]), float(day.start[c])
    done = progress(served, start, seen.counted_until, day.end, day.forecast)
    whole = total(served, start, seen.counted_until, day.end, day.forecast)
    late = day.forecast.mass(max(seen.counted_until, start), seen.now) / max(whole, 1e-9)
    return Measurement(done, planned("even", done), float(seen.delivered[c] / day.amount[c]), late, seen.now)


def planned_fraction(day: Scenario, c: int, served: float, at: float) -> float:
    """Part of its amount that target c should have after `served` attention since its start."""
    if at < day.start[c]:
        return 0.0
    return planned("even", progress(served, float(day.start[c]), at, day.end, day.forecast))


def planned_delivery(day: Scenario, page: F64 | None = None, record: DayRecord | None = None) -> F64:
    """[P, C] attention each target should have after so many pages ([P], or those of a record)."""
    at_page = record.page if record is not None else np.asarray(page, np.int64)
    per_page, begin = float(day.attention.sum()), np.searchsorted(day.at, day.start)
    plan = np.zeros((len(at_page), len(day.amount)))
    for p, n in enumerate(at_page.tolist()):
        at = day.end if n >= len(day.at) else float(day.at[n - 1]) if n else day.start_at
        for c in range(len(day.amount)):
            plan[p, c] = day.amount[c] * planned_fraction(day, c, max(n - int(begin[c]), 0) * per_page, at)
    return plan


def learn_prices(yesterday: Scenario, price: F64) -> F64:
    """[C, 24] prices by hour that a day teaches: it is served under the controller, from first prices [C]."""
    steer = PriceController(yesterday, np.repeat(price[:, None], HOURS, axis=1))
    run_day(yesterday, steer)
    total = np.array([state.today for state in steer.states])
    weight = np.array([state.weight for state in steer.states])
    return np.where(weight > 0, total / np.maximum(weight, 1e-12), price[:, None])
