"""Solves every family of instances; reports the gap to the optimum, proofs, bounds, times, and the baselines.

    python -m benchmarks.guidance [--instances N] [--families small ...] [--exact-s S] [--cache DIR] [--ratings DIR]

The exact reference is HiGHS, in the same process, with `--exact-s` seconds for each instance. If HiGHS does not finish,
the lower of the two proven bounds (of HiGHS and of the page solver) replaces the optimum, and the instance counts as
undecided. `--cache` stores the results of HiGHS. Times are processor times of this thread, without garbage collection.
"""

from __future__ import annotations

import argparse
import gc
import json
import pickle
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.guidance.baselines import BASELINES
from benchmarks.guidance.instances import FAMILIES, Instance, draw
from benchmarks.guidance.real import REAL, real_instances
from recsys.guidance.solver.milp import solve_optimal
from recsys.guidance.solver.presolve import presolve
from recsys.guidance.solver.relaxation_cache import RelaxationCache
from recsys.guidance.solver.solve import solve, warm

EFFORTS = ("fast", "adaptive")
FEASIBLE = 1e-6
DEADLINE_S = 0.010
"""Deadline of a page as in serving, in processor time."""


@dataclass
class EffortStats:
    """Results of one solver effort on one family."""

    took_ms: list[float] = field(default_factory=list)
    gap_pct: list[float] = field(default_factory=list)  # per cent below the optimum
    bound_excess: list[float] = field(default_factory=list)  # per cent by which the bound exceeds the optimum
    proven: int = 0
    missed: int = 0  # relaxed although a feasible page exists

    def figures(self) -> dict[str, float]:
        """Return the figures of the report."""
        off, took, stated = (np.array(a or [np.nan]) for a in (self.gap_pct, self.took_ms, self.bound_excess))
        return {
            "off_mean_pct": round(float(off.mean()), 5),
            "off_p99_pct": round(float(np.percentile(off, 99)), 4),
            "off_max_pct": round(float(off.max()), 4),
            "bound_above_p99_pct": round(float(np.percentile(stated, 99)), 4),
            "proven": round(self.proven / max(len(self.gap_pct), 1), 4),
            "missed": self.missed,
            "p50_ms": round(float(np.median(took)), 3),
            "p99_ms": round(float(np.percentile(took, 99)), 3),
        }


@dataclass
class ServingPath:
    """Pages as in serving: with a deadline and a shared relaxation cache, including infeasible instances."""

    cache: RelaxationCache = field(default_factory=RelaxationCache)
    took_ms: list[float] = field(default_factory=list)
    relaxed_ms: list[float] = field(default_factory=list)
    missed: int = 0  # relaxed although a feasible page exists
    unproven: int = 0  # relaxed, and not proven to be minimal

    def solve(self, instance: Instance, feasible: bool) -> None:
        """Solve the instance and record the result."""
        gc.disable()
        began = time.thread_time()
        solution = solve(*instance, deadline_s=DEADLINE_S, clock=time.thread_time, cache=self.cache)
        self.took_ms.append(1e3 * (time.thread_time() - began))
        gc.enable()
        assert (instance.bounds.violated_by(solution.chosen) == solution.relaxed).all(), (
            "the reported relaxation differs from the page's violations"
        )
        if solution.relaxed.any():
            self.relaxed_ms.append(self.took_ms[-1])
            self.missed += feasible
            self.unproven += not solution.minimal_proven.all()

    def figures(self) -> dict[str, float | None]:
        """Return the figures of the report."""
        relaxed_ms = self.relaxed_ms
        return {
            "p50_ms": round(float(np.median(self.took_ms)), 3),
            "p99_ms": round(float(np.percentile(self.took_ms, 99)), 3),
            "max_ms": round(max(self.took_ms), 3),
            "relaxed": len(relaxed_ms),
            "relaxed_p50_ms": round(float(np.median(relaxed_ms)), 3) if relaxed_ms else None,
            "relaxed_max_ms": round(max(relaxed_ms), 3) if relaxed_ms else None,
            "relaxed_unproven": self.unproven,
            "missed": self.missed,
        }


def main() -> None:
    """Run all families; prints a table and, as the last line, one JSON object."""
    parser = argparse.ArgumentParser(prog="bench-guidance", description=__doc__)
    parser.add_argument("--instances", type=int, default=200)
    parser.add_argument("--families", nargs="*", default=[*FAMILIES])
    parser.add_argument("--exact-s", type=float, default=60.0)
    parser.add_argument("--cache", type=Path, help="directory for the results of HiGHS")
    parser.add_argument("--ratings", type=Path, help="directory of movies.dat and ratings.dat (MovieTweetings)")
    args = parser.parse_args()
    warm()
    families: dict[str, Any] = {}
    sources: dict[str, Callable[[], Iterator[Instance]]] = {
        name: _drawn(name, args.instances) for name in args.families
    }
    if args.ratings:
        sources[REAL] = lambda: real_instances(args.ratings, args.instances)
    for name, instances in sources.items():
        families[name] = _family(name, instances(), args.exact_s, args.cache)
        _print(name, families[name])
    print(
        json.dumps(
            {"benchmark": "guidance", "families": families, "ratings": str(args.ratings.name) if args.ratings else None}
        )
    )


def _drawn(name: str, count: int) -> Callable[[], Iterator[Instance]]:
    return lambda: (draw(name, seed) for seed in range(count))


def _family(name: str, instances: Iterator[Instance], exact_s: float, cache_dir: Path | None) -> dict[str, Any]:
    stats_by_effort = {effort: EffortStats() for effort in EFFORTS}
    baseline_gaps: dict[str, list[float | None]] = {baseline: [] for baseline in BASELINES}
    exact_took, infeasible, undecided, serving_path = [], 0, 0, ServingPath()
    for number, instance in enumerate(instances):
        bound, value, took_s, finished = _exact(name, number, instance, exact_s, cache_dir)
        serving_path.solve(instance, value is not None)
        if value is None and finished:
            infeasible += 1
            continue
        if value is None:
            undecided += 1
            continue
        exact_took.append(took_s * 1e3)
        if not finished:  # the lower of two proven bounds replaces the optimum
            undecided += 1
            bound = max(value, min(bound, solve(*instance).bound))
        for effort, stats in stats_by_effort.items():
            _solve_and_record(instance, effort, value if finished else bound, value, stats)
        for baseline, make_page in BASELINES.items():
            page = make_page(instance)
            feasible = not instance.bounds.violated_by(page).any()
            page_value = float(instance.attention @ instance.value[page])
            baseline_gaps[baseline].append(100 * (1 - page_value / value) if feasible else None)
    figures: dict[str, Any] = {effort: stats.figures() for effort, stats in stats_by_effort.items()}
    figures["page_path"] = serving_path.figures()
    figures |= {"feasible": len(exact_took), "infeasible": infeasible, "exact_undecided": undecided}
    figures["exact_p50_ms"] = round(float(np.median(exact_took)), 1) if exact_took else None
    for effort in EFFORTS:
        figures[effort]["times_faster"] = (
            round(figures["exact_p50_ms"] / figures[effort]["p50_ms"]) if exact_took else None
        )
    figures["baselines"] = {
        baseline: {
            "feasible_pct": round(100 * np.mean([gap is not None for gap in gaps]), 1) if gaps else None,
            "off_mean_pct": _mean([gap for gap in gaps if gap is not None]),
        }
        for baseline, gaps in baseline_gaps.items()
    }
    return figures


def _mean(numbers: list[float]) -> float | None:
    return round(float(np.mean(numbers)), 3) if numbers else None


def _solve_and_record(instance: Instance, effort: Any, optimum: float, best_known: float, stats: EffortStats) -> None:
    gc.disable()
    began = time.thread_time()
    solution = solve(*instance, effort=effort)
    stats.took_ms.append(1e3 * (time.thread_time() - began))
    gc.enable()
    if solution.relaxed.any():
        stats.missed += 1
        return
    assert not instance.bounds.violated_by(solution.chosen).any(), (
        "a page violates its constraints, but no relaxation is reported"
    )
    assert solution.bound >= best_known - FEASIBLE, "the bound is below the value of a known page"
    stats.gap_pct.append(max(0.0, 100 * (1 - solution.value / optimum)))
    stats.bound_excess.append(max(0.0, 100 * (solution.bound / optimum - 1)))
    stats.proven += solution.proven


def _exact(
    name: str, number: int, instance: Instance, limit_s: float, cache_dir: Path | None
) -> tuple[float, float | None, float, bool]:
    """Return the bound, the best value (None: no page), the seconds, and whether HiGHS finished."""
    cached = cache_dir / f"{name.replace(' ', '-')}-{number}.pkl" if cache_dir else None
    if cached and cached.exists():
        answer: tuple[float, float | None, float, bool] = pickle.loads(cached.read_bytes())
        return answer
    began = time.thread_time()
    problem = presolve(*instance)
    result = solve_optimal(problem, limit_s=limit_s)
    value = None if result.page is None else float(problem.attention @ problem.value[result.page])
    answer = result.bound, value, time.thread_time() - began, result.proven
    if cached:
        cached.parent.mkdir(parents=True, exist_ok=True)
        cached.write_bytes(pickle.dumps(answer))
    return answer


def _print(name: str, figures: dict[str, Any]) -> None:
    print(
        f"\n{name}: {figures['feasible']} feasible, {figures['infeasible']} infeasible, "
        f"{figures['exact_undecided']} undecided; HiGHS median {figures['exact_p50_ms']} ms"
    )
    for effort in EFFORTS:
        f = figures[effort]
        print(
            f"  {effort:<9} off mean {f['off_mean_pct']:.4f} p99 {f['off_p99_pct']:.3f} max {f['off_max_pct']:.3f} %   "
            f"bound p99 {f['bound_above_p99_pct']:.3f} %   proven {100 * f['proven']:.1f} %   missed {f['missed']}   "
            f"p50 {f['p50_ms']:.2f} p99 {f['p99_ms']:.2f} ms   {f['times_faster']} x HiGHS"
        )
    f = figures["page_path"]
    print(
        f"  page path p50 {f['p50_ms']} p99 {f['p99_ms']} max {f['max_ms']} ms   {f['relaxed']} relaxed, unproven "
        f"{f['relaxed_unproven']}, p50 {f['relaxed_p50_ms']} max {f['relaxed_max_ms']} ms   missed {f['missed']}"
    )
    for baseline, f in figures["baselines"].items():
        gap = f", {f['off_mean_pct']} % off on these" if f["off_mean_pct"] is not None else ""
        print(f"  {baseline:<18} feasible on {f['feasible_pct']} % of pages{gap}")


if __name__ == "__main__":
    main()
