"""A target from definition to price and words, on audiences of straight lines."""

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


def words(standing: DeliveryStatus) -> str:
    """How a target stands, in English."""
    return str(describe(standing))


def target(**more: Any) -> ExposureTarget:
    said = {
        "id": "t",
        "action": "exposure_target",
        "where": {"label": "x"},
        "impressions": 100_000,
        "from": datetime.fromtimestamp(0, UTC),
        "until": datetime.fromtimestamp(DAY_S, UTC),
        **more,
    }
    return ExposureTarget.model_validate(said)


@dataclass
class Day:
    """A day of even traffic whose items win `share(price)` of all attention."""

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
        """Serve and pursue until second `at`."""
        state = self.state or PacingState.begin(self.target, self.now)
        count = DeliveryCounts(self.won, self.served, self.now)
        while self.now < at:
            price = self.standing.price if self.standing else 0.0
            self.now += step_s
            more = PER_S * self.traffic * step_s
            self.served, self.won = self.served + more, self.won + more * min(max(self.share(price), 0.0), 1.0)
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
def test_a_reachable_target_is_reached_on_plan(more: dict[str, Any], traffic: float) -> None:
    day = Day(target(**more), AUDIENCE, traffic=traffic)
    half = day.until(DAY_S / 2)
    assert status(half) == "on plan"
    fresh = replace(half, delivered=0.0, planned=0.0, progress=0.001)
    assert status(fresh) == "unknown yet", "nothing was seen that could be on plan"
    assert status(replace(fresh, delivered=1.0)) == "on plan"
    end = day.until(DAY_S)
    # frontloaded: what comes by itself in the end comes on top
    over = 0.1 if more.get("pacing") == "frontloaded" else 0.02
    assert end.amount * 0.98 <= end.delivered <= end.amount * (1 + over)
    assert status(end) == "over"
    assert "reached" in words(end)
    assert end.pacing_error < 0.025


def test_a_cap_holds_and_pushes_down() -> None:
    day = Day(target(bound="at_most", impressions=80_000), answering(0.12, -0.4))
    assert day.until(DAY_S).delivered <= 80_000 * 1.02
    assert "kept" in words(day.until(DAY_S + 200))


def test_what_cannot_be_delivered_is_said_and_the_price_stays_at_its_limit() -> None:
    day = Day(target(max_price=0.3), answering(0.03, 0.05))
    stands = day.until(DAY_S / 2)
    assert (stands.price, status(stands)) == (0.3, "cannot deliver")
    assert words(stands).startswith("cannot deliver: expected 3")
    assert stands.outlook.low <= 0.045 * WHOLE / 100_000 <= stands.outlook.high + 0.01
    assert stands.outlook.at_risk(stands.amount) > 50_000
    assert not stands.last_resort
    last = Day(target(max_price=0.3, commitment="guaranteed", last_resort=2), answering(0.03, 0.05)).until(DAY_S / 2)
    assert last.last_resort
    assert "last resort" in words(last)


def test_a_pause_costs_nothing_and_a_resumption_plans_the_rest_anew() -> None:
    day = Day(target(), AUDIENCE)
    before = day.until(DAY_S / 4)
    day.order = TargetOverride(paused=True)
    paused = day.until(DAY_S / 2)
    assert (paused.price, status(paused)) == (0.0, "paused")
    day.order = TargetOverride()
    resumed = day.until(DAY_S / 2 + 120)
    assert abs(resumed.lag) < 0.01  # no jump: the plan begins where it stands
    assert abs(resumed.price - before.price) < 0.1
    assert day.until(DAY_S).delivered == pytest.approx(100_000, rel=0.02)


@pytest.mark.parametrize("amount", [80_000, 125_000])
def test_another_amount_in_flight_is_reached_without_a_jump(amount: float) -> None:
    day = Day(target(), AUDIENCE)
    before = day.until(DAY_S / 2)
    day.order = TargetOverride(amount=amount)
    after = day.until(DAY_S / 2 + 120)
    assert abs(after.lag) < 0.01
    assert abs(after.price - before.price) <= 0.05 + 1e-9
    assert day.until(DAY_S).delivered == pytest.approx(amount, rel=0.02)


@pytest.mark.parametrize("times", [0.1, 1.0, 20.0])
def test_how_far_it_was_off_its_plan_is_measured_by_the_amount_asked_for_now(times: float) -> None:
    day = Day(target(), AUDIENCE)
    before = day.until(10_000.0).pacing_error
    day.order = TargetOverride(amount=100_000.0 * times)
    assert day.until(10_120.0).pacing_error == pytest.approx(before / times, rel=0.03)


def test_an_amount_without_end_poisons_nothing_and_what_it_poisoned_heals() -> None:
    day = Day(target(), AUDIENCE)
    day.until(DAY_S / 4)
    day.order = TargetOverride(amount=math.inf)
    stands = day.until(DAY_S / 3)
    assert math.isfinite(stands.price)
    assert stands.amount == 100_000
    assert day.state is not None
    broken = replace(day.state.controller, price=math.nan, integral=math.nan)
    day.state = replace(day.state, controller=broken, error=math.nan)
    stands = day.until(DAY_S)
    assert stands.delivered == pytest.approx(100_000, rel=0.02)
    assert math.isfinite(stands.pacing_error)


@pytest.mark.parametrize(("at", "by", "amount"), [(0.5, 2.0, 100_000), (1.1, 2.0, 160_000), (0.5, 0.8, 100_000)])
def test_another_deadline_is_planned_anew_and_kept(at: float, by: float, amount: int) -> None:
    day = Day(target(), answering(0.03, 0.4))
    before = day.until(DAY_S * at)
    day.target = target(until=datetime.fromtimestamp(DAY_S * by, UTC), impressions=amount)
    after = day.until(DAY_S * at + 1200)
    assert status(after) == "on plan"
    assert abs(after.progress - at / by) < 0.02
    assert after.pacing_error < before.pacing_error + 0.02
    assert day.until(DAY_S * by).delivered == pytest.approx(amount, rel=0.03)


def test_a_state_of_before_windows_were_kept_goes_on() -> None:
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


def test_a_state_of_before_flights_were_kept_goes_on() -> None:
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
def test_a_plan_made_anew_is_no_news_of_the_audience(order: TargetOverride) -> None:
    """What happened to the lag by an order is not taken for what viewers did."""
    day = Day(target(), AUDIENCE)
    day.until(DAY_S / 2)
    assert day.state is not None
    day.won -= 3000  # a lag that the new plan forgets
    day.until(day.now + 120)
    before = day.state.controller
    day.order = order
    day.until(DAY_S * 0.6 if order.paused else day.now + 120)
    day.order = replace(order, paused=False)
    day.until(day.now + 120)
    assert day.state.controller.integral == pytest.approx(before.integral, abs=0.01)


def test_nobody_is_silent_before_the_beginning_or_where_nobody_is_expected() -> None:
    later = target(**{"from": datetime.fromtimestamp(DAY_S / 2, UTC)})
    state = PacingState.begin(later, 0.0)
    busy, empty = Forecast.flat(PER_S), Forecast.flat(1e-6)
    state, standing = advance(later, state, DeliveryCounts(), busy, DAY_S / 2 + 1)
    assert (standing.silent_s, status(standing)) == (1.0, "unknown yet")
    _, standing = advance(later, state, DeliveryCounts(), empty, DAY_S / 2 + 3600)
    assert standing.silent_s == 0.0
    _, standing = advance(later, state, DeliveryCounts(), busy, DAY_S / 2 + 3600)
    assert status(standing) == "counters silent"


def test_a_pause_over_midnight_keeps_what_the_day_taught() -> None:
    day = Day(target(until=datetime.fromtimestamp(2 * DAY_S, UTC), impressions=200_000), AUDIENCE)
    day.until(DAY_S * 0.75)
    assert day.state is not None
    learnt = day.state.controller.learned_prices()
    day.order = TargetOverride(paused=True)
    day.until(DAY_S * 1.1)
    assert day.state.controller.hourly_price == learnt
    assert not any(day.state.controller.weight)


def test_a_stop_is_a_stop() -> None:
    day = Day(target(), AUDIENCE)
    day.until(DAY_S / 4)
    day.order = TargetOverride(stopped=True)
    stands = day.until(DAY_S / 3)
    assert (stands.price, status(stands), stands.stopped) == (0.0, "stopped", True)


def test_silent_counters_freeze_the_price_raise_the_alarm_and_are_made_up_for() -> None:
    day = Day(target(), AUDIENCE)
    before = day.until(DAY_S / 2).price
    moment = len(day.course)
    silent = day.until(DAY_S * 0.6, counting=False)
    assert status(silent) == "counters silent"
    assert "min" in words(silent)
    prices = [before, *(one.price for one in day.course[moment:])]
    assert prices[1:6] == [before] * 5
    assert max(abs(a - b) for a, b in pairwise(prices)) < 0.02
    assert min(prices) > 0.05
    back = day.until(DAY_S * 0.64)  # a tenth of what is left
    assert status(back) == "on plan"


def test_two_processes_and_a_restart_are_as_one() -> None:
    """The state is all there is: with it, any process says the same; the second to update changes nothing."""
    day = Day(target(), AUDIENCE)
    day.until(DAY_S / 3)
    assert day.state is not None
    counts, now = DeliveryCounts(day.won, day.served, day.now), day.now
    again, standing = advance(day.target, day.state, counts, Forecast.flat(PER_S), now, TargetOverride())
    assert again == day.state
    assert standing == day.standing
    later = replace(counts, delivered=counts.delivered + 50, available=counts.available + 600, counted_until=now + 60)
    one, _ = advance(day.target, day.state, later, Forecast.flat(PER_S), now + 60, TargetOverride())
    two, _ = advance(day.target, one, later, Forecast.flat(PER_S), now + 60, TargetOverride())
    assert one == two


def test_day_parts_are_kept_to() -> None:
    parts = {"00:00-12:00": 0.2, "12:00-24:00": 0.8}
    day = Day(target(pacing="by_day_part", day_parts=parts), answering(0.02, 0.6))
    assert day.until(DAY_S / 2).delivered == pytest.approx(20_000, rel=0.1)
    assert day.until(DAY_S).delivered == pytest.approx(100_000, rel=0.02)


@pytest.mark.parametrize("seed", range(20))
def test_what_was_delivered_stays_delivered_in_every_outlook(seed: int) -> None:
    """However unsteady the pace was: what was reached is not at risk."""
    random = np.random.default_rng(seed)
    rate, noise, progress, delivered, price = random.random(5) * (5.0, 3.0, 1.0, 1.5, 0.5)
    pace = DeliveryRate(rate, noise, progress, delivered)
    for sign in (1, -1):
        outlook = project(pace, progress, delivered, sign, price, 0.5, 1.0)
        assert delivered <= outlook.low + 1e-9
        assert outlook.low <= outlook.expected + 1e-9 <= outlook.high + 2e-9
        assert outlook.at_risk(100.0) <= 100.0 * max(1.0 - delivered, 0.0) + 1e-9


@pytest.mark.parametrize(("planned", "side"), [(40_000.0, "ahead of"), (60_000.0, "behind")])
def test_ahead_of_and_behind_a_plan(planned: float, side: str) -> None:
    half = Day(target(), AUDIENCE).until(DAY_S / 2)
    off = replace(half, delivered=50_000.0, planned=planned, outlook=Projection(1.0, 0.9, 1.1, False))
    assert words(off) == f"{side.split()[0]}: 10.0% of the amount {side} its plan"


def test_a_share_is_reached_only_when_nothing_can_undo_it_any_more() -> None:
    """Ten per cent are asked and forty come, until the items are taken away."""
    day = Day(target(impressions=None, share=0.1), lambda price: 0.4)
    early = day.until(0.27 * DAY_S)
    assert early.delivered >= early.amount, "as far as the traffic is foreseen"
    assert status(early) == "ahead"
    assert words(early).endswith("; 40.0% of all attention so far")
    assert early.share_so_far == pytest.approx(0.4)
    day.share, day.traffic = (lambda price: 0.0), 8.0  # an event, without a slot for them
    late = day.until(DAY_S - 600)
    assert (late.share_so_far or 0) < 0.1
    assert status(late) in ("behind", "cannot deliver")
    assert "reached" not in {status(stands) for stands in day.course}
    assert "short" in words(day.until(DAY_S + 600))
    counted = Day(target(impressions=10_000), lambda price: 0.4).until(0.27 * DAY_S)
    assert status(counted) == "reached"


def test_a_share_on_plan_says_what_it_has() -> None:
    asked = 100_000 / WHOLE
    half = Day(target(impressions=None, share=asked), AUDIENCE).until(DAY_S / 2)
    assert (
        words(half)
        == f"on plan: {half.share_so_far:.1%} of all attention so far, at least 11.6% required by the deadline"
    )
    assert half.share == asked
    cap = Day(target(impressions=None, share=0.06, bound="at_most"), answering(0.06, -0.4)).until(DAY_S / 2)
    assert "at most 6.0% allowed" in words(cap)


@pytest.mark.parametrize("seed", range(40))
def test_status_and_forecast_do_not_contradict_each_other(seed: int) -> None:
    """Days of every kind, looked at from before the first impression until after the deadline."""
    random = np.random.default_rng(seed)
    amount = {"impressions": None, "share": 0.12} if seed % 2 else {"impressions": int(random.integers(9_000, 150_000))}
    cap = {"bound": "at_most"} if seed % 4 > 1 else {}
    base, per_unit = random.random() * 0.25, random.random()
    asked = target(**amount, **cap, pacing=("even", "asap")[seed % 3 == 0] if not cap else "even")
    day = Day(asked, answering(base, -per_unit if cap else per_unit), traffic=0.6 + random.random())
    day.until(DAY_S + 600, step_s=300.0)
    first = advance(asked, PacingState.begin(asked, 0.0), DeliveryCounts(), Forecast.flat(PER_S), 0.0)[1]
    assert (status(first), projected(first)) == ("unknown yet", None)
    for stands in (first, *day.course):
        outlook, word = projected(stands), status(stands)
        assert (outlook is None) == (word in ("unknown yet", "not begun", "over", "stopped"))
        if outlook is None:
            continue
        assert outlook.low <= outlook.expected <= outlook.high
        risk = outlook.at_risk(stands.amount, stands.cap)
        if word == "reached":
            assert risk == 0
            assert stands.share is None
        if word == "cannot deliver":
            assert risk > stands.tolerance * stands.amount
        if stands.cap:
            assert risk <= stands.amount * max(outlook.high - 1.0, 0.0) + 1e-6
