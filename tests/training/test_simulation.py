"""Simulated days: pages against brute force, the optimum against a full linear program, strategies against both."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import linprog

from recsys.domain.types import F64
from training.simulation.day import DayRecord, Disturbance, run_day
from training.simulation.guided import GuidedPages
from training.simulation.measure import PUSH_THRESHOLD, measure, pacing_errors, recovery_time
from training.simulation.offline_optimum import optimum, smooth_optimum
from training.simulation.pages import Pages
from training.simulation.pid import TUNED, RankPages, RankPid
from training.simulation.scenario import make_scenario
from training.simulation.strategies import ConstantPrices, Greedy, PriceController, planned_delivery, uninformed_prices
from training.simulation.world import GUIDED_SCENARIO, SCENARIOS, Scenario

SMALL = replace(
    SCENARIOS[0], pages=6_000, items=80, viewers=300, slots=10, n_item_targets=2, n_outlet_targets=2, min_share=0.03
)


@pytest.fixture(scope="module")
def day() -> Scenario:
    return make_scenario(SMALL, seed=5)


@pytest.fixture(scope="module")
def controlled(day: Scenario) -> DayRecord:
    return run_day(day, PriceController(day, uninformed_prices(day)))


def test_pages_hold_the_best_items_in_order_and_credit_their_attention(day: Scenario) -> None:
    price = np.linspace(0, 0.2, len(day.amount))
    bonus = (day.member * day.sign) @ price
    served = Pages(day).serve(100, 160, price)
    utility_sum, credit = 0.0, np.zeros(len(price))
    for t in range(100, 160):
        value = np.where(day.embargo > day.at[t], -np.inf, day.utility[t] + bonus)
        page = np.argsort(-value, kind="stable")[: len(day.attention)]
        utility_sum += day.attention @ day.utility[t, page]
        credit += day.attention @ day.member[page]
    assert served.utility == pytest.approx(utility_sum)
    assert served.credit == pytest.approx(credit)
    assert served.priced_utility == pytest.approx(served.utility + float((day.sign * price) @ served.credit))


def test_a_frequency_cap_holds_for_every_viewer(day: Scenario) -> None:
    cap = np.where(day.is_item_target, 3, 0)
    pages = Pages(day, cap)
    pages.serve_day(np.full(len(cap), 0.3))
    assert pages.shown[:, day.is_item_target].max() <= 3 + 1  # the last page may show two items of a target


def test_the_offline_optimum_equals_that_of_the_full_linear_program() -> None:
    """Oracle: HiGHS with a variable for each page, slot and item of a very small day."""
    small_day = make_scenario(
        replace(SMALL, pages=100, items=12, slots=3, n_item_targets=2, n_outlet_targets=0, viewers=20), seed=2
    )
    small_day = replace(small_day, amount=np.array([10.0, 15.0, 60.0, 50.0]), embargo=np.full(12, small_day.start_at))
    best = optimum(small_day, small_day.amount, blocks=4, rounds=300, gap=1e-5)
    assert best.value == pytest.approx(_full_program(small_day), rel=2e-4)
    assert best.value <= best.bound * (1 + 1e-9)
    assert best.shortfall == pytest.approx(np.zeros(4), abs=1e-6)


def _full_program(day: Scenario) -> float:
    """Return max sum attention[k] utility[t, i] x[t, k, i], with an item in each slot and no item twice on a page."""
    t, n, k = len(day.at), day.utility.shape[1], len(day.attention)
    utility = day.attention[None, :, None] * day.utility[:, None, :]
    credit = np.broadcast_to(day.attention[:, None, None] * day.member[None] * day.sign, (t, k, n, len(day.amount)))
    slots = np.kron(np.eye(t * k), np.ones(n))
    once = np.kron(np.eye(t), np.kron(np.ones(k), np.eye(n)))
    upper = np.vstack([once, -credit.reshape(t * k * n, -1).T])
    bounds = np.concatenate([np.ones(t * n), -day.sign * day.amount])
    result = linprog(-utility.reshape(-1), A_ub=upper, b_ub=bounds, A_eq=slots, b_eq=np.ones(t * k), method="highs")
    assert result.success
    return float(-result.fun)


def test_the_offline_optimum_reports_the_shortfall_of_an_infeasible_amount(day: Scenario) -> None:
    amount = day.amount.copy()
    amount[0] = day.attention.sum() * len(day.at)
    assert optimum(day, amount, rounds=6).shortfall[0] > 0


def test_following_the_plan_costs_more_than_free_timing(day: Scenario) -> None:
    free = Pages(day).serve_day(np.zeros(len(day.amount))).utility
    best = optimum(day, day.amount)
    even = smooth_optimum(
        day, planned_delivery(day, np.linspace(0, len(day.at), 7).astype(int)), initial_price=best.price
    )
    assert even <= best.bound * 1.0005 <= free * 1.0005


def test_prices_reach_every_target_at_a_fraction_of_the_cost_of_greedy(day: Scenario, controlled: DayRecord) -> None:
    free = Pages(day).serve_day(np.zeros(len(day.amount))).utility
    controlled_errors = measure(day, controlled, free)
    greedy = measure(day, run_day(day, Greedy(day)), free)
    fixed = measure(day, run_day(day, ConstantPrices(day, np.full(len(day.amount), 0.05))), free)
    pid = measure(day, run_day(day, RankPid(day, TUNED), pages=RankPages(day)), free)
    assert controlled_errors.shortfall.max() < 3
    assert controlled_errors.pacing.mean() < 1.5
    assert controlled_errors.utility_loss < 0.5 * greedy.utility_loss
    assert fixed.shortfall.max() > 20
    assert controlled_errors.shortfall.max() < pid.shortfall.max()


@pytest.mark.parametrize(
    "disturbance", [Disturbance(delay_pages=200), Disturbance(outage=(0.45, 0.55), restart_after=0.5)]
)
def test_the_controller_recovers_from_disturbances(day: Scenario, disturbance: Disturbance) -> None:
    record = run_day(day, PriceController(day, uninformed_prices(day)), disturbance)
    assert measure(day, record, 1.0).shortfall.max() < 6
    if disturbance.outage:
        assert recovery_time(day, record, 0.55, tolerance=0.05) < 0.5


def test_scenarios_are_reproducible_and_differ_from_day_to_day(day: Scenario) -> None:
    repeated, yesterday = make_scenario(SMALL, seed=5), make_scenario(SMALL, seed=5, day=0)
    assert np.array_equal(repeated.utility, day.utility)
    assert np.array_equal(yesterday.member, day.member)
    assert not np.array_equal(yesterday.utility[:100], day.utility[:100])


def test_being_ahead_of_plan_counts_only_while_pushed(day: Scenario, controlled: DayRecord) -> None:
    idle: F64 = np.zeros_like(controlled.push)
    assert (pacing_errors(day, replace(controlled, push=idle)) <= pacing_errors(day, controlled) + 1e-12).all()
    assert PUSH_THRESHOLD > 0


def test_guided_pages_keep_every_hard_control() -> None:
    small = make_scenario(replace(GUIDED_SCENARIO, pages=300, viewers=100), seed=3)
    pages = GuidedPages(small)
    run_day(small, PriceController(small, uninformed_prices(small)), Disturbance(delay_pages=10), pages=pages, every=10)
    assert pages.n_solved >= 250
    assert pages.n_violating == 0
