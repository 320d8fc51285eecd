"""Working sets of items for column generation, chosen by value and supply at first and by reduced value later.

A *column* is the position of an item in the working set.
"""

from __future__ import annotations

import numpy as np

from recsys.domain.types import F64
from recsys.guidance.solver.kernels import kernel
from recsys.guidance.solver.kernels.assignment import FAR
from recsys.guidance.solver.kernels.instance import Instance, is_member


@kernel
def initial_working_set(instance: Instance, count: int) -> np.ndarray:
    """Return a first working set of about `count` items: the best that caps admit, and supply for each minimum."""
    n = len(instance.value)
    groups, slots = instance.lower.shape
    selected = np.zeros(n, np.bool_)
    for k in range(slots):
        if instance.pin[k] >= 0:
            selected[instance.pin[k]] = True
    members = np.zeros(groups, np.int64)
    selected_count, top_count = 0, min(n, slots + slots // 2 + 4)
    for i in range(n):
        if selected_count >= top_count:
            break
        if selected[i]:
            continue
        crowded = False
        for d in range(instance.groups_of.shape[1]):
            g = instance.groups_of[i, d]
            if g < 0:
                break
            crowded |= members[g] > instance.upper[g, slots - 1]
        if crowded:
            continue
        for d in range(instance.groups_of.shape[1]):
            g = instance.groups_of[i, d]
            if g < 0:
                break
            members[g] += 1
        selected[i] = True
        selected_count += 1
    for g in range(groups):
        minimum = instance.lower[g, slots - 1]
        if minimum > 0:
            needed = minimum + 5
            for i in range(n):
                if needed == 0:
                    break
                if is_member(instance.mask, i, g):
                    needed -= 1
                    if not selected[i]:
                        selected[i] = True
                        selected_count += 1
    for i in range(n):
        if selected_count >= count:
            break
        if not selected[i]:
            selected[i] = True
            selected_count += 1
    for k in range(slots):
        if instance.pin[k] >= 0:
            selected[instance.pin[k]] = False
    return np.flatnonzero(selected)


@kernel
def best_columns(reduced_value: F64, count: int, required: np.ndarray) -> np.ndarray:
    """Return the `count` items with the highest reduced value and those in `required`, in instance order."""
    n = len(reduced_value)
    if count >= n:
        return np.flatnonzero(reduced_value > -FAR)
    threshold = np.partition(reduced_value, n - count)[n - count]
    selected = reduced_value > threshold
    ties = count - selected.sum()  # number of items at the threshold to include
    for i in range(n):
        if ties == 0:
            break
        if reduced_value[i] == threshold:
            selected[i] = True
            ties -= 1
    for i in required:
        selected[i] = True
    return np.flatnonzero(selected & (reduced_value > -FAR))


@kernel
def select_within_bound(
    reduced_value: F64, item_price: F64, in_working_set: np.ndarray, budget: float, max_added: int
) -> tuple[np.ndarray, float]:
    """Return the items that a page may contain without losing more than `budget`, in instance order.

    reduced_value, item_price [N]: as in `State`. At most `max_added` items outside the working set are returned, those
    with the smallest loss. The second result is the minimum loss of any page that uses an omitted item.
    """
    n, threshold, count = len(reduced_value), -budget, 0
    for i in range(n):
        count += not in_working_set[i] and reduced_value[i] >= threshold
    if count > max_added:
        outside_value = np.where(in_working_set, -FAR, reduced_value)
        threshold = np.partition(outside_value, n - max_added)[n - max_added]
    selected, omitted_loss = np.zeros(n, np.bool_), FAR
    for i in range(n):
        if reduced_value[i] > -FAR:  # otherwise pinned
            selected[i] = (
                item_price[i] > 0.0 or reduced_value[i] >= -budget
                if in_working_set[i]
                else reduced_value[i] >= threshold
            )
            if not selected[i]:
                omitted_loss = min(omitted_loss, -reduced_value[i])
    return np.flatnonzero(selected), omitted_loss


@kernel
def warm_start_page(
    instance: Instance, working_set: np.ndarray, items: np.ndarray, page: np.ndarray, used: np.ndarray
) -> None:
    """Fill page [K] with the columns of `items` [K]; items outside the working set get the best unused columns."""
    slots = len(page)
    used[:] = False
    for k in range(slots):
        page[k] = -1
        if instance.pin[k] < 0 and items[k] >= 0:
            position = np.searchsorted(working_set, items[k])
            if position < len(working_set) and working_set[position] == items[k] and not used[position]:
                page[k], used[position] = position, True
    free = 0
    for k in range(slots):
        if instance.pin[k] < 0 and page[k] < 0:
            while used[free]:
                free += 1
            page[k], used[free] = free, True


@kernel
def duplicates(instance: Instance, working_set: np.ndarray) -> np.ndarray:
    """Return for each column the next better column with the same groups [M], -1 = none."""
    m, words = len(working_set), instance.mask.shape[1]
    duplicate_of = np.full(m, -1, np.int64)
    for a in range(m):
        for b in range(a - 1, -1, -1):
            same = True
            for word in range(words):
                if instance.mask[working_set[a], word] != instance.mask[working_set[b], word]:
                    same = False
                    break
            if same:
                duplicate_of[a] = b
                break
    return duplicate_of
