"""A page made better by small moves: replace, swap, chain, cycle, and two replacements at once.

Most moves need no look at the limits: a better page loses less than `bound - value`, and what it loses in its slots
alone is the sum of their losses (see `layers`), so a move whose losses add up to more cannot be one that fits.
"""

from __future__ import annotations

import numpy as np

from recsys.domain.types import F64
from recsys.guidance.solver.kernels import kernel
from recsys.guidance.solver.kernels.instance import Instance, is_member
from recsys.guidance.solver.kernels.lookahead import in_order

NEAR = 16
"""Columns tried in a slot at most."""


@kernel
def is_feasible_swap(
    layout: Instance,
    count: np.ndarray,
    item: np.ndarray,
    slot: np.ndarray,
    new: np.ndarray,
    changes: int,
    delta: np.ndarray,
) -> bool:
    """Whether a page keeps all limits after changes: `new` items in `slot`s, both [changes], slots rising.

    item [K] of the page as it is and count [G, K + 1] of it; delta [G] zeros, left as zeros
    """
    slots, depth = len(item), layout.groups_of.shape[1]
    touched = np.empty(2 * changes * depth, np.int64)
    touches, at, ok = 0, 0, True
    for k in range(slot[0], slots):
        if at < changes and slot[at] == k:
            for sign in (-1, 1):
                i = item[k] if sign < 0 else new[at]
                for d in range(depth):
                    g = layout.groups_of[i, d]
                    if g < 0:
                        break
                    delta[g] += sign
                    touched[touches] = g
                    touches += 1
            at += 1
        for t in range(touches):
            g = touched[t]
            if delta[g] != 0:
                c = count[g, k + 1] + delta[g]
                if c < layout.lower[g, k] or c > layout.upper[g, k]:
                    ok = False
                    break
        if not ok:
            break
    for t in range(touches):
        delta[touched[t]] = 0
    if not ok:
        return False
    for c in range(changes):
        for d in range(depth):
            g = layout.groups_of[new[c], d]
            if g < 0:
                break
            within = layout.run_within[g]
            if within:
                for start in range(max(0, slot[c] - within + 1), min(slot[c], slots - within) + 1):
                    near = 0
                    for k in range(start, start + within):
                        i = item[k]
                        for e in range(changes):
                            if slot[e] == k:
                                i = new[e]
                        near += is_member(layout.mask, i, g)
                    if near > layout.run_most[g]:
                        return False
    return True


@kernel
def swap_search(
    layout: Instance,
    column: np.ndarray,
    loss: F64,
    bound: float,
    page: np.ndarray,
    item: np.ndarray,
    count: np.ndarray,
    tries: int,
) -> int:
    """Improves a page that keeps all limits, in place, until no move helps or `tries` were looked at; how many it made.

    page [K] columns (-1 at pins and for items that are no column), item [K] the same as items, count [G, K + 1] of it
    """
    slots = len(page)
    m = len(column)
    holder = np.full(m, -1, np.int64)
    lost, value = 0.0, 0.0
    for k in range(slots):
        value += layout.attention[k] * layout.value[item[k]]
        if page[k] >= 0:
            holder[page[k]] = k
            lost += loss[k, page[k]]
    listed, lists = np.empty((slots, NEAR), np.int64), np.zeros(slots, np.int64)
    gap = bound - value
    for k in range(slots):
        if page[k] >= 0:
            lists[k], _ = in_order(loss, k, gap, listed[k])
    slot, new = np.empty(3, np.int64), np.empty(3, np.int64)
    delta = np.zeros(len(count), np.int64)
    made, looked = 0, 0
    again = True
    while again and looked < tries:
        again = False
        for a in range(slots):
            x = page[a]
            if x < 0:
                continue
            for y1 in range(lists[a]):
                j = listed[a, y1]
                if j == x:
                    continue
                spare = gap - (lost - loss[a, x] + loss[a, j])  # what the other changes may add
                gain = layout.attention[a] * (layout.value[column[j]] - layout.value[column[x]])
                b = holder[j]
                changes = 0
                if b < 0:  # j comes from outside
                    slot[0], new[0] = a, column[j]
                    looked += 1
                    if spare >= 0.0 and gain > 1e-12 and is_feasible_swap(layout, count, item, slot, new, 1, delta):
                        changes = 1
                    else:  # and another one, in another slot
                        for other in range(slots):
                            z = page[other]
                            if z < 0 or other == a or changes:
                                continue
                            for y2 in range(lists[other]):
                                q = listed[other, y2]
                                if spare + loss[other, z] - loss[other, q] < 0.0:
                                    break
                                if q == j or holder[q] >= 0:
                                    continue
                                more = layout.attention[other] * (layout.value[column[q]] - layout.value[column[z]])
                                if gain + more <= 1e-12:
                                    continue
                                first = min(a, other)
                                slot[0], slot[1] = first, max(a, other)
                                new[0] = column[j] if first == a else column[q]
                                new[1] = column[q] if first == a else column[j]
                                looked += 1
                                if is_feasible_swap(layout, count, item, slot, new, 2, delta):
                                    changes = 2
                                    break
                else:  # j leaves slot b, which needs a filler: x, one from outside, or one whose slot takes x
                    if page[b] < 0:
                        continue
                    spare += loss[b, j]
                    for y2 in range(-1, lists[b]):
                        q = x if y2 < 0 else listed[b, y2]
                        if q == j or (y2 >= 0 and q == x):
                            continue
                        if spare - loss[b, q] < 0.0:
                            if y2 < 0:
                                continue
                            break
                        more = gain + layout.attention[b] * (layout.value[column[q]] - layout.value[column[j]])
                        c = -1 if y2 < 0 else holder[q]
                        if c < 0:
                            if more <= 1e-12:
                                continue
                            first = min(a, b)
                            slot[0], slot[1] = first, max(a, b)
                            new[0] = column[j] if first == a else column[q]
                            new[1] = column[q] if first == a else column[j]
                            looked += 1
                            if is_feasible_swap(layout, count, item, slot, new, 2, delta):
                                changes = 2
                                break
                        else:
                            if page[c] < 0 or c == a or spare - loss[b, q] + loss[c, q] - loss[c, x] < 0.0:
                                continue
                            more += layout.attention[c] * (layout.value[column[x]] - layout.value[column[q]])
                            if more <= 1e-12:
                                continue
                            first, last = min(a, min(b, c)), max(a, max(b, c))
                            slot[0], slot[1], slot[2] = first, a + b + c - first - last, last
                            for e in range(3):
                                new[e] = column[j] if slot[e] == a else (column[q] if slot[e] == b else column[x])
                            looked += 1
                            if is_feasible_swap(layout, count, item, slot, new, 3, delta):
                                changes = 3
                                break
                if changes:
                    _apply_swap(layout, column, page, item, count, holder, slot, new, changes)
                    lost, value = 0.0, 0.0
                    for k in range(slots):
                        value += layout.attention[k] * layout.value[item[k]]
                        if page[k] >= 0:
                            lost += loss[k, page[k]]
                    gap = bound - value
                    made += 1
                    again = True
                    x = page[a]
                if looked >= tries:
                    return made
    return made


@kernel
def _apply_swap(
    layout: Instance,
    column: np.ndarray,
    page: np.ndarray,
    item: np.ndarray,
    count: np.ndarray,
    holder: np.ndarray,
    slot: np.ndarray,
    new: np.ndarray,
    changes: int,
) -> None:
    """Carry the changes out."""
    slots = len(page)
    for c in range(changes):
        holder[page[slot[c]]] = -1
        for sign in (-1, 1):
            i = item[slot[c]] if sign < 0 else new[c]
            for d in range(layout.groups_of.shape[1]):
                g = layout.groups_of[i, d]
                if g < 0:
                    break
                for k in range(slot[c], slots):
                    count[g, k + 1] += sign
        item[slot[c]] = new[c]
    for c in range(changes):
        page[slot[c]] = np.searchsorted(column, new[c])
        holder[page[slot[c]]] = slot[c]
