"""The page solver: the best page under constraints, with arrays in and arrays out.

maximise   sum_k attention[k] * value[chosen[k]]
subject to `PageConstraints`

Lagrangian prices on the limits reduce the problem to an assignment, which gives a dual bound. Beam search builds pages
slot by slot in order of their loss against that bound, and local search improves them. Rounds alternate between prices
and pages until the incumbent is proven optimal or the effort is spent.

If no page is feasible, controls are relaxed lexicographically: in order of importance, each one by the minimum number
of slots that the more important ones allow. `Solution.relaxed` reports every relaxation. Under a deadline or a budget
the relaxation may be larger than the minimum or the infeasibility unproven; see `Solution.minimal_proven`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from recsys.domain.types import F64, I32
from recsys.guidance.solver.effort import EFFORTS, Effort
from recsys.guidance.solver.feasibility import (
    UNLIMITED,
    SearchBudget,
    build_ordered,
    find_feasible,
    is_proven_infeasible,
    search_depth_first,
)
from recsys.guidance.solver.kernels.instance import Instance
from recsys.guidance.solver.kernels.page_search import initial_state, refine, step_size
from recsys.guidance.solver.kernels.search_state import State, is_greedy_feasible, is_optimal
from recsys.guidance.solver.kernels.sensitivity import leave_one_out, price_report
from recsys.guidance.solver.milp import solve_optimal
from recsys.guidance.solver.page_budget import (
    RELAXATION_SHARE,
    SOLVE_SHARE,
    PageBudget,
    RoundMeter,
    build_work,
    leave_one_out_work,
    proof_work,
    search_work,
)
from recsys.guidance.solver.page_constraints import I64, PageConstraints, Solution
from recsys.guidance.solver.pin_prices import pin_prices, standalone_pin_prices
from recsys.guidance.solver.presolve import presolve
from recsys.guidance.solver.relaxation import Relaxation, cached_relaxation, relax, violations
from recsys.guidance.solver.relaxation_cache import RelaxationCache, cache_key

__all__ = ["EFFORTS", "Effort", "PageConstraints", "Solution", "is_late_after", "solve", "warm"]


RELATIVE_STEP = 0.2  # length of the first price steps, relative to the value of the first item below the page
MAX_ABS_VALUE = 1e12  # play equivalents: beyond this, rounding of sums hides the differences between pages
SHORT_PAGE, LONG_PAGE = 18, 36  # maximum slots
RETRY_FACTOR = 2.0  # expected duration of a round relative to the last one; without this much time left, it is skipped
DEADLINE_FACTOR = 5.0  # multiple of the deadline that the search for a feasible page may take
SEARCH_NODES = 300  # node limit of the depth-first search under a deadline, about 10 ms
NARROW_ROUNDS = 2  # without a page after so many rounds, infeasibility is tested before the wider ones


def solve(
    value: F64,
    attention: F64,
    constraints: PageConstraints,
    *,
    effort: Literal["fast", "adaptive", "exact"] = "adaptive",
    deadline_s: float | None = None,
    clock: Callable[[], float] | None = None,
    cache: RelaxationCache | None = None,
    budget: PageBudget | None = None,
    reuse: Solution | None = None,
) -> Solution:
    """Return the best page found, the relaxation it needed, and what is proven about it.

    value      [N]     play equivalents, finite
    attention  [>= K]  weight of each slot, > 0 and descending
    deadline_s, clock  after this many seconds of `clock`, the page is not improved further. If no feasible page has
                       been found by then, the search for one continues for up to DEADLINE_FACTOR deadlines; after
                       that, controls are relaxed without proof (`minimal_proven`). Without a clock there is no
                       deadline, and the result depends only on the other inputs
    cache              relaxations of earlier pages
    budget             limit on all work for the page, whatever the deadline; records what it cuts short. Default: none
    reuse              solution for other values under the same constraints, whose relaxation is used again

    Raises ValueError if value or attention is not finite or has the wrong length.
    """
    n, slots = len(constraints), constraints.slots
    value, attention = np.asarray(value, np.float64), np.asarray(attention, np.float64)[:slots]
    if value.shape != (n,) or attention.shape != (slots,):
        raise ValueError(
            f"value {value.shape} and attention {attention.shape} do not fit {n} candidates and {slots} slots"
        )
    if not (np.abs(value) < MAX_ABS_VALUE).all() or not (np.abs(attention) < MAX_ABS_VALUE).all():
        raise ValueError(f"value and attention must be finite and smaller than {MAX_ABS_VALUE:g} in magnitude")
    budget = budget or PageBudget()
    search = _SolveState(
        value, attention, EFFORTS[effort], seconds_left(deadline_s, clock),
        _search_budget(deadline_s, clock, budget), budget, cache,
    )  # fmt: skip
    no_slack = np.zeros(constraints.controls, np.int32)
    solution = None
    if reuse is None or not reuse.relaxed.any():
        solution = search.solve(constraints, Relaxation(no_slack, no_slack == 0, no_slack[:0]))
    if solution is None:
        if reuse is None:
            relaxation = cached_relaxation(value, attention, constraints, cache, search.search_budget)
        else:
            relaxation = Relaxation(reuse.relaxed, reuse.minimal_proven, reuse.chosen)
        # a new deadline to optimise the relaxed page
        search = replace(search, seconds_left=seconds_left(deadline_s, clock))
        solution = _solve_relaxed(search, constraints, relaxation)
    if "relaxation" in budget.cut and not solution.relaxed.any():  # a page was found nevertheless
        budget.cut ^= {"relaxation", "page"} if "page" not in budget.cut else {"relaxation"}
    return _with_exact_prices(value, attention, constraints, solution) if effort == "exact" else solution


def _solve_relaxed(search: _SolveState, constraints: PageConstraints, relaxation: Relaxation) -> Solution:
    """Return the best page found under relaxed constraints; at worst, the page of the relaxation."""
    value, attention, solution = search.value, search.attention, None
    if not len(relaxation.page) or search.budget.allows("page", SOLVE_SHARE):
        solution = search.solve(constraints.with_slack(relaxation.slack), relaxation)
    if solution is None:
        if not len(relaxation.page):
            relaxation = relax(value, attention, constraints, search.search_budget)
        solution = _unoptimised(value, attention, relaxation)
        for control, price in standalone_pin_prices(value, attention, constraints.with_slack(relaxation.slack)):
            solution.price[control] = price
    return solution if relaxation.minimal_proven.all() else _with_counts(constraints, solution)


def warm() -> None:
    """Compile the kernels or load them from the numba cache, so that the first page is not delayed."""
    member = np.array([[True, True, False, False]])
    constraints = replace(
        PageConstraints.free(np.arange(4, dtype=np.int64), 2),
        active=np.ones(1, np.bool_),
        member=member,
        lower=np.array([[0, 0]], np.int32),
        upper=np.array([[0, 1]], np.int32),
        row_control=np.zeros(1, np.int32),
    )
    value, attention = np.array([4.0, 3.0, 2.0, 1.0]), np.array([1.0, 0.5])
    solve(value, attention, constraints)
    find_feasible(value, attention, constraints)
    search_depth_first(presolve(value, attention, constraints))


def is_late_after(seconds: float | None, clock: Callable[[], float] | None) -> Callable[[], bool]:
    """Return a function that tells whether the given seconds have passed from now; without a clock, they never do."""
    time_left = seconds_left(seconds, clock)
    return lambda: time_left() <= 0.0


def seconds_left(seconds: float | None, clock: Callable[[], float] | None) -> Callable[[], float]:
    """Return a function that returns the seconds left of `seconds` from now; infinity without a limit or clock."""
    if seconds is None or clock is None:
        return lambda: math.inf
    end = clock() + seconds
    return lambda: end - clock()


def _search_budget(deadline_s: float | None, clock: Callable[[], float] | None, budget: PageBudget) -> SearchBudget:
    """Return the budget for feasibility searches under this deadline and the budget of the page."""
    if (deadline_s is None or clock is None) and not budget.limited:
        return UNLIMITED
    is_late = is_late_after(None if deadline_s is None else DEADLINE_FACTOR * deadline_s, clock)
    return SearchBudget(
        SEARCH_NODES, 0, lambda: is_late() or not budget.allows("relaxation", RELAXATION_SHARE), budget.charge
    )


@dataclass(frozen=True)
class _SolveState:
    """A problem with its search effort, its deadline, and the budget of its page."""

    value: F64
    attention: F64
    effort: Effort
    seconds_left: Callable[[], float]
    search_budget: SearchBudget = UNLIMITED
    budget: PageBudget = field(default_factory=PageBudget)
    cache: RelaxationCache | None = None

    def solve(self, constraints: PageConstraints, relaxation: Relaxation) -> Solution | None:
        """Return the best page under constraints that were relaxed so far, or None if none was found.

        If the relaxation has a page, no other search than pricing runs.
        """
        order: I64 = np.lexsort((constraints.tie, -self.value))
        feasible, instance = build_ordered(self.value, self.attention, constraints, order)
        self.budget.charge(build_work(constraints))
        if not feasible:
            return None
        attention_falls = bool((self.attention[1:] <= self.attention[:-1]).all())
        if attention_falls and is_greedy_feasible(instance):
            page = order[: constraints.slots].astype(np.int32)
            return _unoptimised(self.value, self.attention, replace(relaxation, page=page))
        state = self._search(instance, constraints, order, attention_falls, relaxation)
        if state is None:
            return None
        if self.effort.prove and not is_optimal(state):
            self._prove(constraints, order, state)
        return self._solution(instance, state, constraints, order, relaxation)

    def _search(
        self,
        instance: Instance,
        constraints: PageConstraints,
        order: I64,
        attention_falls: bool,
        relaxation: Relaxation,
    ) -> State | None:
        """Run rounds until the incumbent is proven optimal, within the gap tolerance, or time runs out.

        Wide rounds help to improve a page or to find one, but not to prove that there is none: before them, a problem
        without a page is tested for infeasibility.
        """
        effort, slots = self.effort, constraints.slots
        state = initial_state(
            instance,
            24 + 3 * slots,
            working_set_size := 24 + 8 * slots // 5,
            effort.coarse_steps,
            effort.fine_steps,
            RELATIVE_STEP,
        )
        rounds = effort.short_rounds if slots <= SHORT_PAGE else effort.rounds
        final_rounds = effort.final_rounds if slots <= LONG_PAGE else ()
        time_left, elapsed, meter = self.seconds_left(), 0.0, RoundMeter(self.budget, *instance.lower.shape)
        for number, (steps, width, gap) in enumerate((*((*r, 0.0) for r in rounds), *final_rounds)):
            if number == NARROW_ROUNDS and state.incumbent[0] < 0:
                if len(relaxation.page):
                    self._offer(constraints, order, state, relaxation.page)
                elif not relaxation.slack.any() and self._is_infeasible(constraints, order):
                    return None
            has_page = state.incumbent[0] >= 0
            stop = _is_within_gap(state, effort.gap_tolerance) or (
                number >= len(rounds) and not _is_within_gap(state, gap)
            )
            if (has_page and time_left <= RETRY_FACTOR * elapsed) or (stop and (has_page or number >= len(rounds))):
                break
            if not meter.affords(steps, width, has_page):
                break
            refine(
                instance,
                state,
                step_size(instance, RELATIVE_STEP),
                working_set_size,
                steps,
                width,
                1,
                effort.max_moves,
                attention_falls,
            )
            previous, time_left = time_left, self.seconds_left()
            elapsed = previous - time_left if time_left < math.inf else 0.0
        if state.incumbent[0] < 0:
            page = self._find_page(constraints, relaxation)
            if page is None:
                return None
            self._offer(constraints, order, state, page)
        return state

    def _is_infeasible(self, constraints: PageConstraints, order: I64) -> bool:
        """Return whether the cache or a cheap proof shows that no page exists."""
        if self.cache is not None and self.cache.get(cache_key(constraints)) is not None:
            return True
        self.budget.charge(search_work(constraints, 0) + proof_work(constraints))
        return is_proven_infeasible(constraints, order)

    def _find_page(self, constraints: PageConstraints, relaxation: Relaxation) -> I32 | None:
        """Return the page of the relaxation or, without one, search for any feasible page."""
        if len(relaxation.page):
            return relaxation.page
        if not self.budget.allows("relaxation", RELAXATION_SHARE):
            return None
        return find_feasible(self.value, self.attention, constraints, self.search_budget).page

    def _prove(self, constraints: PageConstraints, order: I64, state: State) -> None:
        """Complete the proof of optimality with HiGHS, without a time limit."""
        problem = presolve(self.value, self.attention, constraints)
        answer = solve_optimal(problem)
        if answer.page is not None:
            self._offer(constraints, order, state, problem.item[answer.page])
        bound = state.bounds[0] if answer.proven else answer.bound
        state.bounds[1] = max(state.bounds[0], min(state.bounds[1], bound))

    def _offer(self, constraints: PageConstraints, order: I64, state: State, chosen: I32) -> None:
        """Make a page [K] of candidates the incumbent if its value is higher."""
        page_value = float(self.attention @ self.value[chosen])
        if page_value > state.bounds[0]:
            index = np.empty(len(order), np.int64)
            index[order] = np.arange(len(order))
            state.incumbent[:], state.bounds[0] = index[chosen], page_value
            state.bounds[1] = max(state.bounds[1], page_value)

    def _solution(
        self, instance: Instance, state: State, constraints: PageConstraints, order: I64, relaxation: Relaxation
    ) -> Solution:
        """Return the solution for the incumbent, with prices and sensitivities."""
        chosen = order[state.incumbent].astype(np.int32)
        controls, proven = constraints.controls, is_optimal(state)
        price, credit = np.zeros(controls), np.zeros((controls, len(order)))
        price_report(instance, state, order, price, credit)
        on_page_without = np.zeros((controls, len(order)), np.bool_)
        on_page_without[:, chosen] = True
        joint_cause = np.full((len(order), 2), -1, np.int32)
        work = leave_one_out_work(int((price > 0.0).sum()), constraints.slots)
        if self.effort.explain and self.budget.allows("moves", work=work):
            self.budget.charge(work)
            leave_one_out(instance, state, order, price, credit, on_page_without, joint_cause)
        for control, estimate in pin_prices(instance, state, constraints, order):
            price[control] = estimate
        page_value = math.fsum(self.attention * self.value[chosen])
        return Solution(
            chosen=chosen,
            relaxed=relaxation.slack,
            minimal_proven=relaxation.minimal_proven,
            price=price,
            resolved=np.zeros(controls, np.bool_),
            credit=credit,
            on_page_without=on_page_without,
            joint_cause=joint_cause,
            value=page_value,
            bound=page_value if proven else max(page_value, float(state.bounds[1])),
            proven=proven,
        )


def _is_within_gap(state: State, tolerance: float) -> bool:
    """Return whether the incumbent is proven optimal or within the relative gap."""
    best, bound = state.bounds
    return is_optimal(state) or bool(bound - best <= tolerance * abs(best))


def _with_counts(constraints: PageConstraints, solution: Solution) -> Solution:
    """Lower the reported relaxation to what the page violates; an unproven relaxation may have been larger."""
    violation = constraints.violated_by(solution.chosen)
    minimal_proven = (solution.minimal_proven & (violation == solution.relaxed)) | (
        violation <= violations(constraints, violation)
    )
    return replace(solution, relaxed=violation, minimal_proven=minimal_proven)


def _unoptimised(value: F64, attention: F64, result: Relaxation) -> Solution:
    """Return a solution for the page of a relaxation, without prices; its bound ignores all constraints."""
    zeros = np.zeros(len(result.slack))
    page_value = math.fsum(attention * value[result.page])
    upper_bound = math.fsum(np.sort(attention) * np.sort(value)[len(value) - len(attention) :])
    return Solution(
        chosen=result.page,
        relaxed=result.slack,
        minimal_proven=result.minimal_proven,
        price=zeros,
        resolved=np.full(len(zeros), page_value >= upper_bound),
        credit=np.zeros((len(zeros), len(value))),
        on_page_without=np.isin(np.arange(len(value)), result.page)[None, :].repeat(len(zeros), axis=0),
        joint_cause=np.full((len(value), 2), -1, np.int32),
        value=page_value,
        bound=max(page_value, upper_bound),
        proven=page_value >= upper_bound,
    )


def _with_exact_prices(value: F64, attention: F64, constraints: PageConstraints, solution: Solution) -> Solution:
    """Replace the dual estimates of the prices by exact ones: solve again with one unit of slack for each control."""
    price, resolved = solution.price.copy(), solution.resolved.copy()
    search = _SolveState(value, attention, EFFORTS["exact"], lambda: math.inf)
    for c in np.flatnonzero(constraints.active).tolist():
        slack = solution.relaxed.copy()
        slack[c] += 1
        loosened = search.solve(
            constraints.with_slack(slack), Relaxation(slack, solution.minimal_proven, solution.chosen)
        )
        if loosened is not None:
            price[c], resolved[c] = max(0.0, loosened.value - solution.value), loosened.proven and solution.proven
    return replace(solution, price=price, resolved=resolved)
