"""One world, every way to steer it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys.domain.types import F64
from training.simulation.day import Disturbance, Strategy, run_day
from training.simulation.guided import GuidedPages
from training.simulation.measure import back_within, measure
from training.simulation.offline_optimum import OfflineOptimum, optimum, smooth
from training.simulation.pages import Pages
from training.simulation.pid import TUNED, RankPages, RankPid
from training.simulation.scenario import make_scenario
from training.simulation.strategies import Constant, Controlled, Greedy, learn, plan_of, uninformed_prices
from training.simulation.world import Recipe, Scenario

BLOCKS = 12
OUTAGE, RESTART = (0.45, 0.55), 0.5
CONTROLLER_RUNS = ("ours", "ours, cold start", "ours, counters 1,000 pages late", "ours, outage 10 %, restart")


@dataclass(frozen=True)
class Line:
    """One way on one day. Per cent; `back`: part of the day's rest until an outage was made up for."""

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
    """All ways on one day. `free`, `even`: utility lost by the two hindsight optima; `gap`: proven, of the free one."""

    lines: tuple[Line, ...]
    loss_any_timing: float
    loss_on_plan: float
    gap: float
    feasible: bool


def compare(recipe: Recipe, seed: int) -> Result:
    """Yesterday is served to learn from, then today in every way, then today in hindsight."""
    yesterday, day = make_scenario(recipe, seed, 0), make_scenario(recipe, seed, 1)
    none = np.zeros(len(day.amount))
    free = Pages(day).under(none).utility
    before = optimum(yesterday, yesterday.amount)
    usual = learn(yesterday, before.price)
    cold = uninformed_prices(day)
    outage = Disturbance(outage=OUTAGE, restart=RESTART)
    lines = [
        _run(day, "no targets", Constant(day, none), free),
        _run(day, "fixed boost of 0.05", Constant(day, none + 0.05), free),
        _run(day, "yesterday's best prices, fixed", Constant(day, before.price), free),
        _run(day, "greedy: top slots until done", Greedy(day, front=True), free),
        _run(day, "greedy: top slots when behind", Greedy(day), free),
        _run(day, "PID on ranks (PAI-Rec)", RankPid(day, TUNED), free, pages=RankPages(day)),
        _run(day, CONTROLLER_RUNS[0], Controlled(day, usual), free),
        _run(day, CONTROLLER_RUNS[1], Controlled(day, cold), free),
        _run(day, CONTROLLER_RUNS[2], Controlled(day, usual), free, Disturbance(late=1000)),
        _run(day, CONTROLLER_RUNS[3], Controlled(day, usual), free, outage),
    ]
    best = optimum(day, day.amount, first=before.price)
    plan = plan_of(day, np.linspace(0, len(day.at), BLOCKS + 1).astype(int))
    even = smooth(day, plan, first=best.price)
    return Result(tuple(lines), _utility_lost(best, free), 100.0 * (1.0 - even / free), 100.0 * best.gap, _feasible(best, day))


def compare_guided(recipe: Recipe, seed: int) -> tuple[list[Line], int, int]:
    """The day with hard controls, pages by the real solver: the lines, pages solved, and pages that break a control."""
    day = make_scenario(recipe, seed, 1)
    none = np.zeros(len(day.amount))
    cold = uninformed_prices(day)
    first = GuidedPages(day)
    free = first.under(none).utility
    solved, broken, lines = first.solved, first.broken, []
    ways: list[tuple[str, Strategy, Disturbance | None]] = [
        ("no targets", Constant(day, none), None),
        ("fixed boost of 0.05", Constant(day, none + 0.05), None),
        ("greedy: top slots when behind", Greedy(day), None),
        (CONTROLLER_RUNS[1], Controlled(day, cold), None),
        ("ours, outage 10 %, restart", Controlled(day, cold), Disturbance(late=10, outage=OUTAGE, restart=RESTART)),
    ]
    for way, steer, trouble in ways:
        pages = GuidedPages(day)
        lines.append(_run(day, way, steer, free, trouble or Disturbance(late=10), pages=pages, every=10))
        solved, broken = solved + pages.solved, broken + pages.broken
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
    few: F64 = m.pacing[day.few]
    back = back_within(day, record, trouble.outage[1]) if trouble and trouble.outage else None
    return Line(
        way,
        m.lost,
        float(m.short.mean()),
        float(m.short.max()),
        float(few.mean()),
        float(m.pacing.mean()),
        float(m.over.mean()),
        None if back is None else 100.0 * back,
    )


def _utility_lost(best: OfflineOptimum, free: float) -> float:
    return 100.0 * (1.0 - best.bound / free)


def _feasible(best: OfflineOptimum, day: Scenario) -> bool:
    return bool((best.short <= 1e-4 * day.amount).all())
