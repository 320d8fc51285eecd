"""Explains each relaxed control: too few candidates or slots, or a conflict with named more important controls.

The explanation is a proof: no page satisfies the named controls, as far as this page satisfies them, and needs less
relaxation of this control. It is found by feasibility queries on subsets of the controls, with bounded effort. If the
effort is exceeded, the conflict set may be larger than necessary or missing, and is marked accordingly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from recsys.domain.types import I32, Bool
from recsys.guidance.solver.feasibility import find_by_pricing, is_infeasible_by_dual, search_depth_first
from recsys.guidance.solver.kernels.dfs import DONE
from recsys.guidance.solver.page_constraints import PageConstraints
from recsys.guidance.solver.presolve import ReducedProblem, presolve
from recsys.guidance.solver.relaxation import minimum_violations
from recsys.guidance.solver.relaxation_cache import cache_key

MAX_QUERIES = 40
"""Maximum number of feasibility queries per page."""

NAMES_MAX = 8
"""Maximum number of controls in a conflict set that is not known to be irreducible; a longer one explains nothing."""

FIRST_NODES, RETRY_NODES = 300, 1000
"""Node limits of the depth-first search for one query, before and after pricing: a few milliseconds."""


@dataclass(frozen=True)
class ConflictSet:
    """The conflict set that relaxed one control, comparable to an irreducible infeasible subsystem (IIS).

    violated_alone_by  slots by which the control must be relaxed even if no other control is in force
    controls           more important controls; while they are satisfied as far as they are now, the control
                       cannot be relaxed by one slot less
    irreducible        each of these controls is necessary for the conflict
    complete           False: the effort was exceeded, so there may be a cause that was not found
    """

    violated_alone_by: int = 0
    controls: tuple[int, ...] = ()
    irreducible: bool = False
    complete: bool = True

    @property
    def proven(self) -> bool:
        """Whether it is proven that the control could not have been relaxed less."""
        return self.violated_alone_by > 0 or bool(self.controls)


Causes = dict[int, ConflictSet]
"""Conflict set by the number of the relaxed control."""


@dataclass
class _Oracle:
    """An oracle for feasibility: True, False (proven), or None if the effort was not enough."""

    constraints: PageConstraints
    slack: I32
    expired: Callable[[], bool]
    queries_left: int = MAX_QUERIES
    exhausted: bool = False
    timed_out: bool = False

    def is_feasible(self, c: int, slack: int, controls: tuple[int, ...] = ()) -> bool | None:
        """Return whether a page exists with control c relaxed by `slack` and `controls` relaxed as on this page."""
        if not self.exhausted:
            self.timed_out = self.expired()
            self.exhausted = self.timed_out or self.queries_left <= 0
        if self.exhausted:  # no further queries
            return None
        self.queries_left -= 1
        mask = np.zeros(self.constraints.controls, np.bool_)
        mask[[c, *controls]] = True
        trial = self.slack.copy()
        trial[c] = slack
        return exists(self.constraints.with_slack(trial).restricted_to(mask), self._expired_within)

    def _expired_within(self) -> bool:
        """Return whether the deadline passed during a query; further queries then fail as well."""
        self.timed_out = self.exhausted = self.expired()
        return self.exhausted


def _no_deadline() -> bool:
    """Return False: the deadline never expires."""
    return False


def exists(constraints: PageConstraints, expired: Callable[[], bool] = _no_deadline) -> bool | None:
    """Return whether any page satisfies the constraints; None if a bounded effort does not decide it."""
    value, attention = np.zeros(len(constraints)), np.ones(constraints.slots)
    problem = presolve(value, attention, constraints)
    if not problem.feasible or not constraints.slots:
        return problem.feasible
    if (feasible := _search(problem, FIRST_NODES)) is not None or expired():
        return feasible
    order = np.argsort(constraints.tie)
    page, consistent = find_by_pricing(value, attention, constraints, order, rounds=((3, 8),))
    if page is not None or not consistent:
        return consistent
    if expired():
        return None
    return False if is_infeasible_by_dual(constraints, order) else _search(problem, RETRY_NODES)


def _search(problem: ReducedProblem, nodes: int) -> bool | None:
    """Return whether the depth-first search finds a page; None if it reaches the node limit."""
    status, page = search_depth_first(problem, nodes)
    return True if page is not None else False if status == DONE else None


def explain(
    constraints: PageConstraints, slack: I32, minimal_proven: Bool, expired: Callable[[], bool] = _no_deadline
) -> Causes:
    """Return the conflict set of each relaxed control.

    slack           [C]  slots by which each control was relaxed
    minimal_proven  [C]  whether the slack is proven to be minimal
    expired              returns whether the deadline has passed
    """
    return _explain(constraints, slack, minimal_proven, expired)[0]


def is_complete(causes: Causes) -> bool:
    """Return whether the effort sufficed to search for the cause of every relaxation."""
    return all(cause.complete for cause in causes.values())


def _explain(
    constraints: PageConstraints, slack: I32, minimal_proven: Bool, expired: Callable[[], bool]
) -> tuple[Causes, bool]:
    """Return the conflict sets, and whether they are complete, as far as the time matters."""
    oracle = _Oracle(constraints, slack, expired)
    relaxed = np.setdiff1d(np.flatnonzero(slack > 0), constraints.block_control)  # blocks are explained by their items
    minimum = minimum_violations(constraints)
    causes = {
        c: _conflict_set(oracle, c, int(slack[c]), int(minimum[c]), bool(minimal_proven[c])) for c in relaxed.tolist()
    }
    return causes, not oracle.timed_out


def _conflict_set(oracle: _Oracle, c: int, slack: int, minimum: int, minimal_proven: bool) -> ConflictSet:
    """Return the conflict set of control c, which is violated by `minimum` slots on any page."""
    if minimum >= slack:
        return ConflictSet(violated_alone_by=slack, irreducible=True)
    tighter = oracle.is_feasible(c, slack - 1)
    if tighter is False:
        return ConflictSet(violated_alone_by=slack, irreducible=True)
    if oracle.exhausted:
        return ConflictSet(complete=False)
    alone = _minimum_slack(slack - 1, lambda trial: oracle.is_feasible(c, trial))
    above = tuple(np.flatnonzero(oracle.constraints.active[:c]).tolist())
    if not minimal_proven and oracle.is_feasible(c, slack - 1, above) is not False:
        return ConflictSet(alone, complete=not oracle.exhausted)
    if not above:
        return ConflictSet(alone) if tighter else ConflictSet(violated_alone_by=slack, irreducible=True)
    controls, irreducible = _minimal_conflict(oracle, above, lambda subset: oracle.is_feasible(c, slack - 1, subset))
    if not irreducible and len(controls) > NAMES_MAX:
        return ConflictSet(alone, complete=False)
    return ConflictSet(alone, controls, irreducible)


def _minimum_slack(upper: int, is_feasible: Callable[[int], bool | None]) -> int:
    """Return the smallest slack up to `upper` that is not proven infeasible; tries 0 first, the usual result."""
    if upper <= 0 or is_feasible(0) is not False:
        return 0
    low, high = 1, upper
    while low < high:
        middle = (low + high) // 2
        if is_feasible(middle) is False:
            low = middle + 1
        else:
            high = middle
    return low


def _minimal_conflict(
    oracle: _Oracle, candidates: tuple[int, ...], is_feasible: Callable[[tuple[int, ...]], bool | None]
) -> tuple[tuple[int, ...], bool]:
    """Reduce conflicting candidates to an irreducible conflict; the flag is False if it may be reducible.

    Bisects for the last control necessary, the one that completes a conflict when controls are added in order, and
    repeats with the controls before it.
    """
    conflict: tuple[int, ...] = ()
    irreducible = True
    while True:
        feasible = is_feasible(conflict)
        irreducible &= feasible is not None
        if feasible is False or not candidates:
            return tuple(sorted(conflict)), irreducible
        if oracle.exhausted:
            return tuple(sorted((*candidates, *conflict))), False
        low, high = 1, len(candidates)
        while low < high:
            middle = (low + high) // 2
            feasible = is_feasible((*candidates[:middle], *conflict))
            irreducible &= feasible is not None
            low, high = (low, middle) if feasible is False else (middle + 1, high)
        conflict, candidates = (*conflict, candidates[low - 1]), candidates[: low - 1]


@dataclass
class ConflictCache:
    """A bounded cache of conflict sets, keyed by limits and supply. Safe to share between threads."""

    max_entries: int = 4096
    _entries: dict[bytes, Causes] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._entries)

    def of(
        self, constraints: PageConstraints, slack: I32, minimal_proven: Bool, expired: Callable[[], bool] = _no_deadline
    ) -> Causes:
        """Return the conflict sets as `explain` does, cached; results of an expired search are not stored."""
        if not slack.any():
            return {}
        key = cache_key(constraints) + slack.tobytes() + minimal_proven.tobytes()
        entry = self._entries.get(key)
        if entry is None:
            entry, complete = _explain(constraints, slack, minimal_proven, expired)
            if complete:
                if len(self._entries) >= self.max_entries:
                    self._entries = {}
                self._entries[key] = entry
        return entry
