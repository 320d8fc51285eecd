"""Runs of one scenario with every pacing strategy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys.domain.types import F64
from training.simulation.day import Disturbance, Strategy, run_day
from training.simulation.guided import GuidedPages
from training.simulation.measure import measure
from training.simulation.offline_optimum import OfflineOptimum, optimum, smooth_optimum
from training.simulation.pages import Pages
from training.simulation.pid import TUNED, RankPages, RankPid
from training.simulation.scenario import make_scenario
from training.simulation.strategies import (
    ConstantPrices,
    Greedy,
    PriceController,
    planned_delivery,
    uninformed_prices,
)
from training.simulation.world import Scenario

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


def compare(recipe: Recipe, seed: int) -> Result:
    """Learn from yesterday, then run today with every strategy and compute the optimum in hindsight."""
    yesterday, day = make_scenario(recipe, seed, 0), make_scenario(recipe, seed, 1)
    none = np.zeros(len(day.amount))
    free_utility = Pages(day).under(none).utility
    yesterday_optimum = optimum(yesterday, yesterday.amount)
    learned = learn(yesterday, yesterday_optimum.price)
    cold = uninformed_prices(day)
    outage = Disturbance(outage=OUTAGE, restart_after=RESTART)
    lines = [
        _run(day, "no targets", ConstantPrices(day, none), free),
        _run(day, "fixed boost of 0.05", ConstantPrices(day, none + 0.05), free),
        _run(day, "yesterday's best prices, fixed", ConstantPrices(day, before.price), free),
        _run(day, "greedy: top slots until done", Greedy(day, frontloaded=True), free),
        _run(day, "greedy: top slots when behind", Greedy(day), free),
        _run(day, "PID on ranks (PAI-Rec)", RankPid(day, TUNED), free, pages=RankPages(day)),
        _run(day, OURS[0], PriceController(day, usual), free),
        _run(day, OURS[1], PriceController(day, cold), free),
        _run(day, OURS[2], PriceController(day, usual), free, Disturbance(delay_pages=1000)),
        _run(day, OURS[3], PriceController(day, usual), free, outage),
    ]
    best = optimum(day, day.amount, initial_price=before.price)
    plan = planned_delivery(day, np.linspace(0, len(day.at), BLOCKS + 1).astype(int))
    even = smooth_optimum(day, plan, initial_price=best.price)
    return Result(tuple(lines), _lost(best, free), 100.0 * (1.0 - even / free), 100.0 * best.gap, _feasible(best, day))


def compare_guided(recipe: Recipe, seed: int) -> tuple[list[Line], int, int]:
    """Run a day with hard controls and the real solver; returns results, pages solved and pages in violation."""
    day = make_scenario(recipe, seed, 1)
    none = np.zeros(len(day.amount))
    cold = uninformed_prices(day)
    first = GuidedPages(day)
    free_utility = first.under(none).utility
    solved, broken, lines = first.solved, first.broken, []
    runs: list[tuple[str, Strategy, Disturbance | None]] = [
        ("no targets", Constant(day, none), None),
        ("fixed boost of 0.05", Constant(day, none + 0.05), None),
        ("greedy: top slots when behind", Greedy(day), None),
        (CONTROLLER_RUNS[1], Controlled(day, cold), None),
        (
            "controller, outage 10 %, restart",
            Controlled(day, cold),
            Disturbance(late=10, outage=OUTAGE, restart=RESTART),
        ),
    ]
    for name, strategy, disturbance in runs:
        pages = GuidedPages(day)
        lines.append(
            _run(day, name, strategy, free_utility, disturbance or Disturbance(late=10), pages=pages, every=10)
        )
        solved, broken = solved + pages.solved, broken + pages.broken
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
    narrow_pacing: F64 = m.pacing[day.few]
    recovery = back_within(day, record, disturbance.outage[1]) if disturbance and disturbance.outage else None
    return Line(
        name,
        m.lost,
        float(m.short.mean()),
        float(m.short.max()),
        float(narrow_pacing.mean()),
        float(m.pacing.mean()),
        float(m.over.mean()),
        None if recovery is None else 100.0 * recovery,
    )


def _utility_lost(best: OfflineOptimum, free_utility: float) -> float:
    return 100.0 * (1.0 - best.bound / free_utility)


def _feasible(best: OfflineOptimum, day: Scenario) -> bool:
    return bool((best.shortfall <= 1e-4 * day.amount).all())
