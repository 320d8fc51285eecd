"""Local search on a feasible page: replace, swap, 3-cycle, and two replacements at once.

Most moves are rejected without checking the limits. A page better than the current one loses less than `bound - value`
against the dual bound, and its loss is at least the sum of its slot losses (see the loss identity in `beam`); a move
whose slot losses sum to more cannot be both feasible and better.
"""

from __future__ import annotations

import numpy as np

from recsys.domain.types import F64
from recsys.guidance.solver.kernels import kernel
from recsys.guidance.solver.kernels.instance import Instance, is_member
from recsys.guidance.solver.kernels.lookahead import shortlist_by_loss

MAX_CANDIDATES = 16
"""Maximum number of columns tried per slot."""


@kernel
def is_feasible_swap(
    instance: Instance,
    count: np.ndarray,
    item: np.ndarray,
    slot: np.ndarray,
    new: np.ndarray,
    changes: int,
    delta: np.ndarray,
) -> bool:
    """Return whether a feasible page stays feasible after changes: items `new` in slots `slot`, both [changes].

    The slots are ascending. item [K] and count [G, K + 1] describe the current page; delta [G] is scratch space, all
    zeros on entry and on exit.
    """
    slots, depth = len(item), instance.groups_of.shape[1]
    touched = np.empty(2 * changes * depth, np.int64)
    touch_count, change, feasible = 0, 0, True
    for k in range(slot[0], slots):
        if change < changes and slot[change] == k:
            for sign in (-1, 1):
                i = item[k] if sign < 0 else new[change]
                for d in range(depth):
                    g = instance.groups_of[i, d]
                    if g < 0:
                        break
                    delta[g] += sign
                    touched[touch_count] = g
                    touch_count += 1
            change += 1
        for t in range(touch_count):
            g = touched[t]
            if delta[g] != 0:
                c = count[g, k + 1] + delta[g]
                if c < instance.lower[g, k] or c > instance.upper[g, k]:
                    feasible = False
                    break
        if not feasible:
            break
    for t in range(touch_count):
        delta[touched[t]] = 0
    if not feasible:
        return False
    for c in range(changes):
        for d in range(depth):
            g = instance.groups_of[new[c], d]
            if g < 0:
                break
            window = instance.window_length[g]
            if window:
                for start in range(max(0, slot[c] - window + 1), min(slot[c], slots - window) + 1):
                    members = 0
                    for k in range(start, start + window):
                        i = item[k]
                        for e in range(changes):
                            if slot[e] == k:
                                i = new[e]
                        members += is_member(instance.mask, i, g)
                    if members > instance.window_limit[g]:
                        return False
    return True


@kernel
def swap_search(
    instance: Instance,
    working_set: np.ndarray,
    loss: F64,
    bound: float,
    page: np.ndarray,
    item: np.ndarray,
    count: np.ndarray,
    max_moves: int,
) -> int:
    """Improve a feasible page in place until no move helps or `max_moves` were evaluated; return the moves made.

    page [K] columns (-1 at pins and for items outside the working set), item [K] the same as items, count [G, K + 1]
    """
    slots = len(page)
    m = len(working_set)
    slot_of = np.full(m, -1, np.int64)
    total_loss, value = 0.0, 0.0
    for k in range(slots):
        value += instance.attention[k] * instance.value[item[k]]
        if page[k] >= 0:
            slot_of[page[k]] = k
            total_loss += loss[k, page[k]]
    shortlist, shortlist_size = np.empty((slots, MAX_CANDIDATES), np.int64), np.zeros(slots, np.int64)
    gap = bound - value
    for k in range(slots):
        if page[k] >= 0:
            shortlist_size[k], _ = shortlist_by_loss(loss, k, gap, shortlist[k])
    slot, new = np.empty(3, np.int64), np.empty(3, np.int64)
    delta = np.zeros(len(count), np.int64)
    moves, evaluated = 0, 0
    improved = True
    while improved and evaluated < max_moves:
        improved = False
        for a in range(slots):
            x = page[a]
            if x < 0:
                continue
            for y1 in range(shortlist_size[a]):
                j = shortlist[a, y1]
                if j == x:
                    continue
                loss_budget = gap - (total_loss - loss[a, x] + loss[a, j])  # slot loss that the other changes may add
                gain = instance.attention[a] * (instance.value[working_set[j]] - instance.value[working_set[x]])
                b = slot_of[j]
                changes = 0
                if b < 0:  # j is not on the page
                    slot[0], new[0] = a, working_set[j]
                    evaluated += 1
                    if (
                        loss_budget >= 0.0
                        and gain > 1e-12
                        and is_feasible_swap(instance, count, item, slot, new, 1, delta)
                    ):
                        changes = 1
                    else:  # combine with a replacement in another slot
                        for other_slot in range(slots):
                            z = page[other_slot]
                            if z < 0 or other_slot == a or changes:
                                continue
                            for y2 in range(shortlist_size[other_slot]):
                                q = shortlist[other_slot, y2]
                                if loss_budget + loss[other_slot, z] - loss[other_slot, q] < 0.0:
                                    break
                                if q == j or slot_of[q] >= 0:
                                    continue
                                move_gain = instance.attention[other_slot] * (
                                    instance.value[working_set[q]] - instance.value[working_set[z]]
                                )
                                if gain + move_gain <= 1e-12:
                                    continue
                                first = min(a, other_slot)
                                slot[0], slot[1] = first, max(a, other_slot)
                                new[0] = working_set[j] if first == a else working_set[q]
                                new[1] = working_set[q] if first == a else working_set[j]
                                evaluated += 1
                                if is_feasible_swap(instance, count, item, slot, new, 2, delta):
                                    changes = 2
                                    break
                else:  # j leaves slot b: fill b with x, with a column off the page, or with one whose slot takes x
                    if page[b] < 0:
                        continue
                    loss_budget += loss[b, j]
                    for y2 in range(-1, shortlist_size[b]):
                        q = x if y2 < 0 else shortlist[b, y2]
                        if q == j or (y2 >= 0 and q == x):
                            continue
                        if loss_budget - loss[b, q] < 0.0:
                            if y2 < 0:
                                continue
                            break
                        move_gain = gain + instance.attention[b] * (
                            instance.value[working_set[q]] - instance.value[working_set[j]]
                        )
                        c = -1 if y2 < 0 else slot_of[q]
                        if c < 0:
                            if move_gain <= 1e-12:
                                continue
                            first = min(a, b)
                            slot[0], slot[1] = first, max(a, b)
                            new[0] = working_set[j] if first == a else working_set[q]
                            new[1] = working_set[q] if first == a else working_set[j]
                            evaluated += 1
                            if is_feasible_swap(instance, count, item, slot, new, 2, delta):
                                changes = 2
                                break
                        else:
                            if page[c] < 0 or c == a or loss_budget - loss[b, q] + loss[c, q] - loss[c, x] < 0.0:
                                continue
                            move_gain += instance.attention[c] * (
                                instance.value[working_set[x]] - instance.value[working_set[q]]
                            )
                            if move_gain <= 1e-12:
                                continue
                            first, last = min(a, min(b, c)), max(a, max(b, c))
                            slot[0], slot[1], slot[2] = first, a + b + c - first - last, last
                            for e in range(3):
                                new[e] = (
                                    working_set[j]
                                    if slot[e] == a
                                    else (working_set[q] if slot[e] == b else working_set[x])
                                )
                            evaluated += 1
                            if is_feasible_swap(instance, count, item, slot, new, 3, delta):
                                changes = 3
                                break
                if changes:
                    _apply_swap(instance, working_set, page, item, count, slot_of, slot, new, changes)
                    total_loss, value = 0.0, 0.0
                    for k in range(slots):
                        value += instance.attention[k] * instance.value[item[k]]
                        if page[k] >= 0:
                            total_loss += loss[k, page[k]]
                    gap = bound - value
                    moves += 1
                    improved = True
                    x = page[a]
                if evaluated >= max_moves:
                    return moves
    return moves


@kernel
def _apply_swap(
    instance: Instance,
    working_set: np.ndarray,
    page: np.ndarray,
    item: np.ndarray,
    count: np.ndarray,
    slot_of: np.ndarray,
    slot: np.ndarray,
    new: np.ndarray,
    changes: int,
) -> None:
    """Apply the changes to page, item, count and slot_of."""
    slots = len(page)
    for c in range(changes):
        slot_of[page[slot[c]]] = -1
        for sign in (-1, 1):
            i = item[slot[c]] if sign < 0 else new[c]
            for d in range(instance.groups_of.shape[1]):
                g = instance.groups_of[i, d]
                if g < 0:
                    break
                for k in range(slot[c], slots):
                    count[g, k + 1] += sign
        item[slot[c]] = new[c]
    for c in range(changes):
        page[slot[c]] = np.searchsorted(working_set, new[c])
        slot_of[page[slot[c]]] = slot[c]
