"""Feasibility: find a page that satisfies all constraints, or prove that none exists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from recsys.domain.types import F64, I32
from recsys.guidance.solver.kernels.dfs import DONE, depth_first
from recsys.guidance.solver.kernels.instance import Instance, build_instance
from recsys.guidance.solver.kernels.page_search import initial_state, refine, step_size
from recsys.guidance.solver.kernels.search_state import State
from recsys.guidance.solver.milp import any_page
from recsys.guidance.solver.page_budget import pricing_work, search_work
from recsys.guidance.solver.page_constraints import I64, PageConstraints
from recsys.guidance.solver.presolve import ReducedProblem, presolve

DEPTH_FIRST_NODES = 20_000
"""Node limit of the depth-first search, before HiGHS is run."""

HIGHS_NODES = 20_000
"""Node limit of HiGHS, before feasibility is reported as unknown."""

DUAL_COLUMNS, DUAL_ROUNDS, DUAL_STEPS = 300, 6, 15
"""Working set, rounds and steps of the proof of infeasibility by prices. All items are priced after each round."""

_ARRAY_FLAGS: tuple[Literal["C"], Literal["W"]] = (
    "C",
    "W",
)  # C-contiguous and writeable, as the kernels are compiled for


@dataclass(frozen=True)
class SearchBudget:
    """Limits on a feasibility search beyond the pricing search, which takes about a millisecond.

    depth_first, highs  node limits of the depth-first search and of HiGHS; 0 = skip
    expired             returns whether the deadline has passed; if so, only the pricing search is run
    charge              counts the work of a search (see `PageBudget.charge`)
    """

    depth_first: int = DEPTH_FIRST_NODES
    highs: int = HIGHS_NODES
    expired: Callable[[], bool] = lambda: False
    charge: Callable[[float], None] = lambda work: None


UNLIMITED = SearchBudget()


@dataclass(frozen=True)
class FeasibilityResult:
    """A feasible page [K] of candidates, or None; `proven` is False if the search ended without an answer."""

    page: I32 | None
    proven: bool


def find_feasible(
    value: F64, attention: F64, constraints: PageConstraints, budget: SearchBudget = UNLIMITED
) -> FeasibilityResult:
    """Find a feasible page or prove that none exists; return neither if the budget runs out.

    value [N], attention [K]: the page tends to have a high value, but is not optimised
    """
    order: I64 = np.lexsort((constraints.tie, -value))
    page, feasible = find_by_pricing(value, attention, constraints, order, rounds=((3, 8), (6, 32)))
    budget.charge(pricing_work(constraints))
    if page is not None or not feasible:
        return FeasibilityResult(page, proven=True)
    if not budget.depth_first or budget.expired():
        return FeasibilityResult(None, proven=False)
    problem = presolve(value, attention, constraints)
    budget.charge(search_work(constraints, budget.depth_first))
    if not problem.feasible:
        return FeasibilityResult(None, proven=True)
    state, page = search_depth_first(problem, budget.depth_first)
    if page is not None:
        return FeasibilityResult(problem.item[page], proven=True)
    if state == DONE:
        return FeasibilityResult(None, proven=True)
    if not budget.highs:
        return FeasibilityResult(None, proven=False)
    if is_infeasible_by_dual(constraints, order):
        return FeasibilityResult(None, proven=True)
    answer = any_page(problem, budget.highs)
    return FeasibilityResult(
        None if answer.page is None else problem.item[answer.page], answer.proven or answer.page is not None
    )


def find_by_pricing(
    value: F64, attention: F64, constraints: PageConstraints, order: I64, rounds: tuple[tuple[int, int], ...]
) -> tuple[I32 | None, bool]:
    """Search for a page by Lagrangian pricing and beam search; the flag is False if the limits contradict each other.

    rounds: (Polyak steps, beam width) of each round
    """
    feasible, instance = build_ordered(value, attention, constraints, order)
    if not feasible:
        return None, False
    state = _search_by_pricing(instance, rounds)
    return (order[state.incumbent].astype(np.int32) if constraints.slots and state.incumbent[0] >= 0 else None), True


def nearly_feasible(value: F64, attention: F64, constraints: PageConstraints) -> I32 | None:
    """Return a page [K] with few and small violations, the assignment at the Lagrangian prices.

    Returns None if the limits contradict each other.
    """
    order: I64 = np.lexsort((constraints.tie, -value))
    feasible, instance = build_ordered(value, attention, constraints, order)
    if not feasible or not constraints.slots:
        return None
    state = _search_by_pricing(instance, ((8, 0),))
    items = instance.pin.copy()
    items[instance.pin < 0] = state.assigned_items
    page: I32 = order[state.incumbent if state.incumbent[0] >= 0 else items].astype(np.int32)
    return page


def _search_by_pricing(instance: Instance, rounds: tuple[tuple[int, int], ...]) -> State:
    """Run rounds of pricing and beam search until there is an incumbent; return the search state."""
    slots = len(instance.pin)
    state = initial_state(instance, 24 + 3 * slots, working_set_size := 24 + 2 * slots, 15, 15, 0.25)
    for steps, width in rounds:
        if state.incumbent[0] >= 0:
            break
        refine(instance, state, step_size(instance, 0.25), working_set_size, steps, width, 1, 0, False)
    return state


def build_ordered(value: F64, attention: F64, constraints: PageConstraints, order: I64) -> tuple[bool, Instance]:
    """Build the instance from constraints, converting arrays to the one memory layout that kernels are compiled for."""
    b = constraints
    numbers = (b.lower, b.upper, b.row_control, b.code, b.at_most, b.within, b.before, b.spacing_control, b.pin_item)
    lower, upper, row_control, code, at_most, within, before, spacing_control, pin_item = (
        np.require(part, np.int32, _ARRAY_FLAGS) for part in numbers
    )
    return build_instance(
        np.require(value, np.float64, _ARRAY_FLAGS),
        np.require(attention, np.float64, _ARRAY_FLAGS),
        np.require(order, np.int64, _ARRAY_FLAGS),
        np.require(b.member, np.bool_, _ARRAY_FLAGS),
        lower, upper, row_control, code, at_most, within, before, spacing_control, pin_item,
        np.require(b.pin_slot, np.int32, _ARRAY_FLAGS),
    )  # fmt: skip


def search_depth_first(problem: ReducedProblem, nodes: int = DEPTH_FIRST_NODES) -> tuple[int, I32 | None]:
    """Run the depth-first search with nogoods; return its status and a page [K] of the problem's items, or None."""
    family = np.arange(len(problem.duplicate_of), dtype=np.int32)
    for i, twin in enumerate(problem.duplicate_of):
        if twin >= 0:
            family[i] = family[twin]
    size = np.bincount(family, minlength=len(family)).astype(np.int32)
    page = np.full(len(problem.attention), -1, np.int32)
    if not len(page):
        return DONE, page if problem.feasible else None
    status, is_found = depth_first(
        problem.member, problem.lower, problem.upper, problem.window_limit, problem.window_length, problem.pin,
        problem.duplicate_of, family, size, page, nodes,
    )  # fmt: skip
    return status, page if is_found else None


def is_proven_infeasible(constraints: PageConstraints, order: I64) -> bool:
    """Return whether presolve or the dual bound prove that no page exists; False proves nothing."""
    problem = presolve(np.zeros(len(order)), np.ones(constraints.slots), constraints)
    return not problem.feasible or is_infeasible_by_dual(constraints, order)


def is_infeasible_by_dual(constraints: PageConstraints, order: I64) -> bool:
    """Return whether pricing proves infeasibility: with all values 0, a dual bound below 0."""
    n = len(order)
    columns = min(n, DUAL_COLUMNS)
    _, instance = build_ordered(np.zeros(n), np.ones(constraints.slots), constraints, order)
    state = initial_state(instance, columns, columns, 10, 0, 1e6)  # for values of 0 this gives a step length of 1
    for _ in range(DUAL_ROUNDS):
        refine(instance, state, 1.0, columns, DUAL_STEPS, 0, 0, 0, False)
        if state.incumbent[0] >= 0:
            return False
        if state.bounds[1] < -1e-6:
            return True
    return False
