"""`make bench-targets`: simulated days with exposure targets. A table for people; the last line is one JSON object.

Pages of the four large worlds are the best K items under prices (`training.simulation.pages`), those of the last world
come from the real page solver and keep hard controls. The controller is the one that serving runs. Everything was tuned
on seeds 11 to 43; what is shown are other seeds.
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
from training.simulation.world import GUIDED, RECIPES

TEST_SEEDS = (51, 52, 53)
COLUMNS = ("lost", "short_mean", "short_worst", "pacing_few", "pacing", "over", "back")
HEAD = f"{'way':34} {'lost':>6} {'short':>6} {'worst':>6} {'pace few':>8} {'pace all':>8} {'over':>6} {'back':>6}"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs everything; exit code 0 whatever the figures."""
    parser = argparse.ArgumentParser(prog="bench-targets", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(TEST_SEEDS))
    asked = parser.parse_args(argv)
    began = time.perf_counter()
    print(
        "All in per cent. lost: utility against a day without targets; short: mean and worst target (a cap: above it);"
    )
    print("pace: mean distance from the plan, targets on few items and all; over: beyond the amount; back: part of the")
    print("day's rest until an outage was made up for. Mean over seeds, worst and back: the worst of them.\n")
    said: dict[str, Any] = {"seeds": asked.seeds, "worlds": {}}
    for recipe in RECIPES:
        results = [compare(recipe, seed) for seed in asked.seeds]
        said["worlds"][recipe.name] = _world(recipe.name, results)
    lines, solved, broken = compare_guided(GUIDED, asked.seeds[0])
    print(f"{GUIDED.name}: {solved:,} pages by the real page solver, {broken} of them break a hard control")
    _table([[line] for line in lines])
    said["worlds"][GUIDED.name] = {"pages": solved, "broken": broken, "ways": {x.strategy: asdict(x) for x in lines}}
    said["goals"] = _goals(said["worlds"], broken)
    for goal, reached in said["goals"].items():
        print(f"{'reached' if reached else 'MISSED ':8} {goal}")
    said["seconds"] = round(time.perf_counter() - began, 1)
    print(json.dumps(said, default=float))
    return 0


def _world(name: str, results: list[Result]) -> dict[str, Any]:
    free, even = float(np.mean([r.loss_any_timing for r in results])), float(np.mean([r.loss_on_plan for r in results]))
    gap = max(r.gap for r in results)
    print(f"{name}: hindsight optimum loses {free:.2f} at any timing (proven to {gap:.3f}), {even:.2f} on plan")
    merged = _table([list(lines) for lines in zip(*(r.lines for r in results), strict=True)])
    lost = {way: cast(float, merged[way]["lost"]) for way in CONTROLLER_RUNS}
    against = {way: {"above_even": lost[way] - even, "above_free": lost[way] - free} for way in CONTROLLER_RUNS}
    ours = against[CONTROLLER_RUNS[0]]
    print(
        f"ours loses {ours['above_even']:+.2f} against the optimum on plan, {ours['above_free']:+.2f} at any timing\n"
    )
    return {
        "hindsight_free": free, "hindsight_on_plan": even, "hindsight_gap": gap, "ways": merged, "against": against,
        "feasible": all(r.feasible for r in results),
    }  # fmt: skip


def _table(ways: list[list[Line]]) -> dict[str, dict[str, float | None]]:
    print(HEAD)
    merged: dict[str, dict[str, float | None]] = {}
    for lines in ways:
        row = {name: [v for line in lines if (v := getattr(line, name)) is not None] for name in COLUMNS}
        worst = ("short_worst", "back")
        figures = {name: float(max(v) if name in worst else np.mean(v)) if v else None for name, v in row.items()}
        merged[lines[0].strategy] = figures
        cells = [figures[name] for name in COLUMNS]
        print(f"{lines[0].strategy:34} " + " ".join(_cell(v, w) for v, w in zip(cells, (6, 6, 6, 8, 8, 6, 6), strict=True)))
    print()
    return merged


def _cell(figure: float | None, width: int) -> str:
    return " " * width if figure is None else f"{figure:{width}.2f}"


def _goals(worlds: dict[str, Any], broken: int) -> dict[str, bool]:
    """What was to be reached, world by world."""
    goals: dict[str, bool] = {}
    for name, world in worlds.items():
        if "against" not in world:
            continue
        ways, ours = world["ways"], world["against"][CONTROLLER_RUNS[0]]
        late, outage = ways[CONTROLLER_RUNS[2]], ways[CONTROLLER_RUNS[3]]
        goals |= {
            f"{name}: worst target at most 1.0 short": ways[CONTROLLER_RUNS[0]]["short_worst"] <= 1.0,
            f"{name}: pacing error at most 0.8": ways[CONTROLLER_RUNS[0]]["pacing_few"] <= 0.8,
            f"{name}: at most 0.1 above the optimum on plan": ours["above_even"] <= 0.1,
            f"{name}: at most 0.8 above the optimum at any timing": ours["above_free"] <= 0.8,
            f"{name}: late counters, at most 3 short": late["short_worst"] <= 3.0,
            f"{name}: late counters, pacing error at most 2": late["pacing_few"] <= 2.0,
            f"{name}: outage made up for within 10 of the rest": outage["back"] <= 10.0,
        }
    return goals | {"no hard control broken on any page": broken == 0}


if __name__ == "__main__":
    sys.exit(main())
