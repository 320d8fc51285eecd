"""Processor time of pages whose controls contradict each other, relative to ordinary pages of the same run.

    python -m benchmarks.guidance.budget [--instances N]

All pages have the budget of serving. The ratios do not depend on the speed of the machine.
"""

from __future__ import annotations

import argparse
import gc
import json
import time

import numpy as np

from benchmarks.guidance.instances import Instance, draw
from recsys.guidance.solver.infeasibility import ConflictCache
from recsys.guidance.solver.page_budget import PageBudget, query_work
from recsys.guidance.solver.solve import solve, warm

SOLVE_S, BUDGET_S = 0.010, 0.050


def page_ms(instance: Instance) -> tuple[float, PageBudget]:
    """Return the milliseconds of processor time of a page with its causes, without caches, and its budget."""
    gc.disable()
    began, budget, work = time.thread_time(), PageBudget(1e6 * BUDGET_S, time.thread_time), query_work(instance.bounds)
    budget.reserve(instance.bounds)
    solution = solve(*instance, deadline_s=SOLVE_S, clock=time.thread_time, budget=budget)
    ConflictCache().of(
        instance.bounds, solution.relaxed, solution.minimal_proven, lambda: not budget.allows("causes", work=work)
    )
    took_ms = 1e3 * (time.thread_time() - began)
    gc.enable()
    return took_ms, budget


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(prog="bench-page-budget", description=__doc__)
    parser.add_argument("--instances", type=int, default=100)
    args = parser.parse_args()
    warm()
    figures: dict[str, object] = {"benchmark": "page-budget"}
    took = {}
    for family in ("typical", "tv rows", "conflicting"):
        pages = [page_ms(draw(family, seed)) for seed in range(args.instances)]
        took[family] = np.array([ms for ms, _ in pages])
        figures[family] = {
            "p50_ms": round(float(np.median(took[family])), 2),
            "max_ms": round(float(took[family].max()), 2),
            "cut_short": sum(bool(budget.cut) for _, budget in pages),
        }
    ordinary = float(np.median(took["typical"]))
    figures["conflicting_p50_to_typical_p50"] = round(float(np.median(took["conflicting"])) / ordinary, 2)
    figures["conflicting_max_to_budget"] = round(float(took["conflicting"].max()) / (1e3 * BUDGET_S), 2)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
