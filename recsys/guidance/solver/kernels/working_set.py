"""Working sets: the few items worth looking at, first by value and supply, later by what prices say of all items."""

from __future__ import annotations

import numpy as np

from recsys.domain.types import F64
from recsys.guidance.solver.kernels import kernel
from recsys.guidance.solver.kernels.assignment import FAR
from recsys.guidance.solver.kernels.instance import Instance, is_member


@kernel
def initial_working_set(layout: Instance, count: int) -> np.ndarray:
    """A first working set of about `count` items: the best that caps admit, and supply for each floor."""
    n = len(layout.value)
    groups, slots = layout.lower.shape
    taken = np.zeros(n, np.bool_)
    for k in range(slots):
        if layout.pin[k] >= 0:
            taken[layout.pin[k]] = True
    members = np.zeros(groups, np.int64)
    chosen, top = 0, min(n, slots + slots // 2 + 4)
    for i in range(n):
        if chosen >= top:
            break
        if taken[i]:
            continue
        crowded = False
        for d in range(layout.groups_of.shape[1]):
            g = layout.groups_of[i, d]
            if g < 0:
                break
            crowded |= members[g] > layout.upper[g, slots - 1]
        if crowded:
            continue
        for d in range(layout.groups_of.shape[1]):
            g = layout.groups_of[i, d]
            if g < 0:
                break
            members[g] += 1
        taken[i] = True
        chosen += 1
    for g in range(groups):
        floor = layout.lower[g, slots - 1]
        if floor > 0:
            wanted = floor + 5
            for i in range(n):
                if wanted == 0:
                    break
                if is_member(layout.mask, i, g):
                    wanted -= 1
                    if not taken[i]:
                        taken[i] = True
                        chosen += 1
    for i in range(n):
        if chosen >= count:
            break
        if not taken[i]:
            taken[i] = True
            chosen += 1
    for k in range(slots):
        if layout.pin[k] >= 0:
            taken[layout.pin[k]] = False
    return np.flatnonzero(taken)


@kernel
def best_columns(margin: F64, count: int, keep: np.ndarray) -> np.ndarray:
    """The `count` items with the largest margins, and those of `keep`; in order of the layout."""
    n = len(margin)
    if count >= n:
        return np.flatnonzero(margin > -FAR)
    bar = np.partition(margin, n - count)[n - count]
    taken = margin > bar
    equals = count - taken.sum()  # so many of those at the bar
    for i in range(n):
        if equals == 0:
            break
        if margin[i] == bar:
            taken[i] = True
            equals -= 1
    for i in keep:
        taken[i] = True
    return np.flatnonzero(taken & (margin > -FAR))


@kernel
def select_within_bound(
    margin: F64, wage: F64, inside: np.ndarray, budget: float, most: int
) -> tuple[np.ndarray, float]:
    """Items that a page may hold without losing more than `budget`, in order of the layout; the least that others lose.

    margin, wage [N]: as in `State`; at most `most` of those not `inside` are taken, the ones that lose least
    """
    n, reach, count = len(margin), -budget, 0
    for i in range(n):
        count += not inside[i] and margin[i] >= reach
    if count > most:
        left = np.where(inside, -FAR, margin)
        reach = np.partition(left, n - most)[n - most]
    taken, outside = np.zeros(n, np.bool_), FAR
    for i in range(n):
        if margin[i] > -FAR:  # else pinned
            taken[i] = wage[i] > 0.0 or margin[i] >= -budget if inside[i] else margin[i] >= reach
            if not taken[i]:
                outside = min(outside, -margin[i])
    return np.flatnonzero(taken), outside


@kernel
def place(layout: Instance, column: np.ndarray, items: np.ndarray, page: np.ndarray, used: np.ndarray) -> None:
    """Fills page [K] with the columns of `items` [K]; the best columns left stand where an item is not a column."""
    slots = len(page)
    used[:] = False
    for k in range(slots):
        page[k] = -1
        if layout.pin[k] < 0 and items[k] >= 0:
            at = np.searchsorted(column, items[k])
            if at < len(column) and column[at] == items[k] and not used[at]:
                page[k], used[at] = at, True
    free = 0
    for k in range(slots):
        if layout.pin[k] < 0 and page[k] < 0:
            while used[free]:
                free += 1
            page[k], used[free] = free, True


@kernel
def duplicates(layout: Instance, column: np.ndarray) -> np.ndarray:
    """[M] the next better column in the same groups, -1 = none."""
    m, words = len(column), layout.mask.shape[1]
    twin = np.full(m, -1, np.int64)
    for a in range(m):
        for b in range(a - 1, -1, -1):
            same = True
            for word in range(words):
                if layout.mask[column[a], word] != layout.mask[column[b], word]:
                    same = False
                    break
            if same:
                twin[a] = b
                break
    return twin
