"""Simulates days with exposure targets under several pacing strategies. Prints tables and, last, one JSON object.

In the four large scenarios, a page is the best K items under prices (`training.simulation.pages`). In the last one,
pages come from the real page solver and keep hard controls. The controller is the one that serving runs. All strategies
were tuned on seeds 11 to 43; the results are of other seeds.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, cast

import numpy as np

from benchmarks.targets.runs import CONTROLLER_RUNS, Line, Result, compare, compare_guided
from training.simulation.world import GUIDED_SCENARIO, SCENARIOS

TEST_SEEDS = (51, 52, 53)
COLUMNS = ("lost", "short_mean", "short_worst", "pacing_narrow", "pacing", "over", "recovery")
HEAD = f"{'strategy':37} {'lost':>6} {'short':>6} {'worst':>6} {'pace nar':>8} {'pace all':>8} {'over':>6} {'recov':>6}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run all scenarios; the exit code is always 0."""
    parser = argparse.ArgumentParser(prog="bench-targets", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(TEST_SEEDS))
    args = parser.parse_args(argv)
    began = time.perf_counter()
    print("All in per cent. lost: utility lost against a day without targets; short: shortfall, mean and worst target")
    print(
        "(a cap: excess); pace: mean distance from the plan, of narrow targets (few items) and of all; over: delivered"
    )
    print("beyond the amount; recov: part of the remaining day until an outage is compensated. Means over seeds; worst")
    print("and recov: maximum over seeds.\n")
    report: dict[str, Any] = {"seeds": args.seeds, "scenarios": {}}
    for config in SCENARIOS:
        results = [compare(config, seed) for seed in args.seeds]
        report["scenarios"][config.name] = _scenario(config.name, results)
    lines, solved, broken = compare_guided(GUIDED_SCENARIO, args.seeds[0])
    print(f"{GUIDED_SCENARIO.name}: {solved:,} pages by the real page solver, {broken} of them violate a hard control")
    _table([[line] for line in lines])
    report["scenarios"][GUIDED_SCENARIO.name] = {
        "pages": solved,
        "broken": broken,
        "strategies": {x.strategy: asdict(x) for x in lines},
    }
    report["goals"] = _goals(report["scenarios"], broken)
    for goal, reached in report["goals"].items():
        print(f"{'reached' if reached else 'MISSED ':8} {goal}")
    report["seconds"] = round(time.perf_counter() - began, 1)
    print(json.dumps(report, default=float))
    return 0


def _scenario(name: str, results: list[Result]) -> dict[str, Any]:
    any_timing, on_plan = (
        float(np.mean([r.loss_any_timing for r in results])),
        float(np.mean([r.loss_on_plan for r in results])),
    )
    gap = max(r.gap for r in results)
    print(
        f"{name}: hindsight optimum loses {any_timing:.2f} at any timing (proven to {gap:.3f}), {on_plan:.2f} on plan"
    )
    merged = _table([list(lines) for lines in zip(*(r.lines for r in results), strict=True)])
    lost = {run: cast(float, merged[run]["lost"]) for run in CONTROLLER_RUNS}
    above_optimum = {
        run: {"on_plan": lost[run] - on_plan, "any_timing": lost[run] - any_timing} for run in CONTROLLER_RUNS
    }
    controller = above_optimum[CONTROLLER_RUNS[0]]
    print(
        f"the controller loses {controller['on_plan']:+.2f} against the optimum on plan, "
        f"{controller['any_timing']:+.2f} at any timing\n"
    )
    return {
        "hindsight_any_timing": any_timing, "hindsight_on_plan": on_plan, "hindsight_gap": gap,
        "strategies": merged, "above_optimum": above_optimum,
        "feasible": all(r.feasible for r in results),
    }  # fmt: skip


def _table(strategies: list[list[Line]]) -> dict[str, dict[str, float | None]]:
    print(HEAD)
    merged: dict[str, dict[str, float | None]] = {}
    for lines in strategies:
        row = {name: [v for line in lines if (v := getattr(line, name)) is not None] for name in COLUMNS}
        worst = ("short_worst", "recovery")
        figures = {name: float(max(v) if name in worst else np.mean(v)) if v else None for name, v in row.items()}
        merged[lines[0].strategy] = figures
        cells = [figures[name] for name in COLUMNS]
        print(
            f"{lines[0].strategy:37} "
            + " ".join(_cell(v, w) for v, w in zip(cells, (6, 6, 6, 8, 8, 6, 6), strict=True))
        )
    print()
    return merged


def _cell(figure: float | None, width: int) -> str:
    return " " * width if figure is None else f"{figure:{width}.2f}"


def _goals(scenarios: dict[str, Any], broken: int) -> dict[str, bool]:
    """Return the goals of each scenario and whether they are reached."""
    goals: dict[str, bool] = {}
    for name, scenario in scenarios.items():
        if "above_optimum" not in scenario:
            continue
        runs, above_optimum = scenario["strategies"], scenario["above_optimum"][CONTROLLER_RUNS[0]]
        delayed, outage = runs[CONTROLLER_RUNS[2]], runs[CONTROLLER_RUNS[3]]
        goals |= {
            f"{name}: worst target at most 1.0 short": runs[CONTROLLER_RUNS[0]]["short_worst"] <= 1.0,
            f"{name}: pacing error at most 0.8": runs[CONTROLLER_RUNS[0]]["pacing_narrow"] <= 0.8,
            f"{name}: at most 0.1 above the optimum on plan": above_optimum["on_plan"] <= 0.1,
            f"{name}: at most 0.8 above the optimum at any timing": above_optimum["any_timing"] <= 0.8,
            f"{name}: delayed counters, at most 3 short": delayed["short_worst"] <= 3.0,
            f"{name}: delayed counters, pacing error at most 2": delayed["pacing_narrow"] <= 2.0,
            f"{name}: outage compensated within 10 % of the remaining day": outage["recovery"] <= 10.0,
        }
    return goals | {"no hard control violated on any page": broken == 0}


if __name__ == "__main__":
    sys.exit(main())
