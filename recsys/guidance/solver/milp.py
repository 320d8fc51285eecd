"""The page as a mixed-integer program, solved by HiGHS. Used when the search is inconclusive, and for audits.

The effort limit is a number of nodes; without a time limit HiGHS is deterministic.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds as VariableBounds  # type: ignore[import-untyped]
from scipy.optimize import LinearConstraint, milp
from scipy.sparse import coo_array  # type: ignore[import-untyped]

from recsys.domain.types import F64, I32
from recsys.guidance.solver.presolve import ReducedProblem

_INFEASIBLE = 2  # status of scipy.optimize.milp


@dataclass(frozen=True)
class MilpResult:
    """page [K] of the problem's items, or None; dual bound (-inf = infeasible); whether the result is proven."""

    page: I32 | None
    bound: float
    proven: bool


def solve_optimal(problem: ReducedProblem, nodes: int | None = None, limit_s: float | None = None) -> MilpResult:
    """Return the best page or prove that none exists. `nodes` or, for benchmarks, `limit_s` limit the effort."""
    return _milp(problem, np.outer(problem.value, problem.attention), nodes, limit_s)


def any_page(problem: ReducedProblem, nodes: int | None = None) -> MilpResult:
    """Return any feasible page or prove that none exists."""
    return _milp(problem, np.zeros((len(problem.value), len(problem.attention))), nodes)


def _milp(problem: ReducedProblem, objective: F64, nodes: int | None, limit_s: float | None = None) -> MilpResult:
    """Maximise sum objective[i, k] x[i, k] over binary x, with one item per slot and at most one slot per item."""
    if not problem.feasible:
        return MilpResult(None, -np.inf, True)
    items, slots = objective.shape
    if not slots:
        return MilpResult(np.zeros(0, np.int32), 0.0, True)
    matrix, lower, upper = _rows(problem)
    variable_upper = np.ones((items, slots))
    variable_lower = np.zeros((items, slots))
    for k in np.flatnonzero(problem.pin >= 0):
        variable_lower[problem.pin[k], k] = 1.0
    options: dict[str, float | int] = {"mip_rel_gap": 0.0}
    if nodes is not None:
        options["node_limit"] = nodes
    if limit_s is not None:
        options["time_limit"] = limit_s
    result = milp(
        -objective.ravel(),
        integrality=np.ones(items * slots),
        bounds=VariableBounds(variable_lower.ravel(), variable_upper.ravel()),
        constraints=LinearConstraint(matrix, lower, upper),
        options=options,
    )
    if result.x is None:
        return MilpResult(None, -np.inf if result.status == _INFEASIBLE else np.inf, result.status == _INFEASIBLE)
    page = result.x.reshape(items, slots).argmax(axis=0).astype(np.int32)
    bound = -result.mip_dual_bound if result.mip_dual_bound is not None else np.inf
    return MilpResult(page, float(bound), result.status == 0)


def _rows(problem: ReducedProblem) -> tuple[coo_array, F64, F64]:
    """Return the constraint matrix over the flattened x[i, k], and the lower and upper limit of each row."""
    items, slots = len(problem.value), len(problem.attention)
    row_columns: list[I32] = []
    lower: list[float] = []
    upper: list[float] = []

    def row(columns: I32, minimum: float, maximum: float) -> None:
        row_columns.append(columns)
        lower.append(minimum)
        upper.append(maximum)

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
        width = int(problem.window_length[g])
        for start in range(slots - width + 1 if width > 1 else 0):
            row(columns[:, start : start + width].ravel(), 0, problem.window_limit[g])
    row_index = np.repeat(np.arange(len(row_columns)), [len(columns) for columns in row_columns])
    coefficients = np.ones(len(row_index))
    matrix = coo_array(
        (coefficients, (row_index, np.concatenate(row_columns))), shape=(len(row_columns), items * slots)
    )
    return matrix, np.array(lower), np.array(upper)
