"""Tracking of one target: counts come in, the price and the delivery status go out.

    counts + forecast -> progress -> plan -> lag -> price -> projection -> status

All state of a target is one `PacingState`. `advance` is a function of this state, the counts and the clock, and changes
nothing if the counts are the same. Any process may run it, without a leader, and no process holds state of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from recsys.guidance.policy.controls import ExposureTarget
from recsys.pacing.controller import ControllerState, Gains, Measurement, roll_over_day, update
from recsys.pacing.delivery_curve import day_part_weights, planned, progress, total
from recsys.pacing.forecast import Forecast
from recsys.pacing.projection import DeliveryRate, Projection, project, updated_rate

SLOPE = 4.0
"""Presumed response of delivery to the full range of a price, as a fraction of the amount per window."""


MIN_EXPECTED = 10.0
"""Expected attention before idle counters are reported as silent."""


TRAIL_MAX = 100
"""Maximum number of points in a target's trail, spread over its progress."""


@dataclass(frozen=True)
class TargetOverride:
    """An override by editors of a running target. `amount` replaces the impressions or share of the policy."""

    paused: bool = False
    stopped: bool = False
    amount: float | None = None


@dataclass(frozen=True)
class DeliveryCounts:
    """The counters of a target.

    delivered      attention of its items
    available      attention of all pages on which it was in force
    counted_until  unix second of the newest counted impression; 0 before the first
    """

    delivered: float = 0.0
    available: float = 0.0
    counted_until: float = 0.0


@dataclass(frozen=True)
class PacingState:
    """The stored state of a target.

    start        unix second of its start
    amount       impressions or share of the current plan
    controller   state of the price controller
    base         (progress, delivered attention) at which the current plan begins; it changes when the target is resumed
                 or gets another amount or window
    rate         recent rate of delivery
    paused       whether it is paused
    last_resort  whether its last resort is active
    error        |delivered - planned| integrated over progress, as a fraction of the amount
    trail        (unix second, planned, delivered, price), at most TRAIL_MAX points, for the report
    window       (start, end) of the window of progress, in unix seconds; None in states from older versions
    revision     revision of policies and overrides of the last writer; -1 in states from older versions
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
        """Return the state of a new target at an initial price (for all hours, or one per hour)."""
        start = target.since.timestamp() if target.since else now
        controller = ControllerState.first(price, now)
        return cls(start, amount_of(target, TargetOverride()), controller, window=(start, target.until.timestamp()))


@dataclass(frozen=True)
class DeliveryStatus:
    """The delivery status of a target.

    amount, delivered, planned   attention due by the deadline, delivered so far, and planned so far
    progress                     part of the window's traffic that is served
    price, price_limit           per unit of attention, in the unit of `ActivePrices.price`
    outlook                      projected delivery at the deadline
    counter_lag_s                       delay of the counters in seconds
    silent_s                     seconds since the counters last moved
    pacing_error                 mean |delivered - planned| so far, as a fraction of the amount
    share, share_so_far          for a share target: the required and the current share of all attention
    """

    amount: float
    delivered: float
    planned: float
    progress: float
    price: float
    price_limit: float
    tolerance: float
    outlook: Projection
    counter_lag_s: float
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
        """Part of the amount by which delivery is behind the plan; for a cap, above it."""
        return (-1.0 if self.cap else 1.0) * (self.planned - self.delivered) / max(self.amount, 1e-9)


def amount_of(target: ExposureTarget, override: TargetOverride) -> float:
    """Return the impressions or share that currently apply."""
    amount = target.impressions if target.impressions is not None else target.share
    assert amount is not None
    return float(amount if override.amount is None or not math.isfinite(override.amount) else override.amount)


def advance(
    target: ExposureTarget,
    state: PacingState,
    count: DeliveryCounts,
    forecast: Forecast,
    now: float,
    override: TargetOverride | None = None,
    gains: Gains | None = None,
) -> tuple[PacingState, DeliveryStatus]:
    """Advance a target to `now`: return its new state and its delivery status.

    forecast  attention per second on the pages where it is in force
    """
    override, gains, state = override or TargetOverride(), gains or Gains(), _reset_if_not_finite(state)
    requested, end = amount_of(target, override), target.until.timestamp()
    window = (target.since.timestamp() if target.since else state.start, end)
    window_changed = state.window is not None and state.window != window
    state = replace(state, start=window[0] if window_changed else state.start, window=window)
    counted_until = min(max(count.counted_until, state.start), end)
    plan = _Plan(target, state.start, end, forecast)
    done = plan.progress(count.available, counted_until)
    if window_changed:  # the same traffic is a different part of the new window
        state = _rebased(state, done, count.delivered, now)
    done = max(done, state.controller.progress)
    total_attention = max(total(count.available, state.start, counted_until, end, forecast), 1e-9)
    amount = requested * total_attention if target.share is not None else requested
    if requested != state.amount or (state.paused and not override.paused):  # replan the rest without a jump
        state = _replanned(state, requested, done, count.delivered)
    planned_now = plan.planned_attention(amount, state.base, done)
    uncounted = forecast.mass(counted_until, min(now, end)) / total_attention
    measurement = Measurement(done, planned_now / amount, count.delivered / amount, uncounted, now)
    sign = 1 if target.bound == "at_least" else -1
    running = state.start <= now < end and not override.paused and not override.stopped
    rate, error = state.rate, state.error
    if done > state.controller.progress:
        rate = updated_rate(rate, done, measurement.delivered)
        error += abs(measurement.delivered - measurement.planned) * (done - state.controller.progress)
    controller = (
        _updated_controller(target, state, measurement, gains, sign) if running else _idle_controller(state, done, now)
    )
    price = controller.price if running else 0.0
    projection = project(rate, done, measurement.delivered, sign, price, target.price_limit, SLOPE / target.price_limit)
    last_resort = _last_resort_active(target, state.last_resort, price, projection, measurement) and running
    trail = _extended_trail(state, done, (now, planned_now, count.delivered, price))
    pacing = replace(state, controller=controller, rate=rate, error=error, paused=override.paused)
    pacing = replace(pacing, last_resort=last_resort, trail=trail)
    return pacing, DeliveryStatus(
        amount=amount, delivered=count.delivered, planned=planned_now, progress=done, price=price,
        price_limit=target.price_limit, tolerance=target.tolerance, outlook=projection,
        counter_lag_s=max(min(now, end) - counted_until, 0.0),
        silent_s=_silent_s(max(controller.moved_at, state.start), now, forecast) if running else 0.0,
        pacing_error=error / max(done, 1e-9), paused=override.paused, stopped=override.stopped,
        ended=now >= end, started=now >= state.start, last_resort=last_resort, cap=sign < 0,
        share=requested if target.share is not None else None,
        share_so_far=count.delivered / count.available if target.share is not None and count.available > 0 else None,
    )  # fmt: skip


def _replanned(state: PacingState, amount: float, done: float, delivered: float) -> PacingState:
    """Return the state with the rest of the window replanned from `done`, for another amount."""
    error = state.error * state.amount / amount  # the same attention, as a fraction of the new amount
    controller = replace(state.controller, lag=None)
    return replace(state, amount=amount, base=(done, delivered), controller=controller, error=error)


def _updated_controller(
    target: ExposureTarget, state: PacingState, measurement: Measurement, gains: Gains, sign: int
) -> ControllerState:
    """Return the controller state of a running target after a reading; `sign` is -1 for a cap."""
    controller = state.controller
    if controller.moved_at < state.start:
        controller = replace(controller, moved_at=state.start)  # counters cannot move before the start
    slope = SLOPE / target.price_limit
    return update(controller, measurement, sign=sign, max_price=target.price_limit, slope=slope, gains=gains)


def _idle_controller(state: PacingState, done: float, now: float) -> ControllerState:
    """Return the controller state of a target that is not running: it follows the traffic without learning."""
    if done <= state.controller.progress:
        return state.controller
    return replace(roll_over_day(state.controller, now), progress=done, moved_at=now, lag=None, in_flight=())


def _extended_trail(
    state: PacingState, done: float, point: tuple[float, float, float, float]
) -> tuple[tuple[float, float, float, float], ...]:
    """Return the trail, with this point appended if progress reached the next of its TRAIL_MAX steps."""
    previous = state.controller.progress
    if done > previous and int(done * TRAIL_MAX) > int(previous * TRAIL_MAX):
        return (*state.trail, point)[-TRAIL_MAX:]
    return state.trail


def _rebased(state: PacingState, done: float, delivered: float, now: float) -> PacingState:
    """Return the state for another window of which `done` is served."""
    previous = state.controller.progress
    controller = replace(roll_over_day(state.controller, now), progress=done, moved_at=now, lag=None, in_flight=())
    error = state.error * done / previous if previous > 0 else 0.0
    return replace(state, controller=controller, base=(done, delivered), rate=DeliveryRate(), error=error)


def _silent_s(since: float, now: float, forecast: Forecast) -> float:
    """Return for how many seconds the counters have been silent although traffic was expected."""
    return max(now - since, 0.0) if forecast.mass(since, now) >= MIN_EXPECTED else 0.0


def _reset_if_not_finite(state: PacingState) -> PacingState:
    """Return the state; if an infinite amount made figures NaN, restart the controller from the hourly prices."""
    s = state.controller
    if all(map(math.isfinite, (s.price, s.integral, s.level, s.limited_price, state.error, *s.hourly_price, *s.today))):
        return state
    prices = s.hourly_price if all(map(math.isfinite, s.hourly_price)) else 0.0
    return replace(
        state,
        controller=replace(ControllerState.first(prices, s.moved_at), progress=s.progress),
        rate=DeliveryRate(),
        error=0.0,
        trail=tuple(moment for moment in state.trail if all(map(math.isfinite, moment))),
    )


def _last_resort_active(
    target: ExposureTarget, active: bool, price: float, projection: Projection, measurement: Measurement
) -> bool:
    """Return whether the last resort is active: once the price limit no longer suffices, until delivery is on plan."""
    if target.last_resort is None:
        return False
    if active:
        return measurement.delivered < measurement.planned
    return price >= 0.98 * target.price_limit and projection.expected < 1.0 - target.tolerance


@dataclass(frozen=True)
class _Plan:
    """The plan of a target over one window."""

    target: ExposureTarget
    start: float
    end: float
    forecast: Forecast

    def progress(self, served: float, until: float) -> float:
        """Return the fraction of the window's traffic that was served."""
        return progress(served, self.start, until, self.end, self.forecast)

    def planned_attention(self, amount: float, base: tuple[float, float], done: float) -> float:
        """Return the attention planned at a point of progress; the plan begins at `base`."""
        shape = "even" if self.target.pacing == "by_day_part" else self.target.pacing
        curve = self._by_day_part if self.target.pacing == "by_day_part" else lambda part: planned(shape, part)
        first, delivered = base
        if first <= 0.0:
            return amount * curve(done)
        remaining = 1.0 - curve(first)
        fraction = (curve(done) - curve(first)) / remaining if remaining > 1e-9 else 1.0
        return delivered + max(amount - delivered, 0.0) * min(max(fraction, 0.0), 1.0)

    def _by_day_part(self, done: float) -> float:
        """Return the planned part of the amount by day parts; the forecast maps progress back to the clock."""
        weights = day_part_weights(self.target.day_parts, self.target.offset_h, self.forecast)
        weighted = self.forecast.weighted(weights)
        at = self._time_of(done)
        return weighted.mass(self.start, at) / max(weighted.mass(self.start, self.end), 1e-9)

    def _time_of(self, done: float) -> float:
        """Return the unix second at which progress reaches `done` according to the forecast."""
        low, high = self.start, self.end
        target_mass = done * self.forecast.mass(low, high)
        for _ in range(40):
            middle = (low + high) / 2.0
            if self.forecast.mass(self.start, middle) < target_mass:
                low = middle
            else:
                high = middle
        return high
