"""The slow, sure road: the page as an integer programme for HiGHS. It settles what the search leaves open, and audits.

Without a limit on time HiGHS is deterministic; effort is counted in nodes, not in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds as Box  # type: ignore[import-untyped]
from scipy.optimize import LinearConstraint, milp
from scipy.sparse import coo_array  # type: ignore[import-untyped]

from recsys.domain.types import F64, I32
from recsys.guidance.solver.presolve import ReducedProblem

_INFEASIBLE = 2  # status of scipy.optimize.milp


@dataclass(frozen=True)
class MilpResult:
    """page [K] items of the problem, or None; `bound` no page is worth more (-inf: there is none); settled = proven."""

    page: I32 | None
    bound: float
    settled: bool


def solve_optimal(problem: ReducedProblem, nodes: int | None = None, limit_s: float | None = None) -> MilpResult:
    """The best page, or the proof that there is none; `nodes` or, for benchmarks, seconds limit the effort."""
    return _milp(problem, np.outer(problem.value, problem.attention), nodes, limit_s)


def any_page(problem: ReducedProblem, nodes: int | None = None) -> MilpResult:
    """Some page, or the proof that there is none."""
    return _milp(problem, np.zeros((len(problem.value), len(problem.attention))), nodes)


def _milp(problem: ReducedProblem, worth: F64, nodes: int | None, limit_s: float | None = None) -> MilpResult:
    """Maximise sum worth[i, k] x[i, k] over binary x, one item a slot, one slot an item, within all limits."""
    if not problem.possible:
        return MilpResult(None, -np.inf, True)
    items, slots = worth.shape
    if not slots:
        return MilpResult(np.zeros(0, np.int32), 0.0, True)
    matrix, least, most = _rows(problem)
    top = np.ones((items, slots))
    floor = np.zeros((items, slots))
    for k in np.flatnonzero(problem.pin >= 0):
        floor[problem.pin[k], k] = 1.0
    options: dict[str, float | int] = {"mip_rel_gap": 0.0}
    if nodes is not None:
        options["node_limit"] = nodes
    if limit_s is not None:
        options["time_limit"] = limit_s
    found = milp(
        -worth.ravel(),
        integrality=np.ones(items * slots),
        bounds=Box(floor.ravel(), top.ravel()),
        constraints=LinearConstraint(matrix, least, most),
        options=options,
    )
    if found.x is None:
        return MilpResult(None, -np.inf if found.status == _INFEASIBLE else np.inf, found.status == _INFEASIBLE)
    page = found.x.reshape(items, slots).argmax(axis=0).astype(np.int32)
    bound = -found.mip_dual_bound if found.mip_dual_bound is not None else np.inf
    return MilpResult(page, float(bound), found.status == 0)


def _rows(problem: ReducedProblem) -> tuple[coo_array, F64, F64]:
    """Constraint matrix over x[i, k] flattened, with the least and the most of each row."""
    items, slots = len(problem.value), len(problem.attention)
    across: list[I32] = []
    least: list[float] = []
    most: list[float] = []

    def row(columns: I32, at_least: float, at_most: float) -> None:
        across.append(columns)
        least.append(at_least)
        most.append(at_most)

    number = np.arange(items * slots, dtype=np.int32).reshape(items, slots)
    for k in range(slots):
        row(number[:, k], 1, 1)
    for i in range(items):
        row(number[i], 0, 1)
    for g in range(len(problem.owner)):
        columns = number[problem.member[g]]
        for k in range(slots):
            low, high = problem.lower[g, k], problem.upper[g, k]
            if low > 0 or high < min(k + 1, len(columns)):
                row(columns[:, : k + 1].ravel(), low, high)
        width = int(problem.run_within[g])
        for start in range(slots - width + 1 if width > 1 else 0):
            row(columns[:, start : start + width].ravel(), 0, problem.run_most[g])
    place = np.repeat(np.arange(len(across)), [len(columns) for columns in across])
    ones = np.ones(len(place))
    matrix = coo_array((ones, (place, np.concatenate(across))), shape=(len(across), items * slots))
    return matrix, np.array(least), np.array(most)
