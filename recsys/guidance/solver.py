"""The best page under bounds. Arrays in, arrays out; everything else about guidance lives elsewhere.

maximise   sum_k attention[k] * value[chosen[k]]
subject to all that `Bounds` say

When no page keeps everything, controls give way lexicographically: in order of importance each one keeps as much as the
more important ones leave possible, by the least number of slots. Nothing gives way silently: `Solution.relaxed`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from recsys.guidance.bounds import Bounds, Solution
from recsys.guidance.problem import Problem, reduce
from recsys.guidance.road import Effort, Outcome, exists, travel
from recsys.types import F64, I32, Bool

__all__ = ["EFFORTS", "Bounds", "Effort", "Solution", "solve", "warm"]

EFFORTS: dict[str, Effort] = {
    "fast": Effort(steps=25, nodes=500, rounds=1, certain=False),
    "adaptive": Effort(steps=50, nodes=1_500, rounds=3, certain=False),
    "exact": Effort(steps=60, nodes=10_000, rounds=3, certain=True),
}


def solve(
    value: F64,
    attention: F64,
    bounds: Bounds,
    *,
    effort: Literal["fast", "adaptive", "exact"] = "adaptive",
    deadline_s: float | None = None,
    clock: Callable[[], float] | None = None,
) -> Solution:
    """The best page found, what gave way for it, and what is proven.

    value      [N]     clicks, finite
    attention  [>= K]  weight of each slot, > 0 and falling
    deadline_s, clock  after so many seconds of `clock` no better page is looked for. Whether a page exists is always
                       settled first, so hard bounds never give way to haste. Without a clock the answer is a function
                       of the other inputs alone.

    Raises ValueError for values or attention that are not finite, or of the wrong length.
    """
    n, slots = len(bounds), bounds.slots
    value, attention = np.asarray(value, np.float64), np.asarray(attention, np.float64)[:slots]
    if value.shape != (n,) or attention.shape != (slots,):
        raise ValueError(
            f"value {value.shape} and attention {attention.shape} do not fit {n} candidates, {slots} slots"
        )
    if not (np.isfinite(value).all() and np.isfinite(attention).all()):
        raise ValueError("value and attention must be finite")
    late = _late(deadline_s, clock)
    nothing = np.zeros(bounds.controls, np.int32)
    plain = Relaxation(nothing, nothing == 0, _by_value(value, bounds))
    if (np.diff(attention) <= 0).all() and not bounds.broken(plain.page).any():
        return _as_it_is(value, attention, plain)
    problem = reduce(value, attention, bounds)
    outcome, relaxation = travel(problem, EFFORTS[effort], late), plain
    if outcome.page is None:
        relaxation = _relax(value, attention, bounds)
        problem = reduce(value, attention, bounds.relaxed(relaxation.by))
        outcome = travel(problem, EFFORTS[effort], late)
    solution = _solution(problem, outcome, bounds, relaxation, value)
    return _resolved(value, attention, bounds, solution) if effort == "exact" else solution


def warm() -> None:
    """Compile the kernels (or load them from their cache), so that no page waits for it."""
    bounds = Bounds.free(np.arange(3, dtype=np.int64), 2)
    solve(np.arange(3.0), np.ones(2), bounds)
    exists(reduce(np.arange(3.0), np.ones(2), bounds))


def _late(deadline_s: float | None, clock: Callable[[], float] | None) -> Callable[[], bool]:
    if deadline_s is None or clock is None:
        return lambda: False
    end = clock() + deadline_s
    return lambda: clock() >= end


@dataclass(frozen=True)
class Relaxation:
    """by [C] slots that each control gives way, `settled` [C] where that is proven to be the least, `page` [K] so."""

    by: I32
    settled: Bool
    page: I32


def _by_value(value: F64, bounds: Bounds) -> I32:
    """[K] the best page if nothing had to be kept."""
    return np.lexsort((bounds.tie, -value))[: bounds.slots].astype(np.int32)


def _relax(value: F64, attention: F64, bounds: Bounds) -> Relaxation:
    """Each control in order of importance gives way by the least that the more important ones allow."""
    settled = np.ones(bounds.controls, np.bool_)
    by = np.zeros(bounds.controls, np.int32)
    accepted = np.zeros(bounds.controls, np.bool_)
    page = _by_value(value, bounds)  # keeps all that is accepted so far
    for c in np.flatnonzero(bounds.active).tolist():
        accepted[c] = True
        most = int(bounds.broken(page)[c])
        least = min(_shortage(bounds, c), most)
        while least < most:  # `most` is known to be possible; halve what is between
            middle = (least + most) // 2
            by[c] = middle
            problem = reduce(value, attention, bounds.relaxed(by).only(accepted))
            found = exists(problem)
            if found.page is None:
                least = middle + 1
                settled[c] &= found.settled
            else:
                page = problem.item[found.page]
                most = middle
        by[c] = most
    return Relaxation(by, settled, page)


def _shortage(bounds: Bounds, c: int) -> int:
    """By how many slots control c must give way for want of candidates or slots alone."""
    rows = bounds.row_control == c
    supply = bounds.member[rows].sum(axis=1)
    reach = np.minimum(np.arange(1, bounds.slots + 1), supply[:, None])
    return int((bounds.lower[rows] - reach).max(initial=0))


def _solution(problem: Problem, outcome: Outcome, bounds: Bounds, relaxation: Relaxation, value: F64) -> Solution:
    if outcome.page is None:  # the effort was too small to find it again: the page that the relaxation left stands
        return _as_it_is(value, problem.attention, relaxation)
    chosen = problem.item[outcome.page]
    price = np.zeros(bounds.controls)
    np.add.at(price, problem.owner, outcome.dual)
    return Solution(
        chosen=chosen,
        relaxed=relaxation.by,
        settled=relaxation.settled,
        price=price,
        resolved=np.zeros(bounds.controls, np.bool_),
        credit=_credit(problem, outcome, bounds, chosen),
        value=outcome.value,
        bound=outcome.bound,
        proven=outcome.proven,
    )


def _as_it_is(value: F64, attention: F64, relaxation: Relaxation) -> Solution:
    """The page of a relaxation, without prices; the best values in the best slots are its bound."""
    none = np.zeros(len(relaxation.by))
    worth = math.fsum(attention * value[relaxation.page])
    top = math.fsum(np.sort(attention) * np.sort(value)[len(value) - len(attention) :])
    return Solution(
        chosen=relaxation.page,
        relaxed=relaxation.by,
        settled=relaxation.settled,
        price=none,
        resolved=np.full(len(none), worth >= top),
        credit=np.zeros((len(none), len(value))),
        value=worth,
        bound=max(worth, top),
        proven=worth >= top,
    )


def _credit(problem: Problem, outcome: Outcome, bounds: Bounds, chosen: I32) -> F64:
    """[C, N] what prices add to each candidate at its slot on the page, or at the slot it would have had by value."""
    n, slots = len(bounds), bounds.slots
    credit = np.zeros((bounds.controls, n))
    if not slots or not len(problem.owner):
        return credit
    slot = np.full(n, slots - 1)
    slot[problem.item] = np.minimum(np.arange(len(problem.item)), slots - 1)
    slot[chosen] = np.arange(slots)
    member: Bool = problem.member
    for g, owner in enumerate(problem.owner):
        items = problem.item[member[g]]
        credit[owner, items] += outcome.adder[g, slot[items]]
    return credit


def _resolved(value: F64, attention: F64, bounds: Bounds, solution: Solution) -> Solution:
    """Exact prices: solve again with each control one unit looser."""
    price, resolved = solution.price.copy(), solution.resolved.copy()
    for c in np.flatnonzero(bounds.active).tolist():
        looser = solution.relaxed.copy()
        looser[c] += 1
        outcome = travel(reduce(value, attention, bounds.relaxed(looser)), EFFORTS["exact"], lambda: False)
        price[c], resolved[c] = max(0.0, outcome.value - solution.value), outcome.proven and solution.proven
    return replace(solution, price=price, resolved=resolved)
