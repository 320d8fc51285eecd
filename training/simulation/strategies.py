"""Strategies for a simulated day: the controller of `recsys.pacing` and the baselines it is compared with."""

from __future__ import annotations

import numpy as np

from recsys.domain.types import F64
from recsys.pacing.controller import HOURS, ControllerState, Gains, Measurement, update
from recsys.pacing.delivery_curve import planned, progress, total
from recsys.pacing.tracker import SLOPE
from training.simulation.day import Counters, DayRecord, run_day
from training.simulation.world import Scenario

MAX_PRICE = 0.6
"""Maximum price of all targets of the simulated days, in play equivalents per unit of attention."""

DEFAULT_SLOPE = SLOPE / MAX_PRICE
"""Slope that serving assumes for every target."""


class ConstantPrices:
    """A strategy with the same prices all day: none, a fixed boost, or the best prices of the previous day."""

    def __init__(self, day: Scenario, price: F64) -> None:
        """`price` [C] in play equivalents per unit of attention."""
        self.push: F64 = price
        self._bonus: F64 = (day.member * day.sign) @ price

    def bonus(self, counters: Counters) -> F64:
        """Return the bonus [I] of each item."""
        return self._bonus

    def restart(self) -> None:
        """Do nothing: the strategy is stateless."""


class Greedy:
    """A strategy that gives the top slots to targets that are behind their plan."""

    def __init__(self, day: Scenario, frontloaded: bool = False) -> None:
        """`frontloaded`: push every target until its whole amount is delivered, whatever the plan."""
        self._day, self._frontloaded = day, frontloaded
        self.push: F64 = np.zeros(len(day.amount))

    def bonus(self, counters: Counters) -> F64:
        """Return the bonus [I] of each item."""
        day = self._day
        required = day.amount.copy()
        if not self._frontloaded:
            required *= [
                planned_fraction(day, c, float(counters.served[c]), counters.counted_until)
                for c in range(len(required))
            ]
        limit = day.amount * [
            planned_fraction(day, c, float(counters.served[c]), counters.counted_until) for c in range(len(required))
        ]
        behind = np.where(day.sign > 0, counters.delivered < required, counters.delivered > limit)
        has_started = counters.now >= day.start
        self.push = np.where(behind & has_started, 10.0, 0.0)
        bonus: F64 = (day.member * day.sign) @ self.push
        return bonus

    def restart(self) -> None:
        """Do nothing: the strategy is stateless."""


def uninformed_prices(day: Scenario) -> F64:
    """Return the initial hourly prices [C, 24] of a cold start: 0."""
    return np.zeros((len(day.amount), HOURS))


class PriceController:
    """The production controller with a price per target, as run by every serving process."""

    def __init__(self, day: Scenario, hourly_prices: F64, gains: Gains | None = None) -> None:
        """`hourly_prices` [C, 24] are the initial prices by hour, from the previous day or a guess."""
        self._day, self._gains = day, gains or Gains()
        self.push: F64 = np.asarray(hourly_prices.mean(axis=1), np.float64)
        self.states = [ControllerState.first(tuple(p.tolist()), day.start_at) for p in hourly_prices]

    def bonus(self, counters: Counters) -> F64:
        """Return the bonus [I] of each item."""
        day = self._day
        for c, state in enumerate(self.states):
            if counters.now < day.start[c] or counters.counted_until < day.start[c]:
                continue
            self.states[c] = update(
                state,
                measurement(day, c, counters),
                sign=int(day.sign[c]),
                max_price=MAX_PRICE,
                slope=DEFAULT_SLOPE,
                gains=self._gains,
            )
        self.push = np.array([state.price for state in self.states])
        bonus: F64 = (day.member * day.sign) @ self.push
        return bonus

    def restart(self) -> None:
        """Do nothing: the controller's state is in the store, not in the process."""


def measurement(day: Scenario, c: int, counters: Counters) -> Measurement:
    """Compare the counters of target `c` with its plan."""
    served, start = float(counters.served[c]), float(day.start[c])
    elapsed = progress(served, start, counters.counted_until, day.end, day.forecast)
    expected = total(served, start, counters.counted_until, day.end, day.forecast)
    lag = day.forecast.mass(max(counters.counted_until, start), counters.now) / max(expected, 1e-9)
    return Measurement(
        elapsed, planned("even", elapsed), float(counters.delivered[c] / day.amount[c]), lag, counters.now
    )


def planned_fraction(day: Scenario, c: int, served: float, at: float) -> float:
    """Return the planned fraction of the amount of target `c` after `served` attention since its start."""
    if at < day.start[c]:
        return 0.0
    return planned("even", progress(served, float(day.start[c]), at, day.end, day.forecast))


def planned_delivery(day: Scenario, page: F64 | None = None, record: DayRecord | None = None) -> F64:
    """Return the planned delivery [P, C] after so many pages: `page` [P], or the pages of a record."""
    at_page = record.page if record is not None else np.asarray(page, np.int64)
    per_page, begin = float(day.attention.sum()), np.searchsorted(day.at, day.start)
    plan = np.zeros((len(at_page), len(day.amount)))
    for p, n in enumerate(at_page.tolist()):
        at = day.end if n >= len(day.at) else float(day.at[n - 1]) if n else day.start_at
        for c in range(len(day.amount)):
            plan[p, c] = day.amount[c] * planned_fraction(day, c, max(n - int(begin[c]), 0) * per_page, at)
    return plan


def learn_prices(yesterday: Scenario, price: F64) -> F64:
    """Return hourly prices [C, 24] learned from a day that the controller serves from initial prices [C]."""
    controller = PriceController(yesterday, np.repeat(price[:, None], HOURS, axis=1))
    run_day(yesterday, controller)
    total = np.array([state.today for state in controller.states])
    weight = np.array([state.weight for state in controller.states])
    return np.where(weight > 0, total / np.maximum(weight, 1e-12), price[:, None])
