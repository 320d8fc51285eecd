"""The best page under bounds. Arrays in, arrays out; everything else about guidance lives elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from recsys.guidance.bounds import Bounds, Solution
from recsys.guidance.exact import any_page, best_page
from recsys.guidance.problem import reduce
from recsys.types import F64, I32

__all__ = ["Bounds", "Effort", "Solution", "solve"]

Effort = Literal["fast", "adaptive", "exact"]


def solve(
    value: F64,
    attention: F64,
    bounds: Bounds,
    *,
    effort: Effort = "adaptive",
    deadline_s: float | None = None,
    clock: Callable[[], float] | None = None,
) -> Solution:
    """maximise sum_k attention[k] * value[chosen[k]] within the bounds, relaxed lexicographically if need be."""
    attention = np.asarray(attention, np.float64)[: bounds.slots]
    relaxed = np.zeros(bounds.controls, np.int32)
    answer = best_page(reduce(value, attention, bounds))
    if answer.page is None:
        relaxed = _relax(value, attention, bounds)
        answer = best_page(reduce(value, attention, bounds.relaxed(relaxed)))
        assert answer.page is not None
    problem = reduce(value, attention, bounds.relaxed(relaxed))
    chosen = problem.item[answer.page]
    worth = float(attention @ value[chosen])
    c, n = bounds.controls, len(bounds)
    return Solution(
        chosen, relaxed, np.ones(c, np.bool_), np.zeros(c), np.zeros(c, np.bool_), np.zeros((c, n)), worth,
        max(worth, answer.bound), answer.settled,
    )  # fmt: skip


def _relax(value: F64, attention: F64, bounds: Bounds) -> I32:
    by = np.zeros(bounds.controls, np.int32)
    accepted = np.zeros(bounds.controls, np.bool_)
    for c in range(bounds.controls):
        accepted[c] = True
        while any_page(reduce(value, attention, bounds.relaxed(by).only(accepted))).page is None:
            by[c] += 1
    return by
