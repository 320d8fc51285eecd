"""Why a control gave way: for want of candidates or slots, or since more important controls leave no room, and which.

A cause is a proof in small: no page keeps the controls it names, as far as this page keeps them, and lets this one give
way less. It is found by asking whether pages exist under fewer controls, with bounded effort: where that is not enough,
more controls are named than are needed, or none, and the cause says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from recsys.domain.types import I32, Bool
from recsys.guidance.solver.feasibility import _dual_infeasible, by_prices, search_depth_first
from recsys.guidance.solver.kernels.dfs import DONE
from recsys.guidance.solver.page_constraints import PageConstraints
from recsys.guidance.solver.presolve import ReducedProblem, presolve
from recsys.guidance.solver.relaxation_cache import cache_key

QUESTIONS = 40
"""Asked for one page at most."""

FIRST, MORE = 300, 1000
"""Partial pages looked at for one question, before and after prices were asked: some milliseconds."""


@dataclass(frozen=True)
class ConflictSet:
    """Why one control gave way.

    alone      by how many slots it gives way even where no other control is in force
    controls   numbers of the more important controls that, as far as they are kept, leave it no room for one slot less
    narrowed   each of these is needed for that
    """

    violated_alone_by: int = 0
    controls: tuple[int, ...] = ()
    irreducible: bool = False

    @property
    def known(self) -> bool:
        """Whether it is proven that the control could not have given way less."""
        return self.violated_alone_by > 0 or bool(self.controls)


Causes = dict[int, ConflictSet]
"""Cause by the number of the control that gave way."""


@dataclass
class _Oracle:
    """Asks whether pages exist: True, False (proven), None where the effort did not tell."""

    bounds: PageConstraints
    by: I32
    late: Callable[[], bool]
    left: int = QUESTIONS

    def page(self, c: int, by: int, others: tuple[int, ...] = ()) -> bool | None:
        """Under control c giving way by so much, and others as far as they are kept."""
        if self.left <= 0 or self.late():
            self.left = 0  # what is found out late is not found out
            return None
        self.left -= 1
        keep = np.zeros(self.bounds.controls, np.bool_)
        keep[[c, *others]] = True
        less = self.by.copy()
        less[c] = by
        return exists(self.bounds.with_slack(less).only(keep))


def exists(bounds: PageConstraints) -> bool | None:
    """Whether any page keeps the bounds; None where a bounded effort does not tell."""
    value, attention = np.zeros(len(bounds)), np.ones(bounds.slots)
    problem = presolve(value, attention, bounds)
    if not problem.possible or not bounds.slots:
        return problem.possible
    if (told := _searched(problem, FIRST)) is not None:
        return told
    order = np.argsort(bounds.tie)
    page, possible = by_prices(value, attention, bounds, order, turns=((3, 8),))
    if page is not None or not possible:
        return possible
    return False if _dual_infeasible(bounds, order) else _searched(problem, MORE)


def _searched(problem: ReducedProblem, nodes: int) -> bool | None:
    done, page = search_depth_first(problem, nodes)
    return True if page is not None else False if done == DONE else None


def _never() -> bool:
    return False


def explain(bounds: PageConstraints, by: I32, settled: Bool, late: Callable[[], bool] = _never) -> Causes:
    """The cause of each control that gave way.

    by       [C]  slots that each control gave way
    settled  [C]  where it is known that less was not possible
    late          whether it is too late to find out more
    """
    asker = _Oracle(bounds, by, late)
    gave_way = np.setdiff1d(np.flatnonzero(by > 0), bounds.block_control)  # whom blocks serve, their items tell
    return {c: _cause(asker, c, int(by[c]), bool(settled[c])) for c in gave_way.tolist()}


def _cause(asker: _Oracle, c: int, by: int, settled: bool) -> ConflictSet:
    one_less = asker.page(c, by - 1)
    if one_less is False:
        return ConflictSet(violated_alone_by=by, irreducible=True)
    alone = _smallest(by - 1, lambda less: asker.page(c, less))
    above = tuple(np.flatnonzero(asker.bounds.active[:c]).tolist())
    if not settled and asker.page(c, by - 1, above) is not False:
        return ConflictSet(alone)
    if not above:
        return ConflictSet(alone) if one_less else ConflictSet(violated_alone_by=by, irreducible=True)
    controls, narrowed = _minimal_conflict(above, lambda others: asker.page(c, by - 1, others))
    return ConflictSet(alone, controls, narrowed)


def _smallest(most: int, page: Callable[[int], bool | None]) -> int:
    """The least number up to `most` for which a page is not disproven; 0 first, since that is the rule."""
    if most <= 0 or page(0) is not False:
        return 0
    low, high = 1, most
    while low < high:
        middle = (low + high) // 2
        if page(middle) is False:
            low = middle + 1
        else:
            high = middle
    return low


def _minimal_conflict(
    above: tuple[int, ...], page: Callable[[tuple[int, ...]], bool | None]
) -> tuple[tuple[int, ...], bool]:
    """Of controls that together leave no room, some that do and each of which is needed; False: more than are needed.

    The last one needed is the one with which the first so many leave no room any more; then, beside it, the one before.
    """
    named: tuple[int, ...] = ()
    sure = True
    while True:
        told = page(named)
        sure &= told is not None
        if told is False or not above:
            return tuple(sorted(named)), sure
        low, high = 1, len(above)
        while low < high:
            middle = (low + high) // 2
            told = page((*above[:middle], *named))
            sure &= told is not None
            low, high = (low, middle) if told is False else (middle + 1, high)
        named, above = (*named, above[low - 1]), above[: low - 1]


@dataclass
class ConflictCache:
    """Causes found before: the same limits and supply have the same causes. Safe to share between threads."""

    most: int = 4096
    _known: dict[bytes, Causes] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._known)

    def of(self, bounds: PageConstraints, by: I32, settled: Bool, late: Callable[[], bool] = _never) -> Causes:
        """As `causes_of`, from memory where it is there; what was found in haste is not remembered."""
        if not by.any():
            return {}
        key = cache_key(bounds) + by.tobytes() + settled.tobytes()
        known = self._known.get(key)
        if known is None:
            known = explain(bounds, by, settled, late)
            if not late():
                if len(self._known) >= self.most:
                    self._known = {}
                self._known[key] = known
        return known
