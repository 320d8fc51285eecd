"""Does any page keep all bounds? Quick where one is easily found, certain where there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from recsys.domain.types import F64, I32
from recsys.guidance.solver.kernels.dfs import DONE, depth_first
from recsys.guidance.solver.kernels.instance import Instance, build_instance
from recsys.guidance.solver.kernels.page_search import State, refine, start, step_size
from recsys.guidance.solver.milp import any_page
from recsys.guidance.solver.page_constraints import I64, PageConstraints
from recsys.guidance.solver.presolve import ReducedProblem, presolve

DEPTH_FIRST_NODES = 20_000
"""Of the search that remembers dead ends, before HiGHS is asked."""

HIGHS_NODES = 20_000
"""Of HiGHS, before a question of feasibility is left open (and reported so)."""


_LIE: tuple[Literal["C"], Literal["W"]] = ("C", "W")  # in rows, writeable: what kernels are compiled for


@dataclass(frozen=True)
class SearchBudget:
    """What the question may cost beyond prices, which take about a millisecond.

    depth_first, highs  nodes of the two searches; 0 = not asked
    late                whether it is too late for anything but prices
    """

    depth_first: int = DEPTH_FIRST_NODES
    highs: int = HIGHS_NODES
    late: Callable[[], bool] = lambda: False


UNLIMITED = SearchBudget()


@dataclass(frozen=True)
class FeasibilityResult:
    """page [K] candidates, or None: there is none, proven if `settled`, else none was found within the effort."""

    page: I32 | None
    settled: bool


NONE = FeasibilityResult(None, settled=False)
"""None was looked for."""


def find_feasible(
    value: F64, attention: F64, bounds: PageConstraints, haste: SearchBudget = UNLIMITED
) -> FeasibilityResult:
    """Some page that keeps all bounds, a good one if that is easy, or the proof that there is none; neither in haste.

    value [N], attention [K]
    """
    order: I64 = np.lexsort((bounds.tie, -value))
    page, possible = by_prices(value, attention, bounds, order, turns=((3, 8), (6, 32)))
    if page is not None or not possible:
        return FeasibilityResult(page, settled=True)
    if not haste.depth_first or haste.late():
        return FeasibilityResult(None, settled=False)
    problem = presolve(value, attention, bounds)
    if not problem.possible:
        return FeasibilityResult(None, settled=True)
    state, page = search_depth_first(problem, haste.depth_first)
    if page is not None:
        return FeasibilityResult(problem.item[page], settled=True)
    if state == DONE:
        return FeasibilityResult(None, settled=True)
    if not haste.highs:
        return FeasibilityResult(None, settled=False)
    if _dual_infeasible(bounds, order):
        return FeasibilityResult(None, settled=True)
    answer = any_page(problem, haste.highs)
    return FeasibilityResult(
        None if answer.page is None else problem.item[answer.page], answer.settled or answer.page is not None
    )


def by_prices(
    value: F64, attention: F64, bounds: PageConstraints, order: I64, turns: tuple[tuple[int, int], ...]
) -> tuple[I32 | None, bool]:
    """A page by prices and partial pages; False where the bounds contradict each other."""
    possible, layout = build_ordered(value, attention, bounds, order)
    if not possible:
        return None, False
    state = _by_dual(layout, turns)
    return (order[state.page].astype(np.int32) if bounds.slots and state.page[0] >= 0 else None), True


def nearly_feasible(value: F64, attention: F64, bounds: PageConstraints) -> I32 | None:
    """A page [K] that breaks few bounds, and these by little: the assignment by the prices on them.

    None for bounds that contradict each other.
    """
    order: I64 = np.lexsort((bounds.tie, -value))
    possible, layout = build_ordered(value, attention, bounds, order)
    if not possible or not bounds.slots:
        return None
    state = _by_dual(layout, ((8, 0),))
    items = layout.pin.copy()
    items[layout.pin < 0] = state.polyak_level
    page: I32 = order[state.page if state.page[0] >= 0 else items].astype(np.int32)
    return page


def _by_dual(layout: Instance, turns: tuple[tuple[int, int], ...]) -> State:
    """Prices and what they found, turn by turn until there is a page."""
    slots = len(layout.pin)
    state = start(layout, 24 + 3 * slots, most := 24 + 2 * slots, 15, 15, 0.25)
    for steps, width in turns:
        if state.page[0] >= 0:
            break
        refine(layout, state, step_size(layout, 0.25), most, steps, width, 1, 0, False)
    return state


def build_ordered(value: F64, attention: F64, bounds: PageConstraints, order: I64) -> tuple[bool, Instance]:
    """`lay_out` of bounds, whatever way their arrays lie in memory: kernels are compiled for one way only."""
    b = bounds
    numbers = (b.lower, b.upper, b.row_control, b.code, b.at_most, b.within, b.before, b.space_control, b.pin_item)
    lower, upper, row_control, code, at_most, within, before, space_control, pin_item = (
        np.require(part, np.int32, _LIE) for part in numbers
    )
    return build_instance(
        np.require(value, np.float64, _LIE), np.require(attention, np.float64, _LIE), np.require(order, np.int64, _LIE),
        np.require(b.member, np.bool_, _LIE), lower, upper, row_control, code, at_most, within, before, space_control,
        pin_item, np.require(b.pin_slot, np.int32, _LIE),
    )  # fmt: skip


def search_depth_first(problem: ReducedProblem, nodes: int = DEPTH_FIRST_NODES) -> tuple[int, I32 | None]:
    """The search that remembers dead ends: whether it was complete, and a page of the problem's items."""
    family = np.arange(len(problem.twin), dtype=np.int32)
    for i, twin in enumerate(problem.twin):
        if twin >= 0:
            family[i] = family[twin]
    size = np.bincount(family, minlength=len(family)).astype(np.int32)
    page = np.full(len(problem.attention), -1, np.int32)
    if not len(page):
        return DONE, page if problem.possible else None
    state, found = depth_first(
        problem.member, problem.lower, problem.upper, problem.run_most, problem.run_within, problem.pin, problem.twin,
        family, size, page, nodes,
    )  # fmt: skip
    return state, page if found else None


def _dual_infeasible(bounds: PageConstraints, order: I64) -> bool:
    """Whether prices alone prove that there is no page: with all values 0, a bound below 0."""
    n = len(order)
    _, layout = build_ordered(np.zeros(n), np.ones(bounds.slots), bounds, order)
    state = start(layout, n, n, 10, 0, 1e6)  # values of 0 have no size: the stride is 1e6 x its least, 1
    refine(layout, state, 1.0, n, 60, 0, 0, 0, False)
    return bool(state.page[0] < 0 and state.known[1] < -1e-6)
