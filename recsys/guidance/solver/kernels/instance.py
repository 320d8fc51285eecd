"""Bounds laid out for the kernels: items by falling value, one bit per group of items, limits closed.

Rows and crowded values of spacings become *groups*; what no page can break is left out. Three sound tightenings:
*closure* (a count rises by at most one a slot, so a floor of 3 at slot 5 is one of 2 at slot 4), pins, and merging a
spacing with a cap on the same items.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recsys.domain.types import F64, I32, Bool
from recsys.guidance.solver.kernels import kernel

_DE_BRUIJN = np.uint64(0x03F79D71B4CB0A89)
_BIT = np.zeros(64, np.int64)  # number of the lowest set bit, by (bit * _DE_BRUIJN) >> 58
for _b in range(64):
    _BIT[(((1 << _b) * 0x03F79D71B4CB0A89) & (2**64 - 1)) >> 58] = _b


class Instance(NamedTuple):
    """N items, K slots, G groups in W words of 64 bits.

    value      [N]     play equivalents, falling
    attention  [K]
    mask       [N, W]  uint64: bit g of word w: the item is in group 64 w + g
    groups_of  [N, D]  the same as numbers, padded with -1
    lower, upper  [G, K]  limits of members in the first k + 1 slots
    run_most, run_within [G]  at most so many members in so many neighbouring slots; run_within 0 = no such limit
    row_owner, run_owner [G]  controls that own the limits; -1 = none
    pin        [K]     item that must stand in the slot, -1 = any
    row_group, row_slot, row_sign, row_limit [R]  limits that no neighbouring slot implies, the only ones that carry
                       prices; sign +1: at least, -1: at most
    """

    value: F64
    attention: F64
    mask: np.ndarray
    groups_of: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    run_most: np.ndarray
    run_within: np.ndarray
    row_owner: np.ndarray
    run_owner: np.ndarray
    pin: np.ndarray
    row_group: np.ndarray
    row_slot: np.ndarray
    row_sign: np.ndarray
    row_limit: np.ndarray


@kernel
def is_member(mask: np.ndarray, item: int, group: int) -> int:
    """1 if the item is in the group, else 0."""
    return int((mask[item, group >> 6] >> np.uint64(group & 63)) & np.uint64(1))


@kernel
def build_instance(
    value: F64,
    attention: F64,
    order: np.ndarray,
    member: Bool,
    lower: I32,
    upper: I32,
    row_control: I32,
    code: I32,
    at_most: I32,
    within: I32,
    before: I32,
    space_control: I32,
    pin_item: I32,
    pin_slot: I32,
) -> tuple[bool, Instance]:
    """Whether a page may exist, and the layout. `order` [N]: candidates by falling value; arrays as in `Bounds`."""
    n, slots = len(order), len(attention)
    rows, spaces = len(member), len(code)
    low = np.zeros((rows + 64, slots), np.int64)
    up = np.zeros((rows + 64, slots), np.int64)
    run_most = np.zeros(rows + 64, np.int64)
    run_within = np.zeros(rows + 64, np.int64)
    row_owner = np.full(rows + 64, -1, np.int64)
    run_owner = np.full(rows + 64, -1, np.int64)
    size = np.zeros(rows + 64, np.int64)
    source = np.full(rows + 64, -1, np.int64)  # row that the group is, or -(2 + candidate) whose value it is
    axis = np.zeros(rows + 64, np.int64)
    groups = 0
    for r in range(rows):
        count = 0
        for i in range(n):
            count += member[r, i]
        speaks = False
        for k in range(slots):
            speaks |= lower[r, k] > 0 or upper[r, k] < min(k + 1, count)
        if speaks:
            for k in range(slots):
                low[groups, k] = max(lower[r, k], 0)
                up[groups, k] = min(upper[r, k], k + 1)
            row_owner[groups], size[groups], source[groups] = row_control[r], count, r
            groups += 1
    from_rows = groups
    for s in range(spaces):
        seen = np.zeros(n, np.bool_)
        seam = before.shape[1]
        ranked = code[s][order]  # by value: the numbers of groups, and so the page among equals, know no order of input
        for a in range(n):
            first, one = order[a], ranked[a]
            if one < 0 or seen[a]:
                continue
            count, inside = 0, 0
            for b in range(a, n):
                same = ranked[b] == one
                seen[b] |= same
                count += same
            for j in range(seam - (within[s] - 1), seam):
                inside += j >= 0 and before[s, j] == one
            if count + inside <= at_most[s] or at_most[s] >= within[s]:
                continue
            g = -1
            if inside == 0 and slots >= within[s]:  # else windows that begin before the page need limits of their own
                for h in range(from_rows):
                    if size[h] == count and run_within[h] == 0 and member[source[h], first]:
                        same_items = True
                        for b in range(a, n):
                            if (ranked[b] == one) != member[source[h], order[b]]:
                                same_items = False
                                break
                        if same_items:
                            g = h
                            break
            if g < 0:
                if groups == len(low):
                    low, up = _grow(low), _grow(up)
                    run_most, run_within = _grow1(run_most), _grow1(run_within)
                    row_owner, run_owner = _grow1(row_owner), _grow1(run_owner)
                    size, source, axis = _grow1(size), _grow1(source), _grow1(axis)
                g = groups
                groups += 1
                size[g], source[g], axis[g], row_owner[g] = count, -2 - first, s, -1
                for k in range(slots):
                    up[g, k] = k + 1
                row_owner[g] = space_control[s]
                for end in range(min(within[s] - 1, slots)):  # windows that begin before the page
                    taken = 0
                    for j in range(seam - (within[s] - 1) + end, seam):
                        taken += j >= 0 and before[s, j] == one
                    # the window that ends in slot `end` begins within - 1 - end places before the page
                    up[g, end] = min(end + 1, max(0, at_most[s] - taken))
            run_most[g], run_within[g], run_owner[g] = at_most[s], within[s], space_control[s]
    words = max(1, (groups + 63) // 64)
    by_candidate = np.zeros((words, n), np.uint64)
    for g in range(groups):
        word, bit = g >> 6, np.uint64(g & 63)
        if source[g] >= 0:
            r = source[g]
            for i in range(n):
                by_candidate[word, i] |= np.uint64(member[r, i]) << bit
        else:
            s, one = axis[g], code[axis[g], -2 - source[g]]
            for i in range(n):
                by_candidate[word, i] |= np.uint64(code[s, i] == one) << bit
    mask = np.empty((n, words), np.uint64)
    by_value = np.empty(n)
    for a in range(n):
        by_value[a] = value[order[a]]
        for word in range(words):
            mask[a, word] = by_candidate[word, order[a]]
    pin, possible = _pinned(order, pin_item, pin_slot, slots)
    low, up = low[:groups].copy(), up[:groups].copy()
    possible &= _tighten(low, up, mask, pin, size)
    row_group, row_slot, row_sign, row_limit = _binding_rows(low, up, size, mask, pin)
    return possible, Instance(
        by_value,
        attention,
        mask,
        _groups_of(mask),
        low,
        up,
        run_most[:groups].copy(),
        run_within[:groups].copy(),
        row_owner[:groups].copy(),
        run_owner[:groups].copy(),
        pin,
        row_group,
        row_slot,
        row_sign,
        row_limit,
    )


@kernel
def _grow(table: np.ndarray) -> np.ndarray:
    longer = np.zeros((2 * len(table), table.shape[1]), np.int64)
    longer[: len(table)] = table
    return longer


@kernel
def _grow1(column: np.ndarray) -> np.ndarray:
    longer = np.zeros(2 * len(column), np.int64)
    longer[: len(column)] = column
    return longer


@kernel
def _pinned(order: np.ndarray, pin_item: I32, pin_slot: I32, slots: int) -> tuple[np.ndarray, bool]:
    """[K] pinned item per slot; whether the pins can all stand."""
    pin = np.full(slots, -1, np.int64)
    possible = True
    for p in range(len(pin_item)):
        if pin_item[p] < 0 or pin_slot[p] >= slots:
            possible = False
            continue
        for a in range(len(order)):
            if order[a] == pin_item[p]:
                for k in range(slots):
                    possible &= not (pin[k] == a and k != pin_slot[p])
                possible &= pin[pin_slot[p]] == -1 or pin[pin_slot[p]] == a
                pin[pin_slot[p]] = a
                break
    return pin, possible


@kernel
def _tighten(low: np.ndarray, up: np.ndarray, mask: np.ndarray, pin: np.ndarray, size: np.ndarray) -> bool:
    """The tightest limits that say the same; False where they contradict each other."""
    groups, slots = low.shape
    possible = True
    for g in range(groups):
        for forward in (True, False):
            for step in range(slots):
                k = step if forward else slots - 1 - step
                least, most = 0, 1  # what the slot after (forward: this slot) adds
                at = k if forward else k + 1
                if at < slots and pin[at] >= 0:
                    least = most = is_member(mask, pin[at], g)
                if forward:
                    low[g, k] = max(low[g, k], least + (low[g, k - 1] if k else 0))
                    up[g, k] = min(up[g, k], most + (up[g, k - 1] if k else 0))
                elif k + 1 < slots:
                    low[g, k] = max(low[g, k], low[g, k + 1] - most)
                    up[g, k] = min(up[g, k], up[g, k + 1] - least)
        for k in range(slots):
            possible &= low[g, k] <= up[g, k]
        possible &= low[g, slots - 1] <= size[g]
    return possible


@kernel
def _binding_rows(
    low: np.ndarray, up: np.ndarray, size: np.ndarray, mask: np.ndarray, pin: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Group, slot, sign and limit of each row that no neighbouring slot implies."""
    groups, slots = low.shape
    group, slot = np.empty(2 * groups * slots, np.int64), np.empty(2 * groups * slots, np.int64)
    sign, limit = np.empty(2 * groups * slots, np.int64), np.empty(2 * groups * slots, np.int64)
    count = 0
    for g in range(groups):
        for k in range(slots):
            here = low[g, k]
            if here > 0 and (k == 0 or low[g, k - 1] < here) and (k == slots - 1 or low[g, k + 1] <= here):
                group[count], slot[count], sign[count], limit[count] = g, k, 1, here
                count += 1
            here = up[g, k]
            if (
                here < min(k + 1, size[g])
                and (k == 0 or up[g, k - 1] >= here)
                and (k == slots - 1 or up[g, k + 1] > here)
            ):
                group[count], slot[count], sign[count], limit[count] = g, k, -1, here
                count += 1
    return group[:count].copy(), slot[:count].copy(), sign[:count].copy(), limit[:count].copy()


@kernel
def _groups_of(mask: np.ndarray) -> np.ndarray:
    """[N, D] numbers of the bits set, padded with -1."""
    n, words = mask.shape
    wide = np.full((n, 64 * words), -1, np.int64) if words > 1 else np.full((n, 64), -1, np.int64)
    widest = 1
    for i in range(n):
        count = 0
        for word in range(words):
            left = mask[i, word]
            while left != np.uint64(0):
                bit = left & (~left + np.uint64(1))
                wide[i, count] = 64 * word + _BIT[(bit * _DE_BRUIJN) >> np.uint64(58)]
                count += 1
                left ^= bit
        widest = max(widest, count)
    return wide[:, :widest].copy()
