"""Laws of the price controller for any counters, and its control quality on simulated audiences."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.pacing.controller import (
    DAY_S,
    IN_FLIGHT_MAX,
    ControllerState,
    Gains,
    Measurement,
    _lag_growth,
    bandwidth,
    hourly_price_at,
    update,
)

MAX = 0.5
part = st.floats(0, 1)


@st.composite
def courses(draw: st.DrawFn) -> list[Measurement]:
    """Counters that advance, stand still, jump or are delayed, at increasing times."""
    at, progress, course = 0.0, 0.0, []
    for _ in range(draw(st.integers(1, 30))):
        at += draw(st.sampled_from([1.0, 60.0, 5000.0, 40_000.0]))
        progress = min(progress + draw(st.sampled_from([0.0, 0.0, 0.001, 0.05, 0.5])), 1.0)
        course.append(Measurement(progress, draw(part), 2.0 * draw(part), draw(st.sampled_from([0.0, 0.001, 0.3])), at))
    return course


signs = st.sampled_from([1, -1])
firsts = st.one_of(st.floats(0, MAX), st.lists(st.floats(0, MAX), min_size=24, max_size=24).map(tuple))


@given(courses(), signs, firsts, st.floats(0.5, 50))
def test_price_stays_within_limits_and_moves_in_bounded_steps(
    course: list[Measurement], sign: int, first: float | tuple[float, ...], slope: float
) -> None:
    state, gains = ControllerState.first(first, 0.0), Gains()
    for measurement in course:
        after = update(state, measurement, sign=sign, max_price=MAX, slope=slope)
        assert 0 <= after.price <= MAX
        if after.progress > state.progress:
            assert abs(after.price - state.price) <= gains.max_move * MAX + 1e-12
        state = after


@given(courses(), signs, firsts)
def test_repeated_counters_change_nothing(
    course: list[Measurement], sign: int, first: float | tuple[float, ...]
) -> None:
    state = ControllerState.first(first, 0.0)
    for measurement in course:
        state = update(state, measurement, sign=sign, max_price=MAX, slope=8.0)
        assert update(state, measurement, sign=sign, max_price=MAX, slope=8.0) == state


@given(courses(), courses(), signs, st.floats(0.01, MAX))
def test_lowered_price_limit_applies_at_once(
    course: list[Measurement], later_course: list[Measurement], sign: int, limit: float
) -> None:
    state = ControllerState.first(MAX, 0.0)
    for measurement in course:
        state = update(state, measurement, sign=sign, max_price=MAX, slope=8.0)
    for measurement in later_course:
        state = update(
            state, replace(measurement, at=measurement.at + state.moved_at), sign=sign, max_price=limit, slope=8.0
        )
        assert 0 <= state.price <= limit


@given(courses(), signs, st.lists(st.floats(1, 10_000), min_size=1, max_size=20))
def test_price_drifts_to_the_forecast_when_counters_stop(
    course: list[Measurement], sign: int, waits: list[float]
) -> None:
    state = ControllerState.first(0.1, 0.0)
    for measurement in course:
        state = update(state, measurement, sign=sign, max_price=MAX, slope=8.0)
    frozen, at, gains = state.limited_price, course[-1].at, Gains()
    still = Measurement(state.progress, 1.0, 0.0, 0.0, at)
    for wait_s in waits:
        at += wait_s
        state = update(state, replace(still, at=at), sign=sign, max_price=MAX, slope=8.0)
        forecast = min(state.forecast_price(at), MAX)
        if at - state.moved_at <= gains.grace_s:
            assert state.price == frozen
        assert min(frozen, forecast) - 1e-12 <= state.price <= max(frozen, forecast) + 1e-12
    assert state.integral == update(state, replace(still, at=at), sign=sign, max_price=MAX, slope=8.0).integral


@given(st.floats(0, 0.9), st.sampled_from([0.0, 0.001, 0.1]), st.sampled_from([0.0, 0.001, 0.1]))
def test_delayed_counters_reduce_the_bandwidth(progress: float, delay: float, longer_delay: float) -> None:
    if delay < longer_delay:
        a, b = (Measurement(progress, 0.5, 0.5, x, 0.0) for x in (delay, longer_delay))
        assert bandwidth(a, Gains()) >= bandwidth(b, Gains())


@given(st.floats(0.1, 0.4), st.floats(4, 16), signs, st.floats(-0.1, 0.1), st.sampled_from([1, 40]))
def test_linear_audience_is_delivered_on_plan(
    needed: float, slope: float, sign: int, offset: float, delay: int
) -> None:
    """Delivery is linear in the price, which starts with an `offset` from `needed`; the slope is presumed."""
    state = ControllerState.first(needed + offset, 0.0)
    delivered, delivered_at, steps, worst = 0.0, [0.0], 2000, 0.0
    for n in range(1, steps + 1):
        delivered += max(1.0 + sign * slope * (state.price - needed), 0.0) / steps
        delivered_at.append(delivered)
        counted = max(n - delay, 0)
        measurement = Measurement(
            counted / steps, counted / steps, delivered_at[counted], delay / steps, n * DAY_S / steps
        )
        state = update(state, measurement, sign=sign, max_price=MAX, slope=8.0)
        if n > steps / 2:
            worst = max(worst, abs(delivered - n / steps))
    assert abs(delivered - 1.0) <= 0.025
    assert worst <= 0.035


def test_unreachable_target_stays_at_the_price_limit_without_windup() -> None:
    state = ControllerState.first(0.1, 0.0)
    for n in range(1, 500):
        state = update(
            state, Measurement(n / 1000, n / 1000, 0.2 * n / 1000, 0.0, n * 60.0), sign=1, max_price=MAX, slope=8.0
        )
    assert state.price == MAX
    integral = state.integral
    for n in range(500, 560):  # inventory becomes available: the price falls at once
        state = update(state, Measurement(n / 1000, n / 1000, 1.0, 0.0, n * 60.0), sign=1, max_price=MAX, slope=8.0)
    assert integral < MAX / 2  # without anti-windup it would equal MAX
    assert state.price < 0.2


def test_midnight_updates_hourly_prices_without_a_price_jump() -> None:
    state = ControllerState.first(0.1, 0.0)
    for n in range(1, 96):
        lag = 0.01 if n > 48 else 0.0
        state = update(
            state, Measurement(n / 200, n / 200 + lag, n / 200, 0.0, n * 900.0), sign=1, max_price=MAX, slope=8.0
        )
    before = state.price
    after = update(
        state, Measurement(0.4851, 0.4851 + 0.01, 0.4851, 0.0, DAY_S + 1.0), sign=1, max_price=MAX, slope=8.0
    )
    assert after.hourly_price != state.hourly_price
    assert after.price == pytest.approx(before, abs=0.01)
    assert hourly_price_at(after.hourly_price, 20 * 3600.0) > hourly_price_at(after.hourly_price, 6 * 3600.0)


@given(courses(), signs, firsts)
def test_in_flight_prices_are_ordered_and_few(
    course: list[Measurement], sign: int, first: float | tuple[float, ...]
) -> None:
    state = ControllerState.first(first, 0.0)
    for measurement in course:
        state = update(state, measurement, sign=sign, max_price=MAX, slope=8.0)
        positions = [at for at, _ in state.in_flight]
        assert positions == sorted(positions)
        assert sum(at <= state.progress for at in positions) <= 2  # only the latest counted price, and the current one


def test_number_of_in_flight_prices_is_bounded_for_any_delay() -> None:
    state = ControllerState.first(0.2, 0.0)
    for n in range(1, 1000):
        measurement = Measurement(0.5 + 1e-5 * n, 0.5, 0.4 + (n / 5000) ** 2, 1e-4 * n, 60.0 * n)
        state = update(state, measurement, sign=1, max_price=MAX, slope=8.0)
        assert len(state.in_flight) <= 2 * IN_FLIGHT_MAX


@given(
    st.lists(st.tuples(st.floats(0.3, 0.6), st.floats(0, MAX)), min_size=1, max_size=8),
    st.floats(0.3, 0.5),
    st.floats(0, 0.1),
    st.floats(0, MAX),
    signs,
)
def test_predicted_lag_growth_equals_a_replay(
    entries: list[tuple[float, float]], since: float, length: float, needed: float, sign: int
) -> None:
    """Oracle: a page-by-page simulation of a linear audience without negative delivery."""
    in_flight, slope, steps = tuple(sorted(entries)), 8.0, 1000
    lag = 0.0
    for n in range(steps):
        at = since + (n + 0.5) * length / steps
        price = next((p for start, p in reversed(in_flight) if start <= at), in_flight[0][1])
        delivered = max(1.0 + sign * slope * (price - needed), 0.0)
        lag += sign * (1.0 - delivered) * length / steps
    assert _lag_growth(in_flight, since, since + length, needed, sign, slope) == pytest.approx(lag, abs=1e-3)


@given(st.floats(0, 0.002), st.floats(0.17, 0.195), st.floats(0.205, 0.23), signs)
def test_lag_already_being_corrected_is_not_corrected_twice(lag: float, low: float, high: float, sign: int) -> None:
    measurement = Measurement(0.5, 0.5 + sign * lag, 0.5, 0.02, 60.0)
    after_low, after_high = (
        update(
            replace(ControllerState.first(0.2, 0.0), progress=0.499, in_flight=((0.49, price),)),
            measurement,
            sign=sign,
            max_price=MAX,
            slope=8.0,
        ).price
        for price in (low, high)
    )
    assert after_high < after_low - 0.005


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("delay", [1, 30])
def test_change_of_audience_is_corrected_before_a_large_lag(sign: int, delay: int) -> None:
    """Halfway, the needed price rises by 0.1, which is equivalent to nearly all delivery."""
    state, steps, slope, worst_lag = ControllerState.first(0.2, 0.0), 2000, 8.0, 0.0
    delivered, delivered_at = 0.0, [0.0]
    for n in range(1, steps + 1):
        needed = 0.2 if n < steps / 2 else 0.3
        delivered += max(1.0 + sign * slope * (state.price - needed), 0.0) / steps
        delivered_at.append(delivered)
        counted = max(n - delay, 0)
        measurement = Measurement(
            counted / steps, counted / steps, delivered_at[counted], delay / steps, n * DAY_S / steps
        )
        state = update(state, measurement, sign=sign, max_price=MAX, slope=slope)
        worst_lag = max(worst_lag, sign * (n / steps - delivered))
    assert worst_lag <= 0.8 * (1 / Gains().observer_rate + delay / steps)
    assert abs(state.price - 0.3) <= 0.005
    assert abs(delivered - 1.0) <= 0.002


@pytest.mark.parametrize("steep", [1.0, 2.0, 2.8])
def test_steep_audience_with_delayed_counters_does_not_oscillate(steep: float) -> None:
    """Delivery is zero below a price and quadratic above it, as on real pages."""
    state, steps, delay = ControllerState.first(0.2, 0.0), 3000, 50
    delivered, delivered_at, worst = 0.0, [0.0], 0.0
    for n in range(1, steps + 1):
        needed = 0.25 + 0.05 * math.sin(n / steps * 4 * math.pi)
        delivered += max(1.0 + steep * 4.0 * (state.price - needed), 0.0) ** 2 / steps
        delivered_at.append(delivered)
        counted = max(n - delay, 0)
        measurement = Measurement(
            counted / steps, counted / steps, delivered_at[counted], delay / steps, n * DAY_S / steps
        )
        state = update(state, measurement, sign=1, max_price=MAX, slope=8.0)
        if n > steps / 2:
            worst = max(worst, abs(n / steps - delivered))
    assert worst <= 0.02
