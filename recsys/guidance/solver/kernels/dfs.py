"""Depth-first search for any feasible page, with nogoods.

A state from which no page can be completed is recorded as a nogood, by a 64-bit hash of everything that still matters.
Items are in the order of `ReducedProblem`, by descending value, so the page found tends to be good.
"""

from __future__ import annotations

import numpy as np

from recsys.domain.types import I32, Bool
from recsys.guidance.solver.kernels import kernel

DONE, LIMIT = 0, 1
MAX_NOGOODS = 40_000


@kernel
def depth_first(
    member: Bool,
    lower: I32,
    upper: I32,
    window_limit: I32,
    window_length: I32,
    pin: I32,
    duplicate_of: I32,
    family: I32,
    family_size: I32,
    page: I32,
    node_limit: int,
) -> tuple[int, bool]:
    """Fill page [K] with the first feasible page found.

    Returns DONE or, after `node_limit` nodes, LIMIT, and whether a page was found. Arrays as in `ReducedProblem`;
    family [n] numbers the sets of interchangeable items, and family_size [families] gives their sizes.
    """
    (groups, n), slots = member.shape, len(pin)
    groups_of = _group_lists(member)
    safe_count = _safe_counts(upper)
    used = np.zeros(n, np.bool_)
    for k in range(slots):
        if pin[k] >= 0:
            used[pin[k]] = True
    count = np.zeros((slots + 1, groups), np.int32)
    cursor = np.zeros(slots, np.int64)
    required, required_count = np.zeros((slots, groups), np.int32), np.zeros(slots, np.int32)
    key = np.zeros(slots, np.uint64)
    nogoods = np.zeros(1 << 17, np.uint64)
    page[:] = -1
    nogood_count, nodes, k, entering = 0, 0, 0, True
    while k >= 0:
        if entering:
            entering = False
            cursor[k] = required_count[k] = 0
            for g in range(groups):
                if count[k, g] < lower[g, k]:
                    required[k, required_count[k]] = g
                    required_count[k] += 1
            key[k] = _state_key(
                k, count, page, lower, safe_count, window_length, member, family, family_size, slots, groups
            )
            if _is_nogood(nogoods, key[k]):
                k -= 1
                continue
        elif page[k] >= 0:
            if pin[k] < 0:
                used[page[k]] = False
            page[k] = -1
        extended = False
        width = n if pin[k] < 0 else 1
        while cursor[k] < width:
            i = cursor[k] if pin[k] < 0 else pin[k]
            cursor[k] += 1
            if pin[k] < 0 and (used[i] or (duplicate_of[i] >= 0 and not used[duplicate_of[i]])):
                continue
            if not _fits(
                i, k, count, page, groups_of, member, upper, window_limit, window_length, required, required_count
            ):
                continue
            for g in range(groups):
                count[k + 1, g] = count[k, g] + member[g, i]
            page[k], used[i], extended = i, True, True
            break
        if not extended:
            if nogood_count < MAX_NOGOODS:
                _add_nogood(nogoods, key[k])
                nogood_count += 1
            k -= 1
            continue
        nodes += 1
        if k == slots - 1:
            return DONE, True
        if nodes >= node_limit:
            return LIMIT, False
        k, entering = k + 1, True
    return DONE, False


@kernel
def _group_lists(member: Bool) -> I32:
    """Return the groups of each item [n, M], padded with -1."""
    groups, n = member.shape
    lists = np.full((n, max(groups, 1)), -1, np.int32)
    for i in range(n):
        depth = 0
        for g in range(groups):
            if member[g, i]:
                lists[i, depth] = g
                depth += 1
    return lists


@kernel
def _safe_counts(upper: I32) -> I32:
    """Return the largest count before slot k at which the upper limit can no longer be exceeded [G, K]."""
    groups, slots = upper.shape
    safe_count = np.empty((groups, slots), np.int32)
    for g in range(groups):
        tightest = 1 << 20
        for k in range(slots - 1, -1, -1):
            tightest = min(tightest, upper[g, k] - k - 1)
            safe_count[g, k] = tightest + k
    return safe_count


@kernel
def _fits(
    i: int,
    k: int,
    count: I32,
    page: I32,
    groups_of: I32,
    member: Bool,
    upper: I32,
    window_limit: I32,
    window_length: I32,
    required: I32,
    required_count: I32,
) -> bool:
    """Return whether item i may be placed in slot k after the current partial page."""
    for m in range(required_count[k]):
        if not member[required[k, m], i]:
            return False
    for m in range(groups_of.shape[1]):
        g = groups_of[i, m]
        if g < 0:
            break
        if count[k, g] + 1 > upper[g, k]:
            return False
        if window_length[g] > 1 and count[k, g] - count[max(0, k - window_length[g] + 1), g] + 1 > window_limit[g]:
            return False
    return True


@kernel
def _mix64(number: np.uint64) -> np.uint64:
    """Return the splitmix64 hash of a 64-bit number."""
    z = number * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@kernel
def _state_key(
    k: int,
    count: I32,
    page: I32,
    lower: I32,
    safe_count: I32,
    window_length: I32,
    member: Bool,
    family: I32,
    family_size: I32,
    slots: int,
    groups: int,
) -> np.uint64:
    """Hash everything that matters from slot k on.

    This covers counts that can still bind, recent members within windows, and families that may run out of items.
    """
    key = _mix64(np.uint64(k + 1))
    for g in range(groups):
        if lower[g, slots - 1] > count[k, g] or count[k, g] > safe_count[g, k]:
            key += _mix64(np.uint64(1_000_003 * (g + 1) + count[k, g]))
        for j in range(max(0, k - window_length[g] + 1), k):
            if count[j + 1, g] > count[j, g]:
                key += _mix64(np.uint64(7_000_000_001 * (g + 1) + j))
    for j in range(k):
        kind = family[page[j]]
        used_count = 0
        for s in range(k):
            used_count += family[page[s]] == kind
        if family_size[kind] - used_count < slots - k:
            key += _mix64(np.uint64(90_000_000_017 + kind))
    return max(key, np.uint64(1))


@kernel
def _is_nogood(table: np.ndarray, key: np.uint64) -> bool:
    """Return whether the key is recorded as a nogood."""
    entry = key & np.uint64(len(table) - 1)
    while table[entry] != 0:
        if table[entry] == key:
            return True
        entry = (entry + np.uint64(1)) & np.uint64(len(table) - 1)
    return False


@kernel
def _add_nogood(table: np.ndarray, key: np.uint64) -> None:
    """Record the key as a nogood."""
    entry = key & np.uint64(len(table) - 1)
    while table[entry] != 0:
        entry = (entry + np.uint64(1)) & np.uint64(len(table) - 1)
    table[entry] = key
