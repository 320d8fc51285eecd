"""One target from definition to price: what was counted goes in, what every page must know comes out.

    counts + forecast -> progress -> plan -> lag -> price -> outlook -> status

All state of a target is one `Pursuit`; `pursue` is a function of it, the counts and the clock, and with the same counts
it changes nothing. So any process may run it, none is in charge, and a process that ends takes nothing along.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from recsys.guidance.policy.controls import ExposureTarget
from recsys.pacing.controller import ControllerState, Gains, Measurement, day_over, update
from recsys.pacing.delivery_curve import day_part_weights, planned, progress, total
from recsys.pacing.forecast import Forecast
from recsys.pacing.projection import DeliveryRate, Projection, project, updated_rate

SLOPE = 4.0
"""Amounts per window that the whole range of a price is expected to move, until something better is known."""


EXPECTED = 10.0
"""Attention that must have been expected before counters that do not move are called silent."""


TRAIL_MAX = 100
"""Moments of a target's course that are remembered, spread over its progress."""


@dataclass(frozen=True)
class TargetOverride:
    """What editors told a running target, beyond its policy. `amount`: impressions or share in place of its own."""

    paused: bool = False
    stopped: bool = False
    amount: float | None = None


@dataclass(frozen=True)
class DeliveryCounts:
    """What was counted of a target: attention of its items, attention of all pages it was in force on, newest
    impression (unix second; 0 before the first)."""

    delivered: float = 0.0
    available: float = 0.0
    until_offset: float = 0.0


@dataclass(frozen=True)
class PacingState:
    """What is remembered of a target.

    start      unix second of its beginning
    amount     impressions or share that the plan was last made for
    base       progress and attention won from which the plan was last made anew (resumed, another amount or window)
    steering   of the price
    pace       how delivery went lately
    paused, resort   whether it is paused; whether its last resort is in force
    error      sum over progress of |delivered - planned|, as parts of the amount
    trail      (unix second, planned, delivered, price), at most TRAIL of them: for the report
    window     first and last unix second that progress is measured over; None in states of before it was kept
    known      revision of policies and orders that whoever wrote this knew; -1 in states of before it was kept
    """

    start: float
    amount: float
    controller: ControllerState
    base: tuple[float, float] = (0.0, 0.0)
    rate: DeliveryRate = field(default_factory=DeliveryRate)
    paused: bool = False
    last_resort: bool = False
    error: float = 0.0
    trail: tuple[tuple[float, float, float, float], ...] = ()
    window: tuple[float, float] | None = None
    revision: int = -1

    @classmethod
    def begin(cls, target: ExposureTarget, now: float, price: float | tuple[float, ...] = 0.0) -> PacingState:
        """A target nobody has pursued yet, at a first price (of all hours, or for each)."""
        start = target.since.timestamp() if target.since else now
        steering = ControllerState.first(price, now)
        return cls(start, amount_of(target, TargetOverride()), steering, window=(start, target.until.timestamp()))


@dataclass(frozen=True)
class DeliveryStatus:
    """How a target stands.

    amount, delivered, planned   attention: in all by the deadline, won so far, wanted so far
    progress                     part of the window's traffic that is served
    price, price_limit           play equivalents per unit of attention
    share, so_far                of a share target: the share of all attention that is asked, and that it has so far
    late_s                       seconds that the counters are behind; `silent_s` how long they have not moved
    """

    amount: float
    delivered: float
    planned: float
    progress: float
    price: float
    price_limit: float
    tolerance: float
    outlook: Projection
    late_s: float
    silent_s: float
    pacing_error: float
    paused: bool
    stopped: bool
    ended: bool
    started: bool
    last_resort: bool
    cap: bool
    share: float | None = None
    share_so_far: float | None = None

    @property
    def lag(self) -> float:
        """Part of the amount by which it is behind its plan; a cap: by which it is above."""
        return (-1.0 if self.cap else 1.0) * (self.planned - self.delivered) / max(self.amount, 1e-9)


def amount_of(target: ExposureTarget, order: TargetOverride) -> float:
    """Impressions or share that are asked for now."""
    said = target.impressions if target.impressions is not None else target.share
    assert said is not None
    return float(said if order.amount is None or not math.isfinite(order.amount) else order.amount)


def advance(
    target: ExposureTarget,
    state: PacingState,
    count: DeliveryCounts,
    forecast: Forecast,
    now: float,
    order: TargetOverride | None = None,
    gains: Gains | None = None,
) -> tuple[PacingState, DeliveryStatus]:
    """The target a moment later, and how it stands.

    forecast  attention per second on the pages it is in force for
    """
    order, gains, state = order or TargetOverride(), gains or Gains(), _reset_if_not_finite(state)
    asked, end = amount_of(target, order), target.until.timestamp()
    window = (target.since.timestamp() if target.since else state.start, end)
    moved = state.window is not None and state.window != window
    state = replace(state, start=window[0] if moved else state.start, window=window)
    upto = min(max(count.until_offset, state.start), end)
    plan = _Plan(target, state.start, end, forecast)
    done = plan.progress(count.available, upto)
    if moved:  # the same traffic is another part of another window: measure and plan from here
        state = _rebased(state, done, count.delivered, now)
    done = max(done, state.controller.progress)
    whole = max(total(count.available, state.start, upto, end, forecast), 1e-9)
    amount = asked * whole if target.share is not None else asked
    if asked != state.amount or (state.paused and not order.paused):  # plan the rest anew from here, without a jump
        state = _replanned(state, asked, done, count.delivered)
    wanted = plan.wanted(amount, state.base, done)
    late = forecast.mass(upto, min(now, end)) / whole
    seen = Measurement(done, wanted / amount, count.delivered / amount, late, now)
    sign = 1 if target.bound == "at_least" else -1
    running = state.start <= now < end and not order.paused and not order.stopped
    pace, error = state.rate, state.error
    if done > state.controller.progress:
        pace = updated_rate(pace, done, seen.delivered)
        error += abs(seen.delivered - seen.planned) * (done - state.controller.progress)
    steering = _steered(target, state, seen, gains, sign) if running else _unsteered(state, done, now)
    price = steering.price if running else 0.0
    outlook = project(pace, done, seen.delivered, sign, price, target.max_price, SLOPE / target.max_price)
    resort = _resort(target, state.last_resort, price, outlook, seen) and running
    trail = _extended_trail(state, done, (now, wanted, count.delivered, price))
    pursuit = replace(
        state, controller=steering, rate=pace, error=error, paused=order.paused, last_resort=resort, trail=trail
    )
    return pursuit, DeliveryStatus(
        amount=amount, delivered=count.delivered, planned=wanted, progress=done, price=price,
        price_limit=target.max_price,
        tolerance=target.tolerance, outlook=outlook, late_s=max(min(now, end) - upto, 0.0),
        silent_s=_silent_s(max(steering.moved_at, state.start), now, forecast) if running else 0.0,
        pacing_error=error / max(done, 1e-9), paused=order.paused, stopped=order.stopped, ended=now >= end,
        started=now >= state.start, last_resort=resort, cap=sign < 0,
        share=asked if target.share is not None else None,
        share_so_far=count.delivered / count.available if target.share is not None and count.available > 0 else None,
    )  # fmt: skip


def _replanned(state: PacingState, amount: float, done: float, won: float) -> PacingState:
    """Return the state with the rest planned again from part `done` of the traffic, for another amount."""
    error = state.error * state.amount / amount  # the same attention, as parts of the new amount
    steering = replace(state.controller, lag=None)
    return replace(state, amount=amount, base=(done, won), controller=steering, error=error)


def _steered(target: ExposureTarget, state: PacingState, seen: Measurement, gains: Gains, sign: int) -> ControllerState:
    """Return the steering of a running target after this reading; `sign` is -1 for a cap."""
    steering = state.controller
    if steering.moved_at < state.start:
        steering = replace(steering, moved_at=state.start)  # nothing could move before it began
    slope = SLOPE / target.max_price
    return update(steering, seen, sign=sign, max_price=target.max_price, slope=slope, gains=gains)


def _unsteered(state: PacingState, done: float, now: float) -> ControllerState:
    """Return the steering of a target that does not run: it follows the traffic, and nothing is learned from it."""
    if done <= state.controller.progress:
        return state.controller
    return replace(day_over(state.controller, now), progress=done, moved_at=now, lag=None, in_flight=())


def _extended_trail(
    state: PacingState, done: float, moment: tuple[float, float, float, float]
) -> tuple[tuple[float, float, float, float], ...]:
    """Return the trail, with this moment where progress reached the next of its TRAIL steps."""
    before = state.controller.progress
    if done > before and int(done * TRAIL_MAX) > int(before * TRAIL_MAX):
        return (*state.trail, moment)[-TRAIL_MAX:]
    return state.trail


def _rebased(state: PacingState, done: float, won: float, now: float) -> PacingState:
    """The state over another window, of which part `done` is served."""
    before = state.controller.progress
    steering = replace(day_over(state.controller, now), progress=done, moved_at=now, lag=None, in_flight=())
    error = state.error * done / before if before > 0 else 0.0
    return replace(state, controller=steering, base=(done, won), rate=DeliveryRate(), error=error)


def _silent_s(since: float, now: float, forecast: Forecast) -> float:
    """Seconds that counters have been silent although traffic was expected."""
    return max(now - since, 0.0) if forecast.mass(since, now) >= EXPECTED else 0.0


def _reset_if_not_finite(state: PacingState) -> PacingState:
    """The state; where an amount without end made its figures NaN, with steering begun anew from the usual prices."""
    s = state.controller
    if all(map(math.isfinite, (s.price, s.integral, s.level, s.limited_price, state.error, *s.hourly_price, *s.today))):
        return state
    usual = s.hourly_price if all(map(math.isfinite, s.hourly_price)) else 0.0
    return replace(
        state,
        controller=replace(ControllerState.first(usual, s.moved_at), progress=s.progress),
        rate=DeliveryRate(),
        error=0.0,
        trail=tuple(moment for moment in state.trail if all(map(math.isfinite, moment))),
    )


def _resort(target: ExposureTarget, before: bool, price: float, outlook: Projection, seen: Measurement) -> bool:
    """Whether the last resort is in force: the price is at its limit and will not do; until the plan is caught up."""
    if target.last_resort is None:
        return False
    if before:
        return seen.delivered < seen.planned
    return price >= 0.98 * target.max_price and outlook.expected < 1.0 - target.tolerance


@dataclass(frozen=True)
class _Plan:
    """When what is wanted, over one window."""

    target: ExposureTarget
    start: float
    end: float
    forecast: Forecast

    def progress(self, served: float, upto: float) -> float:
        """Part of the window's traffic that was served."""
        return progress(served, self.start, upto, self.end, self.forecast)

    def wanted(self, amount: float, base: tuple[float, float], done: float) -> float:
        """Attention it should have when part `done` of the traffic is served; `base` is where the plan begins."""
        shape = "even" if self.target.pacing == "by_day_part" else self.target.pacing
        curve = self._by_day_part if self.target.pacing == "by_day_part" else lambda part: planned(shape, part)
        first, won = base
        if first <= 0.0:
            return amount * curve(done)
        left = 1.0 - curve(first)
        ahead = (curve(done) - curve(first)) / left if left > 1e-9 else 1.0
        return won + max(amount - won, 0.0) * min(max(ahead, 0.0), 1.0)

    def _by_day_part(self, done: float) -> float:
        """Part of the amount by the parts of the day. `done` is turned back into the clock by the forecast."""
        weights = day_part_weights(self.target.day_parts, self.target.offset_h, self.forecast)
        weighted = self.forecast.weighted(weights)
        at = self._when(done)
        return weighted.mass(self.start, at) / max(weighted.mass(self.start, self.end), 1e-9)

    def _when(self, done: float) -> float:
        """Unix second at which the forecast has served part `done` of the window."""
        low, high = self.start, self.end
        wanted = done * self.forecast.mass(low, high)
        for _ in range(40):
            middle = (low + high) / 2.0
            if self.forecast.mass(self.start, middle) < wanted:
                low = middle
            else:
                high = middle
        return high
