"""One world, every way to steer it."""

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
OURS = ("ours", "ours, cold start", "ours, counters 1,000 pages late", "ours, outage 10 %, restart")


@dataclass(frozen=True)
class Line:
    """One way on one day. Per cent; `back`: part of the day's rest until an outage was made up for."""

    way: str
    lost: float
    short_mean: float
    short_worst: float
    pacing_few: float
    pacing: float
    over: float
    back: float | None = None


@dataclass(frozen=True)
class Result:
    """All ways on one day. `free`, `even`: utility lost by the two hindsight optima; `gap`: proven, of the free one."""

    lines: tuple[Line, ...]
    free: float
    even: float
    gap: float
    feasible: bool


def compare(recipe: ScenarioConfig, seed: int) -> Result:
    """Yesterday is served to learn from, then today in every way, then today in hindsight."""
    yesterday, day = make_scenario(recipe, seed, 0), make_scenario(recipe, seed, 1)
    none = np.zeros(len(day.amount))
    free = Pages(day).serve_day(none).utility
    before = optimum(yesterday, yesterday.amount)
    usual = learn_prices(yesterday, before.price)
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


def compare_guided(recipe: ScenarioConfig, seed: int) -> tuple[list[Line], int, int]:
    """The day with hard controls, pages by the real solver: the lines, pages solved, and pages that break a control."""
    day = make_scenario(recipe, seed, 1)
    none = np.zeros(len(day.amount))
    cold = uninformed_prices(day)
    first = GuidedPages(day)
    free = first.serve_day(none).utility
    solved, broken, lines = first.n_solved, first.n_violating, []
    ways: list[tuple[str, Strategy, Disturbance | None]] = [
        ("no targets", ConstantPrices(day, none), None),
        ("fixed boost of 0.05", ConstantPrices(day, none + 0.05), None),
        ("greedy: top slots when behind", Greedy(day), None),
        (OURS[1], PriceController(day, cold), None),
        (
            "ours, outage 10 %, restart",
            PriceController(day, cold),
            Disturbance(delay_pages=10, outage=OUTAGE, restart_after=RESTART),
        ),
    ]
    for way, steer, trouble in ways:
        pages = GuidedPages(day)
        lines.append(_run(day, way, steer, free, trouble or Disturbance(delay_pages=10), pages=pages, every=10))
        solved, broken = solved + pages.n_solved, broken + pages.n_violating
    return lines, solved, broken


def _run(
    day: Scenario,
    way: str,
    steer: Strategy,
    free: float,
    trouble: Disturbance | None = None,
    *,
    pages: Pages | None = None,
    every: int = 50,
) -> Line:
    record = run_day(day, steer, trouble, pages=pages, every=every)
    m = measure(day, record, free)
    few: F64 = m.pacing[day.is_item_target]
    back = recovery_time(day, record, trouble.outage[1]) if trouble and trouble.outage else None
    return Line(
        way,
        m.utility_loss,
        float(m.shortfall.mean()),
        float(m.shortfall.max()),
        float(few.mean()),
        float(m.pacing.mean()),
        float(m.excess.mean()),
        None if back is None else 100.0 * back,
    )


def _lost(best: OfflineOptimum, free: float) -> float:
    return 100.0 * (1.0 - best.bound / free)


def _feasible(best: OfflineOptimum, day: Scenario) -> bool:
    return bool((best.shortfall <= 1e-4 * day.amount).all())
