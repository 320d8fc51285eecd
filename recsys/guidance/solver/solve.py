"""The best page under bounds. Arrays in, arrays out; everything else about guidance lives elsewhere.

maximise   sum_k attention[k] * value[chosen[k]]
subject to all that `Bounds` say

The road: prices on the limits (`kernels.prices`) make a page fall apart into an assignment, whose worth no page can
exceed; partial pages are then built slot by slot in order of what they lose against that bound (`kernels.layers`), made
better by small moves (`kernels.polish`), and prices, bound and page improve in turns (`kernels.page`) until the page is
proven to be the best one or the effort is spent.

When no page keeps everything, controls give way lexicographically: in order of importance each one keeps as much as
the more important ones leave possible, by the least number of slots. Nothing gives way silently: `Solution.relaxed`.
Under a deadline there may be no time to find the least, or to be sure that there is no page: `Solution.settled`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from recsys.domain.types import F64, I32
from recsys.guidance.solver.feasibility import (
    NONE,
    UNLIMITED,
    SearchBudget,
    build_ordered,
    find_feasible,
    search_depth_first,
)
from recsys.guidance.solver.kernels.instance import Instance
from recsys.guidance.solver.kernels.page_search import State, is_optimal, refine, solve_without_rows, start, step_size
from recsys.guidance.solver.kernels.sensitivity import leave_one_out, price_report
from recsys.guidance.solver.milp import solve_optimal
from recsys.guidance.solver.page_constraints import I64, PageConstraints, Solution
from recsys.guidance.solver.pin_prices import pin_prices, pins_alone
from recsys.guidance.solver.presolve import presolve
from recsys.guidance.solver.relaxation import Relaxation, relax, relaxation, violations
from recsys.guidance.solver.relaxation_cache import RelaxationCache

__all__ = ["EFFORTS", "Effort", "PageConstraints", "Solution", "is_late_after", "solve", "warm"]


@dataclass(frozen=True)
class Effort:
    """How hard to try. Counted in steps and partial pages, so that the answer does not depend on how busy a machine is.

    rough, fine  steps of the first prices, on the first working set and on the promising items
    turns        exact steps of the prices, and partial pages kept, of each turn; `short` the same for pages of at most
                 SHORT slots, where partial pages cost less and are worth more
    last         the same for pages of at most LONG slots within a relative gap, where it is likely to end in a proof
    enough       relative gap at which a page is good enough
    tries        small moves looked at on the page that a turn finds
    explain      find out who would be on the page without each control
    certain      let HiGHS finish the proof
    """

    rough: int
    fine: int
    turns: tuple[tuple[int, int], ...]
    short: tuple[tuple[int, int], ...]
    last: tuple[tuple[int, int, float], ...] = ()
    enough: float = 0.0
    tries: int = 300
    explain: bool = True
    certain: bool = False


EFFORTS: dict[str, Effort] = {
    "fast": Effort(
        rough=20,
        fine=20,
        turns=((4, 4), (8, 12), (10, 24)),
        short=((4, 12), (8, 36), (10, 72)),
        enough=4e-3,
        tries=100,
        explain=False,
    ),
    "adaptive": Effort(
        rough=20,
        fine=25,
        turns=((3, 5), (10, 16), (12, 50), (15, 250)),
        short=((3, 15), (10, 48), (12, 150), (15, 6000)),
        last=((15, 1000, 2e-4), (20, 4000, 1e-4)),
    ),
    "exact": Effort(
        rough=20,
        fine=25,
        turns=((3, 5), (10, 16), (12, 50), (20, 250), (30, 2000)),
        short=((3, 15), (10, 48), (12, 150), (15, 6000)),
        certain=True,
    ),
}

STRIDE = 0.2  # of the first price steps, relative to the value of the first item that has no slot
HUGE = 1e12  # play equivalents: beyond this, sums lose what pages differ by
SHORT, LONG = 18, 36  # slots
RETRY_FACTOR = 2.0  # times as long as the turn before it a turn takes, about: it is begun only if so much time is left
DEADLINE_FACTOR = 5.0  # deadlines that a page may take where it is not known whether one exists
SEARCHED = 300  # nodes of the search for a page then: some 10 ms


def solve(
    value: F64,
    attention: F64,
    bounds: PageConstraints,
    *,
    effort: Literal["fast", "adaptive", "exact"] = "adaptive",
    deadline_s: float | None = None,
    clock: Callable[[], float] | None = None,
    memory: RelaxationCache | None = None,
) -> Solution:
    """The best page found, what gave way for it, and what is proven.

    value      [N]     play equivalents, finite
    attention  [>= K]  weight of each slot, > 0 and falling
    deadline_s, clock  after so many seconds of `clock` no better page is looked for. Where none was found that keeps
                       all bounds, one is looked for within PATIENCE deadlines; after that, controls give way unproven
                       (`settled`). Without a clock all is settled and the answer a function of the other inputs.
    memory             relaxations of earlier pages, so that the same want is not looked into twice

    Raises ValueError for values or attention that are not finite, or of the wrong length.
    """
    n, slots = len(bounds), bounds.slots
    value, attention = np.asarray(value, np.float64), np.asarray(attention, np.float64)[:slots]
    if value.shape != (n,) or attention.shape != (slots,):
        raise ValueError(
            f"value {value.shape} and attention {attention.shape} do not fit {n} candidates, {slots} slots"
        )
    if not (np.abs(value) < HUGE).all() or not (np.abs(attention) < HUGE).all():
        raise ValueError(f"value and attention must be finite, and below {HUGE:g}")
    work = _SolveState(
        value, attention, EFFORTS[effort], remaining(deadline_s, clock), _search_budget(deadline_s, clock)
    )
    nothing = np.zeros(bounds.controls, np.int32)
    solution = work.solve(bounds, Relaxation(nothing, nothing == 0, nothing[:0]))
    if solution is None:
        kept = relaxation(value, attention, bounds, memory, work.haste)
        work = replace(work, left=remaining(deadline_s, clock))  # a page that gave way is still to be a good one
        # where the effort is too small to find a page again, the one that the relaxation left stands
        solution = work.solve(bounds.with_slack(kept.by), kept, by_prices_only=len(kept.page) > 0)
        if solution is None:
            kept = kept if len(kept.page) else relax(value, attention, bounds, work.haste)
            solution = _unoptimised(value, attention, kept)
            for control, price in pins_alone(value, attention, bounds.with_slack(kept.by)):
                solution.price[control] = price
        if not kept.settled.all():
            solution = _with_counts(bounds, solution)
    return _with_status(value, attention, bounds, solution) if effort == "exact" else solution


def warm() -> None:
    """Compile the kernels (or load them from their cache), so that no page waits for it."""
    crowd = np.array([[True, True, False, False]])
    bounds = replace(
        PageConstraints.free(np.arange(4, dtype=np.int64), 2),
        active=np.ones(1, np.bool_),
        member=crowd,
        lower=np.array([[0, 0]], np.int32),
        upper=np.array([[0, 1]], np.int32),
        row_control=np.zeros(1, np.int32),
    )
    value, attention = np.array([4.0, 3.0, 2.0, 1.0]), np.array([1.0, 0.5])
    solve(value, attention, bounds)
    find_feasible(value, attention, bounds)
    search_depth_first(presolve(value, attention, bounds))


def is_late_after(seconds: float | None, clock: Callable[[], float] | None) -> Callable[[], bool]:
    """Whether so many seconds from now have passed, by a clock; never without one."""
    left = remaining(seconds, clock)
    return lambda: left() <= 0.0


def remaining(seconds: float | None, clock: Callable[[], float] | None) -> Callable[[], float]:
    """How much is left of so many seconds from now, by a clock; without end without one."""
    if seconds is None or clock is None:
        return lambda: math.inf
    end = clock() + seconds
    return lambda: end - clock()


def _search_budget(deadline_s: float | None, clock: Callable[[], float] | None) -> SearchBudget:
    """What may be spent on finding out whether there is any page."""
    if deadline_s is None or clock is None:
        return UNLIMITED
    return SearchBudget(SEARCHED, 0, is_late_after(DEADLINE_FACTOR * deadline_s, clock))


@dataclass(frozen=True)
class _SolveState:
    """One question: what is best, how hard to try, and how many seconds are left."""

    value: F64
    attention: F64
    effort: Effort
    left: Callable[[], float]
    haste: SearchBudget = UNLIMITED

    def solve(self, bounds: PageConstraints, kept: Relaxation, by_prices_only: bool = False) -> Solution | None:
        """The best page under bounds that were relaxed so far; None where none was found."""
        order: I64 = np.lexsort((bounds.tie, -self.value))
        possible, layout = build_ordered(self.value, self.attention, bounds, order)
        if not possible:
            return None
        falling = bool((self.attention[1:] <= self.attention[:-1]).all())
        if falling and solve_without_rows(layout):
            page = order[: bounds.slots].astype(np.int32)
            return _unoptimised(self.value, self.attention, replace(kept, page=page))
        state = self._page(layout, bounds, order, falling, by_prices_only)
        if state is None:
            return None
        if self.effort.certain and not is_optimal(state):
            self._prove(bounds, order, state)
        return self._solution(layout, state, bounds, order, kept)

    def _page(
        self, layout: Instance, bounds: PageConstraints, order: I64, falling: bool, by_prices_only: bool
    ) -> State | None:
        """Turn by turn, until proven, good enough, or late."""
        effort, slots = self.effort, bounds.slots
        state = start(layout, 24 + 3 * slots, most := 24 + 8 * slots // 5, effort.rough, effort.fine, STRIDE)
        turns = effort.short if slots <= SHORT else effort.turns
        last = effort.last if slots <= LONG else ()
        left, took = self.left(), 0.0
        for number, (steps, width, gap) in enumerate((*((*one, 0.0) for one in turns), *last)):
            enough = _is_close(state, effort.enough) or (number >= len(turns) and not _is_close(state, gap))
            if state.page[0] >= 0 and (enough or left <= RETRY_FACTOR * took):
                break
            refine(layout, state, step_size(layout, STRIDE), most, steps, width, 1, effort.tries, falling)
            before, left = left, self.left()
            took = before - left if left < math.inf else 0.0
        if state.page[0] < 0:
            some = NONE if by_prices_only else find_feasible(self.value, self.attention, bounds, self.haste)
            if some.page is None:
                return None
            self._take(bounds, order, state, some.page)
        return state

    def _prove(self, bounds: PageConstraints, order: I64, state: State) -> None:
        """The proof by HiGHS, however long it takes."""
        problem = presolve(self.value, self.attention, bounds)
        answer = solve_optimal(problem)
        if answer.page is not None:
            self._take(bounds, order, state, problem.item[answer.page])
        bound = state.known[0] if answer.settled else answer.bound
        state.known[1] = max(state.known[0], min(state.known[1], bound))

    def _take(self, bounds: PageConstraints, order: I64, state: State, chosen: I32) -> None:
        """Another page [K] of candidates, if it is better."""
        worth = float(self.attention @ self.value[chosen])
        if worth > state.known[0]:
            place = np.empty(len(order), np.int64)
            place[order] = np.arange(len(order))
            state.page[:], state.known[0] = place[chosen], worth
            state.known[1] = max(state.known[1], worth)

    def _solution(
        self, layout: Instance, state: State, bounds: PageConstraints, order: I64, kept: Relaxation
    ) -> Solution:
        chosen = order[state.page].astype(np.int32)
        controls, proven = bounds.controls, is_optimal(state)
        price, credit = np.zeros(controls), np.zeros((controls, len(order)))
        price_report(layout, state, order, price, credit)
        stays = np.zeros((controls, len(order)), np.bool_)
        stays[:, chosen] = True
        pair = np.full((len(order), 2), -1, np.int32)
        if self.effort.explain:
            leave_one_out(layout, state, order, price, credit, stays, pair)
        for control, estimate in pin_prices(layout, state, bounds, order):
            price[control] = estimate
        worth = math.fsum(self.attention * self.value[chosen])
        return Solution(
            chosen=chosen,
            relaxed=kept.by,
            minimal_proven=kept.settled,
            price=price,
            resolved=np.zeros(controls, np.bool_),
            credit=credit,
            on_page_without=stays,
            joint_cause=pair,
            value=worth,
            bound=worth if proven else max(worth, float(state.known[1])),
            proven=proven,
        )


def _is_close(state: State, enough: float) -> bool:
    best, bound = state.known
    return is_optimal(state) or bool(bound - best <= enough * abs(best))


def _with_counts(bounds: PageConstraints, solution: Solution) -> Solution:
    """What was relaxed in haste by more than the page breaks is not said to have given way so far."""
    by = bounds.violated_by(solution.chosen)
    settled = (solution.minimal_proven & (by == solution.relaxed)) | (by <= violations(bounds, by))
    return replace(solution, relaxed=by, minimal_proven=settled)


def _unoptimised(value: F64, attention: F64, kept: Relaxation) -> Solution:
    """The page of a relaxation, without prices; the best values in the best slots are its bound."""
    none = np.zeros(len(kept.by))
    worth = math.fsum(attention * value[kept.page])
    top = math.fsum(np.sort(attention) * np.sort(value)[len(value) - len(attention) :])
    return Solution(
        chosen=kept.page,
        relaxed=kept.by,
        minimal_proven=kept.settled,
        price=none,
        resolved=np.full(len(none), worth >= top),
        credit=np.zeros((len(none), len(value))),
        on_page_without=np.isin(np.arange(len(value)), kept.page)[None, :].repeat(len(none), axis=0),
        joint_cause=np.full((len(value), 2), -1, np.int32),
        value=worth,
        bound=max(worth, top),
        proven=worth >= top,
    )


def _with_status(value: F64, attention: F64, bounds: PageConstraints, solution: Solution) -> Solution:
    """Exact prices: solve again with each control one unit looser."""
    price, resolved = solution.price.copy(), solution.resolved.copy()
    work = _SolveState(value, attention, EFFORTS["exact"], lambda: math.inf)
    for c in np.flatnonzero(bounds.active).tolist():
        looser = solution.relaxed.copy()
        looser[c] += 1
        other = work.solve(bounds.with_slack(looser), Relaxation(looser, solution.minimal_proven, solution.chosen))
        if other is not None:
            price[c], resolved[c] = max(0.0, other.value - solution.value), other.proven and solution.proven
    return replace(solution, price=price, resolved=resolved)
