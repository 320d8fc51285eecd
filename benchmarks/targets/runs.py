"""Runs of one scenario with every pacing strategy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys.domain.types import F64
from training.simulation.day import Disturbance, Strategy, run_day
from training.simulation.guided import GuidedPages
from training.simulation.measure import measure, recovery_time
from training.simulation.offline_optimum import OfflineOptimum, optimum, smooth_optimum
from training.simulation.pages import Pages
from training.simulation.pid import TUNED, RankPages, RankPid
from training.simulation.scenario import make_scenario
from training.simulation.strategies import (
    ConstantPrices,
    Greedy,
    PriceController,
    learn_prices,
    planned_delivery,
    uninformed_prices,
)
from training.simulation.world import Scenario, ScenarioConfig

BLOCKS = 12
OUTAGE, RESTART = (0.45, 0.55), 0.5
CONTROLLER_RUNS = (
    "controller",
    "controller, cold start",
    "controller, counters 1,000 pages late",
    "controller, outage 10 %, restart",
)


@dataclass(frozen=True)
class Line:
    """Figures of a strategy on one day, in per cent; `recovery`: part of the remaining day to compensate an outage."""

    strategy: str
    lost: float
    short_mean: float
    short_worst: float
    pacing_narrow: float
    pacing: float
    over: float
    recovery: float | None = None


@dataclass(frozen=True)
class Result:
    """All strategies on one day.

    loss_any_timing, loss_on_plan  per cent of utility that the hindsight optimum loses, with free timing and on plan
    gap                            proven optimality gap of the optimum with free timing, in per cent
    """

    lines: tuple[Line, ...]
    loss_any_timing: float
    loss_on_plan: float
    gap: float
    feasible: bool


def compare(config: ScenarioConfig, seed: int) -> Result:
    """Learn from yesterday, then run today with every strategy and compute the optimum in hindsight."""
    yesterday, day = make_scenario(config, seed, 0), make_scenario(config, seed, 1)
    none = np.zeros(len(day.amount))
    free_utility = Pages(day).serve_day(none).utility
    yesterday_optimum = optimum(yesterday, yesterday.amount)
    learned = learn_prices(yesterday, yesterday_optimum.price)
    cold = uninformed_prices(day)
    outage = Disturbance(outage=OUTAGE, restart_after=RESTART)
    lines = [
        _run(day, "no targets", ConstantPrices(day, none), free_utility),
        _run(day, "fixed boost of 0.05", ConstantPrices(day, none + 0.05), free_utility),
        _run(day, "yesterday's best prices, fixed", ConstantPrices(day, yesterday_optimum.price), free_utility),
        _run(day, "greedy: top slots until done", Greedy(day, frontloaded=True), free_utility),
        _run(day, "greedy: top slots when behind", Greedy(day), free_utility),
        _run(day, "PID on ranks (PAI-Rec)", RankPid(day, TUNED), free_utility, pages=RankPages(day)),
        _run(day, CONTROLLER_RUNS[0], PriceController(day, learned), free_utility),
        _run(day, CONTROLLER_RUNS[1], PriceController(day, cold), free_utility),
        _run(day, CONTROLLER_RUNS[2], PriceController(day, learned), free_utility, Disturbance(delay_pages=1000)),
        _run(day, CONTROLLER_RUNS[3], PriceController(day, learned), free_utility, outage),
    ]
    hindsight = optimum(day, day.amount, initial_price=yesterday_optimum.price)
    plan = planned_delivery(day, np.linspace(0, len(day.at), BLOCKS + 1).astype(int))
    on_plan = smooth_optimum(day, plan, initial_price=hindsight.price)
    return Result(
        tuple(lines),
        _utility_lost(hindsight, free_utility),
        100.0 * (1.0 - on_plan / free_utility),
        100.0 * hindsight.gap,
        _feasible(hindsight, day),
    )


def compare_guided(config: ScenarioConfig, seed: int) -> tuple[list[Line], int, int]:
    """Run a day with hard controls and the real solver; returns results, pages solved and pages in violation."""
    day = make_scenario(config, seed, 1)
    none = np.zeros(len(day.amount))
    cold = uninformed_prices(day)
    first = GuidedPages(day)
    free_utility = first.serve_day(none).utility
    solved, broken, lines = first.n_solved, first.n_violating, []
    runs: list[tuple[str, Strategy, Disturbance | None]] = [
        ("no targets", ConstantPrices(day, none), None),
        ("fixed boost of 0.05", ConstantPrices(day, none + 0.05), None),
        ("greedy: top slots when behind", Greedy(day), None),
        (CONTROLLER_RUNS[1], PriceController(day, cold), None),
        (
            "controller, outage 10 %, restart",
            PriceController(day, cold),
            Disturbance(delay_pages=10, outage=OUTAGE, restart_after=RESTART),
        ),
    ]
    for name, strategy, disturbance in runs:
        pages = GuidedPages(day)
        lines.append(
            _run(day, name, strategy, free_utility, disturbance or Disturbance(delay_pages=10), pages=pages, every=10)
        )
        solved, broken = solved + pages.n_solved, broken + pages.n_violating
    return lines, solved, broken


def _run(
    day: Scenario,
    name: str,
    strategy: Strategy,
    free_utility: float,
    disturbance: Disturbance | None = None,
    *,
    pages: Pages | None = None,
    every: int = 50,
) -> Line:
    record = run_day(day, strategy, disturbance, pages=pages, every=every)
    m = measure(day, record, free_utility)
    narrow_pacing: F64 = m.pacing[day.is_item_target]
    recovery = recovery_time(day, record, disturbance.outage[1]) if disturbance and disturbance.outage else None
    return Line(
        name,
        m.utility_loss,
        float(m.shortfall.mean()),
        float(m.shortfall.max()),
        float(narrow_pacing.mean()),
        float(m.pacing.mean()),
        float(m.excess.mean()),
        None if recovery is None else 100.0 * recovery,
    )


def _utility_lost(best: OfflineOptimum, free_utility: float) -> float:
    return 100.0 * (1.0 - best.bound / free_utility)


def _feasible(best: OfflineOptimum, day: Scenario) -> bool:
    return bool((best.shortfall <= 1e-4 * day.amount).all())
