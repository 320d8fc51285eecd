"""The solver instance: page constraints in the form that the kernels read.

Items are sorted by descending value. Count rows and the attribute values that a spacing can restrict become *groups*,
one bit per group and item. Constraints that no page can violate are dropped, and limits are tightened in three ways
that preserve all feasible pages: by *closure* (a count grows by at most one per slot, so a minimum of 3 at slot 5
implies a minimum of 2 at slot 4), by pins, and by merging a spacing with a cap on the same items.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recsys.domain.types import F64, I32, Bool
from recsys.guidance.solver.kernels import kernel

_DE_BRUIJN = np.uint64(0x03F79D71B4CB0A89)
_BIT = np.zeros(64, np.int64)  # index of the lowest set bit, looked up by (bit * _DE_BRUIJN) >> 58
for _b in range(64):
    _BIT[(((1 << _b) * 0x03F79D71B4CB0A89) & (2**64 - 1)) >> 58] = _b


class Instance(NamedTuple):
    """A page problem with N items, K slots and G groups, stored in W words of 64 bits.

    value      [N]     play equivalents, descending
    attention  [K]     weight of each slot
    mask       [N, W]  uint64: bit g of word w is set if the item belongs to group 64 w + g
    groups_of  [N, D]  the same memberships as group numbers, padded with -1
    lower, upper  [G, K]  limits on the number of members in the first k + 1 slots
    window_limit, window_length [G]  at most `window_limit` members in any `window_length` consecutive slots; length 0
                       means no such limit
    row_owner, window_owner [G]  control that owns the count limits and the window limit; -1 = none
    pin        [K]     item pinned to the slot, -1 = none
    row_group, row_slot, row_sign, row_limit [R]  count limits not implied by a neighbouring slot, the only ones with
                       prices; sign +1 is a lower limit, -1 an upper limit
    """

    value: F64
    attention: F64
    mask: np.ndarray
    groups_of: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    window_limit: np.ndarray
    window_length: np.ndarray
    row_owner: np.ndarray
    window_owner: np.ndarray
    pin: np.ndarray
    row_group: np.ndarray
    row_slot: np.ndarray
    row_sign: np.ndarray
    row_limit: np.ndarray


@kernel
def is_member(mask: np.ndarray, item: int, group: int) -> int:
    """Return 1 if the item belongs to the group, else 0."""
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
    spacing_control: I32,
    pin_item: I32,
    pin_slot: I32,
) -> tuple[bool, Instance]:
    """Build the instance; the flag is False if the constraints are proven infeasible.

    order [N]: candidates by descending value; the other arrays are as in `PageConstraints`
    """
    n, slots = len(order), len(attention)
    rows, spacings = len(member), len(code)
    low = np.zeros((rows + 64, slots), np.int64)
    up = np.zeros((rows + 64, slots), np.int64)
    window_limit = np.zeros(rows + 64, np.int64)
    window_length = np.zeros(rows + 64, np.int64)
    row_owner = np.full(rows + 64, -1, np.int64)
    window_owner = np.full(rows + 64, -1, np.int64)
    size = np.zeros(rows + 64, np.int64)
    # row of the group, or -(2 + candidate) for the attribute value of that candidate
    source = np.full(rows + 64, -1, np.int64)
    group_spacing = np.zeros(rows + 64, np.int64)
    groups = 0
    for r in range(rows):
        count = 0
        for i in range(n):
            count += member[r, i]
        restricts = False
        for k in range(slots):
            restricts |= lower[r, k] > 0 or upper[r, k] < min(k + 1, count)
        if restricts:
            for k in range(slots):
                low[groups, k] = max(lower[r, k], 0)
                up[groups, k] = min(upper[r, k], k + 1)
            row_owner[groups], size[groups], source[groups] = row_control[r], count, r
            groups += 1
    row_groups = groups
    for s in range(spacings):
        visited = np.zeros(n, np.bool_)
        history_slots = before.shape[1]
        # in order of value, so that group numbers, and thus ties between pages, do not depend on the input order
        ranked_code = code[s][order]
        for a in range(n):
            first, code_value = order[a], ranked_code[a]
            if code_value < 0 or visited[a]:
                continue
            count, history_count = 0, 0
            for b in range(a, n):
                same = ranked_code[b] == code_value
                visited[b] |= same
                count += same
            for j in range(history_slots - (within[s] - 1), history_slots):
                history_count += j >= 0 and before[s, j] == code_value
            if count + history_count <= at_most[s] or at_most[s] >= within[s]:
                continue
            g = -1
            # windows that start before the page may need limits of their own, and then a group of their own
            if history_count == 0 and slots >= within[s]:
                for h in range(row_groups):
                    if size[h] == count and window_length[h] == 0 and member[source[h], first]:
                        same_items = True
                        for b in range(a, n):
                            if (ranked_code[b] == code_value) != member[source[h], order[b]]:
                                same_items = False
                                break
                        if same_items:
                            g = h
                            break
            if g < 0:
                if groups == len(low):
                    low, up = _grow(low), _grow(up)
                    window_limit, window_length = _grow1(window_limit), _grow1(window_length)
                    row_owner, window_owner = _grow1(row_owner), _grow1(window_owner)
                    size, source, group_spacing = _grow1(size), _grow1(source), _grow1(group_spacing)
                g = groups
                groups += 1
                size[g], source[g], group_spacing[g], row_owner[g] = count, -2 - first, s, -1
                for k in range(slots):
                    up[g, k] = k + 1
                row_owner[g] = spacing_control[s]
                for end in range(min(within[s] - 1, slots)):  # windows that start before the page
                    earlier_count = 0
                    for j in range(history_slots - (within[s] - 1) + end, history_slots):
                        earlier_count += j >= 0 and before[s, j] == code_value
                    # the window that ends in slot `end` starts `within - 1 - end` slots before the page
                    up[g, end] = min(end + 1, max(0, at_most[s] - earlier_count))
            window_limit[g], window_length[g], window_owner[g] = at_most[s], within[s], spacing_control[s]
    words = max(1, (groups + 63) // 64)
    by_candidate = np.zeros((words, n), np.uint64)
    for g in range(groups):
        word, bit = g >> 6, np.uint64(g & 63)
        if source[g] >= 0:
            r = source[g]
            for i in range(n):
                by_candidate[word, i] |= np.uint64(member[r, i]) << bit
        else:
            s, code_value = group_spacing[g], code[group_spacing[g], -2 - source[g]]
            for i in range(n):
                by_candidate[word, i] |= np.uint64(code[s, i] == code_value) << bit
    mask = np.empty((n, words), np.uint64)
    by_value = np.empty(n)
    for a in range(n):
        by_value[a] = value[order[a]]
        for word in range(words):
            mask[a, word] = by_candidate[word, order[a]]
    pin, feasible = _pins_by_slot(order, pin_item, pin_slot, slots)
    low, up = low[:groups].copy(), up[:groups].copy()
    feasible &= _tighten_limits(low, up, mask, pin, size)
    row_group, row_slot, row_sign, row_limit = _irredundant_rows(low, up, size, mask, pin)
    return feasible, Instance(
        by_value,
        attention,
        mask,
        _groups_of(mask),
        low,
        up,
        window_limit[:groups].copy(),
        window_length[:groups].copy(),
        row_owner[:groups].copy(),
        window_owner[:groups].copy(),
        pin,
        row_group,
        row_slot,
        row_sign,
        row_limit,
    )


@kernel
def _grow(table: np.ndarray) -> np.ndarray:
    grown = np.zeros((2 * len(table), table.shape[1]), np.int64)
    grown[: len(table)] = table
    return grown


@kernel
def _grow1(vector: np.ndarray) -> np.ndarray:
    grown = np.zeros(2 * len(vector), np.int64)
    grown[: len(vector)] = vector
    return grown


@kernel
def _pins_by_slot(order: np.ndarray, pin_item: I32, pin_slot: I32, slots: int) -> tuple[np.ndarray, bool]:
    """Return the pinned item of each slot [K], and whether all pins can be satisfied together."""
    pin = np.full(slots, -1, np.int64)
    feasible = True
    for p in range(len(pin_item)):
        if pin_item[p] < 0 or pin_slot[p] >= slots:
            feasible = False
            continue
        for a in range(len(order)):
            if order[a] == pin_item[p]:
                for k in range(slots):
                    feasible &= not (pin[k] == a and k != pin_slot[p])
                feasible &= pin[pin_slot[p]] == -1 or pin[pin_slot[p]] == a
                pin[pin_slot[p]] = a
                break
    return pin, feasible


@kernel
def _tighten_limits(low: np.ndarray, up: np.ndarray, mask: np.ndarray, pin: np.ndarray, size: np.ndarray) -> bool:
    """Tighten the limits in place without excluding any feasible page; return False if they contradict each other."""
    groups, slots = low.shape
    feasible = True
    for g in range(groups):
        for forward in (True, False):
            for step in range(slots):
                k = step if forward else slots - 1 - step
                added_min, added_max = 0, 1  # members added by the next slot (forward: by this slot)
                slot = k if forward else k + 1
                if slot < slots and pin[slot] >= 0:
                    added_min = added_max = is_member(mask, pin[slot], g)
                if forward:
                    low[g, k] = max(low[g, k], added_min + (low[g, k - 1] if k else 0))
                    up[g, k] = min(up[g, k], added_max + (up[g, k - 1] if k else 0))
                elif k + 1 < slots:
                    low[g, k] = max(low[g, k], low[g, k + 1] - added_max)
                    up[g, k] = min(up[g, k], up[g, k + 1] - added_min)
        for k in range(slots):
            feasible &= low[g, k] <= up[g, k]
        feasible &= low[g, slots - 1] <= size[g]
    return feasible


@kernel
def _irredundant_rows(
    low: np.ndarray, up: np.ndarray, size: np.ndarray, mask: np.ndarray, pin: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return group, slot, sign and limit of each count limit that no neighbouring slot implies."""
    groups, slots = low.shape
    group, slot = np.empty(2 * groups * slots, np.int64), np.empty(2 * groups * slots, np.int64)
    sign, limit = np.empty(2 * groups * slots, np.int64), np.empty(2 * groups * slots, np.int64)
    count = 0
    for g in range(groups):
        for k in range(slots):
            bound = low[g, k]
            if bound > 0 and (k == 0 or low[g, k - 1] < bound) and (k == slots - 1 or low[g, k + 1] <= bound):
                group[count], slot[count], sign[count], limit[count] = g, k, 1, bound
                count += 1
            bound = up[g, k]
            if (
                bound < min(k + 1, size[g])
                and (k == 0 or up[g, k - 1] >= bound)
                and (k == slots - 1 or up[g, k + 1] > bound)
            ):
                group[count], slot[count], sign[count], limit[count] = g, k, -1, bound
                count += 1
    return group[:count].copy(), slot[:count].copy(), sign[:count].copy(), limit[:count].copy()


@kernel
def _groups_of(mask: np.ndarray) -> np.ndarray:
    """Return the group numbers of each item [N, D], padded with -1."""
    n, words = mask.shape
    table = np.full((n, 64 * words), -1, np.int64) if words > 1 else np.full((n, 64), -1, np.int64)
    depth = 1
    for i in range(n):
        count = 0
        for word in range(words):
            remaining = mask[i, word]
            while remaining != np.uint64(0):
                bit = remaining & (~remaining + np.uint64(1))
                table[i, count] = 64 * word + _BIT[(bit * _DE_BRUIJN) >> np.uint64(58)]
                count += 1
                remaining ^= bit
        depth = max(depth, count)
    return table[:, :depth].copy()
