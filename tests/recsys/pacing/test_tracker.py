"""Tracking of a target from definition to price and status, on linear audiences."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest

from features.state.codec import decode_state, encode_state
from recsys.guidance.policy.controls import ExposureTarget
from recsys.pacing.forecast import Forecast
from recsys.pacing.projection import DeliveryRate, Projection, project
from recsys.pacing.status import describe, projected, status
from recsys.pacing.tracker import DeliveryCounts, DeliveryStatus, PacingState, TargetOverride, advance

DAY_S = 86_400.0
PER_S = 10.0  # attention
WHOLE = PER_S * DAY_S


def words(delivery: DeliveryStatus) -> str:
    """Return the status text of a target in English."""
    return str(describe(delivery))


def target(**changes: Any) -> ExposureTarget:
    fields = {
        "id": "t",
        "action": "exposure_target",
        "where": {"label": "x"},
        "impressions": 100_000,
        "from": datetime.fromtimestamp(0, UTC),
        "until": datetime.fromtimestamp(DAY_S, UTC),
        **changes,
    }
    return ExposureTarget.model_validate(fields)


@dataclass
class Day:
    """A day of constant traffic on which the target's items win `share(price)` of all attention."""

    target: ExposureTarget
    share: Callable[[float], float]
    order: TargetOverride = field(default_factory=TargetOverride)
    now: float = 0.0
    won: float = 0.0
    traffic: float = 1.0
    served: float = 0.0
    state: PacingState | None = None
    standing: DeliveryStatus | None = None
    course: list[DeliveryStatus] = field(default_factory=list)

    def until(self, at: float, step_s: float = 120.0, counting: bool = True) -> DeliveryStatus:
        """Serve pages and advance the target until second `at`."""
        state = self.state or PacingState.begin(self.target, self.now)
        count = DeliveryCounts(self.won, self.served, self.now)
        while self.now < at:
            price = self.standing.price if self.standing else 0.0
            self.now += step_s
            attention = PER_S * self.traffic * step_s
            self.served, self.won = (
                self.served + attention,
                self.won + attention * min(max(self.share(price), 0.0), 1.0),
            )
            if counting:
                count = DeliveryCounts(self.won, self.served, self.now)
            state, self.standing = advance(self.target, state, count, Forecast.flat(PER_S), self.now, self.order)
            self.course.append(self.standing)
        self.state = state
        assert self.standing is not None
        return self.standing


def answering(base: float, per_unit: float) -> Callable[[float], float]:
    return lambda price: base + per_unit * price


AUDIENCE = answering(0.06, 0.4)  # 100,000 of 864,000 need a price of about 0.14


@pytest.mark.parametrize("more", [{}, {"impressions": None, "share": 100_000 / WHOLE}, {"pacing": "frontloaded"}])
@pytest.mark.parametrize("traffic", [1.0, 0.8])
def test_reachable_target_is_delivered_on_plan(more: dict[str, Any], traffic: float) -> None:
    day = Day(target(**more), AUDIENCE, traffic=traffic)
    half = day.until(DAY_S / 2)
    assert status(half) == "on plan"
    at_start = replace(half, delivered=0.0, planned=0.0, progress=0.001)
    assert status(at_start) == "unknown yet", "there is no delivery yet"
    assert status(replace(at_start, delivered=1.0)) == "on plan"
    end = day.until(DAY_S)
    # frontloaded: delivery at price 0 towards the end exceeds the amount
    over = 0.1 if more.get("pacing") == "frontloaded" else 0.02
    assert end.amount * 0.98 <= end.delivered <= end.amount * (1 + over)
    assert status(end) == "over"
    assert "reached" in words(end)
    assert end.pacing_error < 0.025


def test_cap_holds_with_a_downward_price() -> None:
    day = Day(target(bound="at_most", impressions=80_000), answering(0.12, -0.4))
    assert day.until(DAY_S).delivered <= 80_000 * 1.02
    assert "within the maximum" in words(day.until(DAY_S + 200))


def test_undeliverable_target_is_reported_at_its_price_limit() -> None:
    day = Day(target(max_price=0.3), answering(0.03, 0.05))
    status_now = day.until(DAY_S / 2)
    assert (status_now.price, status(status_now)) == (0.3, "cannot deliver")
    assert words(status_now).startswith("cannot deliver: expected 3")
    assert status_now.outlook.low <= 0.045 * WHOLE / 100_000 <= status_now.outlook.high + 0.01
    assert status_now.outlook.at_risk(status_now.amount) > 50_000
    assert not status_now.last_resort
    guaranteed = Day(target(max_price=0.3, commitment="guaranteed", last_resort=2), answering(0.03, 0.05)).until(
        DAY_S / 2
    )
    assert guaranteed.last_resort
    assert "last resort" in words(guaranteed)


def test_resumed_target_is_replanned_without_a_jump() -> None:
    day = Day(target(), AUDIENCE)
    before = day.until(DAY_S / 4)
    day.order = TargetOverride(paused=True)
    paused = day.until(DAY_S / 2)
    assert (paused.price, status(paused)) == (0.0, "paused")
    day.order = TargetOverride()
    resumed = day.until(DAY_S / 2 + 120)
    assert abs(resumed.lag) < 0.01  # no jump: the plan restarts at the current delivery
    assert abs(resumed.price - before.price) < 0.1
    assert day.until(DAY_S).delivered == pytest.approx(100_000, rel=0.02)


@pytest.mark.parametrize("amount", [80_000, 125_000])
def test_changed_amount_is_reached_without_a_jump(amount: float) -> None:
    day = Day(target(), AUDIENCE)
    before = day.until(DAY_S / 2)
    day.order = TargetOverride(amount=amount)
    after = day.until(DAY_S / 2 + 120)
    assert abs(after.lag) < 0.01
    assert abs(after.price - before.price) <= 0.05 + 1e-9
    assert day.until(DAY_S).delivered == pytest.approx(amount, rel=0.02)


@pytest.mark.parametrize("times", [0.1, 1.0, 20.0])
def test_pacing_error_is_relative_to_the_current_amount(times: float) -> None:
    day = Day(target(), AUDIENCE)
    before = day.until(10_000.0).pacing_error
    day.order = TargetOverride(amount=100_000.0 * times)
    assert day.until(10_120.0).pacing_error == pytest.approx(before / times, rel=0.03)


def test_infinite_amount_is_ignored_and_nan_state_recovers() -> None:
    day = Day(target(), AUDIENCE)
    day.until(DAY_S / 4)
    day.order = TargetOverride(amount=math.inf)
    status_now = day.until(DAY_S / 3)
    assert math.isfinite(status_now.price)
    assert status_now.amount == 100_000
    assert day.state is not None
    broken = replace(day.state.controller, price=math.nan, integral=math.nan)
    day.state = replace(day.state, controller=broken, error=math.nan)
    status_now = day.until(DAY_S)
    assert status_now.delivered == pytest.approx(100_000, rel=0.02)
    assert math.isfinite(status_now.pacing_error)


@pytest.mark.parametrize(("at", "by", "amount"), [(0.5, 2.0, 100_000), (1.1, 2.0, 160_000), (0.5, 0.8, 100_000)])
def test_changed_deadline_is_replanned_and_met(at: float, by: float, amount: int) -> None:
    day = Day(target(), answering(0.03, 0.4))
    before = day.until(DAY_S * at)
    day.target = target(until=datetime.fromtimestamp(DAY_S * by, UTC), impressions=amount)
    after = day.until(DAY_S * at + 1200)
    assert status(after) == "on plan"
    assert abs(after.progress - at / by) < 0.02
    assert after.pacing_error < before.pacing_error + 0.02
    assert day.until(DAY_S * by).delivered == pytest.approx(amount, rel=0.03)


def test_state_without_window_is_readable() -> None:
    day = Day(target(), AUDIENCE)
    before = day.until(DAY_S / 3)
    assert day.state is not None
    old = msgspec.to_builtins(day.state)
    del old["window"]
    day.state = decode_state(encode_state(old), msgspec.msgpack.Decoder(PacingState))
    assert day.state.window is None
    after = day.until(DAY_S / 3 + 120)
    assert abs(after.price - before.price) < 0.05
    assert day.until(DAY_S).delivered == pytest.approx(100_000, rel=0.02)


def test_state_without_in_flight_prices_is_readable() -> None:
    day = Day(target(), AUDIENCE)
    before = day.until(DAY_S / 3)
    assert day.state is not None
    old = msgspec.to_builtins(day.state)
    del old["controller"]["lag"], old["controller"]["in_flight"]
    day.state = decode_state(encode_state(old), msgspec.msgpack.Decoder(PacingState))
    assert (day.state.controller.lag, day.state.controller.in_flight) == (None, ())
    after = day.until(DAY_S / 3 + 120)
    assert abs(after.price - before.price) < 0.02
    assert day.until(DAY_S).delivered == pytest.approx(100_000, rel=0.02)


@pytest.mark.parametrize(
    "order", [TargetOverride(paused=True), TargetOverride(amount=60_000), TargetOverride(amount=160_000)]
)
def test_replanning_is_not_attributed_to_the_audience(order: TargetOverride) -> None:
    """A change of the lag by an override is not attributed to viewers."""
    day = Day(target(), AUDIENCE)
    day.until(DAY_S / 2)
    assert day.state is not None
    day.won -= 3000  # a lag that the new plan drops
    day.until(day.now + 120)
    before = day.state.controller
    day.order = order
    day.until(DAY_S * 0.6 if order.paused else day.now + 120)
    day.order = replace(order, paused=False)
    day.until(day.now + 120)
    assert day.state.controller.integral == pytest.approx(before.integral, abs=0.01)


def test_counters_are_silent_only_if_traffic_is_expected() -> None:
    later = target(**{"from": datetime.fromtimestamp(DAY_S / 2, UTC)})
    state = PacingState.begin(later, 0.0)
    busy, empty = Forecast.flat(PER_S), Forecast.flat(1e-6)
    state, delivery = advance(later, state, DeliveryCounts(), busy, DAY_S / 2 + 1)
    assert (delivery.silent_s, status(delivery)) == (1.0, "unknown yet")
    _, delivery = advance(later, state, DeliveryCounts(), empty, DAY_S / 2 + 3600)
    assert delivery.silent_s == 0.0
    _, delivery = advance(later, state, DeliveryCounts(), busy, DAY_S / 2 + 3600)
    assert status(delivery) == "counters silent"


def test_pause_over_midnight_keeps_the_learned_prices() -> None:
    day = Day(target(until=datetime.fromtimestamp(2 * DAY_S, UTC), impressions=200_000), AUDIENCE)
    day.until(DAY_S * 0.75)
    assert day.state is not None
    learned = day.state.controller.learned_prices()
    day.order = TargetOverride(paused=True)
    day.until(DAY_S * 1.1)
    assert day.state.controller.hourly_price == learned
    assert not any(day.state.controller.weight)


def test_stopped_target_has_no_price() -> None:
    day = Day(target(), AUDIENCE)
    day.until(DAY_S / 4)
    day.order = TargetOverride(stopped=True)
    status_now = day.until(DAY_S / 3)
    assert (status_now.price, status(status_now), status_now.stopped) == (0.0, "stopped", True)


def test_silent_counters_freeze_the_price_and_are_reported() -> None:
    day = Day(target(), AUDIENCE)
    before = day.until(DAY_S / 2).price
    moment = len(day.course)
    silent = day.until(DAY_S * 0.6, counting=False)
    assert status(silent) == "counters silent"
    assert "min" in words(silent)
    prices = [before, *(point.price for point in day.course[moment:])]
    assert prices[1:6] == [before] * 5
    assert max(abs(a - b) for a, b in pairwise(prices)) < 0.02
    assert min(prices) > 0.05
    back = day.until(DAY_S * 0.64)  # a tenth of the remaining window
    assert status(back) == "on plan"


def test_any_process_advances_the_state_identically() -> None:
    """The result depends only on the state, and a second update with the same counters changes nothing."""
    day = Day(target(), AUDIENCE)
    day.until(DAY_S / 3)
    assert day.state is not None
    counts, now = DeliveryCounts(day.won, day.served, day.now), day.now
    repeated, delivery = advance(day.target, day.state, counts, Forecast.flat(PER_S), now, TargetOverride())
    assert repeated == day.state
    assert delivery == day.standing
    later = replace(counts, delivered=counts.delivered + 50, available=counts.available + 600, counted_until=now + 60)
    first, _ = advance(day.target, day.state, later, Forecast.flat(PER_S), now + 60, TargetOverride())
    second, _ = advance(day.target, first, later, Forecast.flat(PER_S), now + 60, TargetOverride())
    assert first == second


def test_day_parts_are_delivered_on_plan() -> None:
    parts = {"00:00-12:00": 0.2, "12:00-24:00": 0.8}
    day = Day(target(pacing="by_day_part", day_parts=parts), answering(0.02, 0.6))
    assert day.until(DAY_S / 2).delivered == pytest.approx(20_000, rel=0.1)
    assert day.until(DAY_S).delivered == pytest.approx(100_000, rel=0.02)


@pytest.mark.parametrize("seed", range(20))
def test_projection_is_never_below_delivered(seed: int) -> None:
    """At any delivery rate and noise, delivered attention is not at risk."""
    random = np.random.default_rng(seed)
    rate, noise, progress, delivered, price = random.random(5) * (5.0, 3.0, 1.0, 1.5, 0.5)
    pace = DeliveryRate(rate, noise, progress, delivered)
    for sign in (1, -1):
        outlook = project(pace, progress, delivered, sign, price, 0.5, 1.0)
        assert delivered <= outlook.low + 1e-9
        assert outlook.low <= outlook.expected + 1e-9 <= outlook.high + 2e-9
        assert outlook.at_risk(100.0) <= 100.0 * max(1.0 - delivered, 0.0) + 1e-9


@pytest.mark.parametrize(("planned", "side"), [(40_000.0, "ahead of"), (60_000.0, "behind")])
def test_text_reports_ahead_and_behind(planned: float, side: str) -> None:
    half = Day(target(), AUDIENCE).until(DAY_S / 2)
    off = replace(half, delivered=50_000.0, planned=planned, outlook=Projection(1.0, 0.9, 1.1, False))
    assert words(off) == f"{side.split()[0]}: 10.0% of the amount {side} its plan"


def test_share_is_not_reached_before_the_deadline() -> None:
    """The target is 10 % and its share 40 %, until its items are no longer shown."""
    day = Day(target(impressions=None, share=0.1), lambda price: 0.4)
    early = day.until(0.27 * DAY_S)
    assert early.delivered >= early.amount, "according to the forecast traffic"
    assert status(early) == "ahead"
    assert words(early).endswith("; 40.0% of all attention so far")
    assert early.share_so_far == pytest.approx(0.4)
    day.share, day.traffic = (lambda price: 0.0), 8.0  # a traffic peak without slots for the items
    later = day.until(DAY_S - 600)
    assert (later.share_so_far or 0) < 0.1
    assert status(later) in ("behind", "cannot deliver")
    assert "reached" not in {status(point) for point in day.course}
    assert "short" in words(day.until(DAY_S + 600))
    counted = Day(target(impressions=10_000), lambda price: 0.4).until(0.27 * DAY_S)
    assert status(counted) == "reached"


def test_share_on_plan_reports_its_current_share() -> None:
    share = 100_000 / WHOLE
    half = Day(target(impressions=None, share=share), AUDIENCE).until(DAY_S / 2)
    assert (
        words(half)
        == f"on plan: {half.share_so_far:.1%} of all attention so far, at least 11.6% required by the deadline"
    )
    assert half.share == share
    cap = Day(target(impressions=None, share=0.06, bound="at_most"), answering(0.06, -0.4)).until(DAY_S / 2)
    assert "at most 6.0% allowed" in words(cap)


@pytest.mark.parametrize("seed", range(40))
def test_status_and_projection_are_consistent(seed: int) -> None:
    """Random days are observed from before the first impression until after the deadline."""
    random = np.random.default_rng(seed)
    amount = {"impressions": None, "share": 0.12} if seed % 2 else {"impressions": int(random.integers(9_000, 150_000))}
    cap = {"bound": "at_most"} if seed % 4 > 1 else {}
    base, per_unit = random.random() * 0.25, random.random()
    definition = target(**amount, **cap, pacing=("even", "asap")[seed % 3 == 0] if not cap else "even")
    day = Day(definition, answering(base, -per_unit if cap else per_unit), traffic=0.6 + random.random())
    day.until(DAY_S + 600, step_s=300.0)
    first = advance(definition, PacingState.begin(definition, 0.0), DeliveryCounts(), Forecast.flat(PER_S), 0.0)[1]
    assert (status(first), projected(first)) == ("unknown yet", None)
    for point in (first, *day.course):
        outlook, word = projected(point), status(point)
        assert (outlook is None) == (word in ("unknown yet", "not begun", "over", "stopped"))
        if outlook is None:
            continue
        assert outlook.low <= outlook.expected <= outlook.high
        risk = outlook.at_risk(point.amount, point.cap)
        if word == "reached":
            assert risk == 0
            assert point.share is None
        if word == "cannot deliver":
            assert risk > point.tolerance * point.amount
        if point.cap:
            assert risk <= point.amount * max(outlook.high - 1.0, 0.0) + 1e-6
