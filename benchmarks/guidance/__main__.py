"""Every family of instances: distance to the optimum, proofs, bounds, microseconds, and the rivals.

    python -m benchmarks.guidance [--instances N] [--families small ...] [--exact-s S] [--keep DIR] [--ratings DIR]

The exact reference is HiGHS, in the same process, with `--exact-s` seconds for each instance; where it does not finish
by then, its bound or ours, whichever is lower, stands in for the optimum and the instance is counted as open. `--keep`
remembers its answers.
Times are of this thread's processor time (a busy machine counts less) with garbage collection off.
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
"""Of a page as serving makes it, by processor time."""


@dataclass
class EffortStats:
    """One effort on one family."""

    took_ms: list[float] = field(default_factory=list)
    gap_pct: list[float] = field(default_factory=list)  # per cent below the optimum
    bound_excess: list[float] = field(default_factory=list)  # per cent that the bound stands above the optimum
    proven: int = 0
    missed: int = 0  # relaxed although a page exists

    def figures(self) -> dict[str, float]:
        """What is reported."""
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
    """Pages as serving makes them: with a deadline and one memory of what gave way, infeasible ones among them."""

    memory: RelaxationCache = field(default_factory=RelaxationCache)
    took_ms: list[float] = field(default_factory=list)
    relaxed_ms: list[float] = field(default_factory=list)
    missed: int = 0  # relaxed although a page exists
    open: int = 0  # relaxed, and not proven to be the least

    def take(self, instance: Instance, feasible: bool) -> None:
        """Solve it and note how that went."""
        gc.disable()
        began = time.thread_time()
        solution = solve(*instance, deadline_s=DEADLINE_S, clock=time.thread_time, memory=self.memory)
        self.took_ms.append(1e3 * (time.thread_time() - began))
        gc.enable()
        assert (instance.bounds.violated_by(solution.chosen) == solution.relaxed).all(), "more gave way than is said"
        if solution.relaxed.any():
            self.relaxed_ms.append(self.took_ms[-1])
            self.missed += feasible
            self.open += not solution.minimal_proven.all()

    def figures(self) -> dict[str, float | None]:
        """What is reported."""
        gave_way = self.relaxed_ms
        return {
            "p50_ms": round(float(np.median(self.took_ms)), 3),
            "p99_ms": round(float(np.percentile(self.took_ms, 99)), 3),
            "max_ms": round(max(self.took_ms), 3),
            "gave_way": len(gave_way),
            "gave_way_p50_ms": round(float(np.median(gave_way)), 3) if gave_way else None,
            "gave_way_max_ms": round(max(gave_way), 3) if gave_way else None,
            "gave_way_unproven": self.open,
            "missed": self.missed,
        }


def main() -> None:
    """Run, print the table, and the figures as the last line."""
    parser = argparse.ArgumentParser(prog="bench-guidance", description=__doc__)
    parser.add_argument("--instances", type=int, default=200)
    parser.add_argument("--families", nargs="*", default=[*FAMILIES])
    parser.add_argument("--exact-s", type=float, default=60.0)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--ratings", type=Path, help="directory of movies.dat and ratings.dat (MovieTweetings)")
    said = parser.parse_args()
    warm()
    told: dict[str, Any] = {}
    sources: dict[str, Callable[[], Iterator[Instance]]] = {
        name: _drawn(name, said.instances) for name in said.families
    }
    if said.ratings:
        sources[REAL] = lambda: real_instances(said.ratings, said.instances)
    for name, instances in sources.items():
        told[name] = _family(name, instances(), said.exact_s, said.keep)
        _print(name, told[name])
    print(
        json.dumps(
            {"benchmark": "guidance", "families": told, "ratings": str(said.ratings.name) if said.ratings else None}
        )
    )


def _drawn(name: str, count: int) -> Callable[[], Iterator[Instance]]:
    return lambda: (draw(name, seed) for seed in range(count))


def _family(name: str, instances: Iterator[Instance], exact_s: float, keep: Path | None) -> dict[str, Any]:
    tallies = {effort: EffortStats() for effort in EFFORTS}
    rivals: dict[str, list[float | None]] = {rival: [] for rival in BASELINES}
    exact_took, infeasible, undecided, path = [], 0, 0, ServingPath()
    for number, instance in enumerate(instances):
        bound, value, took_s, settled = _exact(name, number, instance, exact_s, keep)
        path.take(instance, value is not None)
        if value is None and settled:
            infeasible += 1
            continue
        if value is None:
            undecided += 1
            continue
        exact_took.append(took_s * 1e3)
        if not settled:  # of two proven bounds the lower one stands in for the optimum
            undecided += 1
            bound = max(value, min(bound, solve(*instance).bound))
        for effort, tally in tallies.items():
            _solve_and_record(instance, effort, value if settled else bound, value, tally)
        for rival, answer in BASELINES.items():
            page = answer(instance)
            kept = not instance.bounds.violated_by(page).any()
            worth = float(instance.attention @ instance.value[page])
            rivals[rival].append(100 * (1 - worth / value) if kept else None)
    figures: dict[str, Any] = {effort: tally.figures() for effort, tally in tallies.items()}
    figures["page_path"] = path.figures()
    figures |= {"feasible": len(exact_took), "infeasible": infeasible, "exact_undecided": undecided}
    figures["exact_p50_ms"] = round(float(np.median(exact_took)), 1) if exact_took else None
    for effort in EFFORTS:
        figures[effort]["times_faster"] = (
            round(figures["exact_p50_ms"] / figures[effort]["p50_ms"]) if exact_took else None
        )
    figures["rivals"] = {
        rival: {
            "kept_pct": round(100 * np.mean([a is not None for a in answers]), 1) if answers else None,
            "off_mean_pct": _mean([a for a in answers if a is not None]),
        }
        for rival, answers in rivals.items()
    }
    return figures


def _mean(numbers: list[float]) -> float | None:
    return round(float(np.mean(numbers)), 3) if numbers else None


def _solve_and_record(instance: Instance, effort: Any, optimum: float, least: float, tally: EffortStats) -> None:
    gc.disable()
    began = time.thread_time()
    solution = solve(*instance, effort=effort)
    tally.took_ms.append(1e3 * (time.thread_time() - began))
    gc.enable()
    if solution.relaxed.any():
        tally.missed += 1
        return
    assert not instance.bounds.violated_by(solution.chosen).any(), "a page broke its bounds without saying so"
    assert solution.bound >= least - FEASIBLE, "a stated bound lies below a page that exists"
    tally.gap_pct.append(max(0.0, 100 * (1 - solution.value / optimum)))
    tally.bound_excess.append(max(0.0, 100 * (solution.bound / optimum - 1)))
    tally.proven += solution.proven


def _exact(
    name: str, number: int, instance: Instance, limit_s: float, keep: Path | None
) -> tuple[float, float | None, float, bool]:
    """Bound, best value (None: no page), seconds, and whether HiGHS finished."""
    kept = keep / f"{name.replace(' ', '-')}-{number}.pkl" if keep else None
    if kept and kept.exists():
        answer: tuple[float, float | None, float, bool] = pickle.loads(kept.read_bytes())
        return answer
    began = time.thread_time()
    problem = presolve(*instance)
    found = solve_optimal(problem, limit_s=limit_s)
    value = None if found.page is None else float(problem.attention @ problem.value[found.page])
    answer = found.bound, value, time.thread_time() - began, found.settled
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(pickle.dumps(answer))
    return answer


def _print(name: str, figures: dict[str, Any]) -> None:
    print(
        f"\n{name}: {figures['feasible']} feasible, {figures['infeasible']} infeasible, "
        f"{figures['exact_undecided']} left open by HiGHS; HiGHS median {figures['exact_p50_ms']} ms"
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
        f"  page path p50 {f['p50_ms']} p99 {f['p99_ms']} max {f['max_ms']} ms   {f['gave_way']} gave way, unproven "
        f"{f['gave_way_unproven']}, p50 {f['gave_way_p50_ms']} max {f['gave_way_max_ms']} ms   missed {f['missed']}"
    )
    for rival, f in figures["rivals"].items():
        there = f", there {f['off_mean_pct']} % off" if f["off_mean_pct"] is not None else ""
        print(f"  {rival:<18} kept all bounds on {f['kept_pct']} % of pages{there}")


if __name__ == "__main__":
    main()
