"""Any page at all, depth first; states that led nowhere are remembered by a 64-bit hash of all that still matters.

Items come in the order of a `Problem`: by falling value, so that the page found is not a bad one.
"""

from __future__ import annotations

import numpy as np

from recsys.domain.types import I32, Bool
from recsys.guidance.solver.kernels import kernel

DONE, LIMIT = 0, 1
MAX_NOGOODS = 40_000  # dead ends


@kernel
def depth_first(
    member: Bool,
    lower: I32,
    upper: I32,
    run_most: I32,
    run_within: I32,
    pin: I32,
    twin: I32,
    family: I32,
    family_size: I32,
    page: I32,
    limit: int,
) -> tuple[int, bool]:
    """Fills page [K] with the first page found; (DONE | LIMIT after `limit` nodes, whether one was found).

    Arrays as in `Problem`; family [n] and family_size [families] say which items are alike.
    """
    (groups, n), slots = member.shape, len(pin)
    groups_of = _numbers(member)
    room = _room(upper)
    used = np.zeros(n, np.bool_)
    for k in range(slots):
        if pin[k] >= 0:
            used[pin[k]] = True
    count = np.zeros((slots + 1, groups), np.int32)
    place = np.zeros(slots, np.int64)
    must, musts = np.zeros((slots, groups), np.int32), np.zeros(slots, np.int32)
    key = np.zeros(slots, np.uint64)
    dead = np.zeros(1 << 17, np.uint64)
    page[:] = -1
    remembered, nodes, k, entering = 0, 0, 0, True
    while k >= 0:
        if entering:
            entering = False
            place[k] = musts[k] = 0
            for g in range(groups):
                if count[k, g] < lower[g, k]:
                    must[k, musts[k]] = g
                    musts[k] += 1
            key[k] = _state(k, count, page, lower, room, run_within, member, family, family_size, slots, groups)
            if _is_nogood(dead, key[k]):
                k -= 1
                continue
        elif page[k] >= 0:
            if pin[k] < 0:
                used[page[k]] = False
            page[k] = -1
        placed = False
        width = n if pin[k] < 0 else 1
        while place[k] < width:
            i = place[k] if pin[k] < 0 else pin[k]
            place[k] += 1
            if pin[k] < 0 and (used[i] or (twin[i] >= 0 and not used[twin[i]])):
                continue
            if not _fits(i, k, count, page, groups_of, member, upper, run_most, run_within, must, musts):
                continue
            for g in range(groups):
                count[k + 1, g] = count[k, g] + member[g, i]
            page[k], used[i], placed = i, True, True
            break
        if not placed:
            if remembered < MAX_NOGOODS:
                _add_nogood(dead, key[k])
                remembered += 1
            k -= 1
            continue
        nodes += 1
        if k == slots - 1:
            return DONE, True
        if nodes >= limit:
            return LIMIT, False
        k, entering = k + 1, True
    return DONE, False


@kernel
def _numbers(member: Bool) -> I32:
    """[n, M] groups of each item, padded with -1."""
    groups, n = member.shape
    numbers = np.full((n, max(groups, 1)), -1, np.int32)
    for i in range(n):
        at = 0
        for g in range(groups):
            if member[g, i]:
                numbers[i, at] = g
                at += 1
    return numbers


@kernel
def _room(upper: I32) -> I32:
    """[G, K] the largest count before slot k with which the cap can no longer matter."""
    groups, slots = upper.shape
    room = np.empty((groups, slots), np.int32)
    for g in range(groups):
        tightest = 1 << 20
        for k in range(slots - 1, -1, -1):
            tightest = min(tightest, upper[g, k] - k - 1)
            room[g, k] = tightest + k
    return room


@kernel
def _fits(
    i: int,
    k: int,
    count: I32,
    page: I32,
    groups_of: I32,
    member: Bool,
    upper: I32,
    run_most: I32,
    run_within: I32,
    must: I32,
    musts: I32,
) -> bool:
    """Whether item i may stand in slot k after the page so far."""
    for m in range(musts[k]):
        if not member[must[k, m], i]:
            return False
    for m in range(groups_of.shape[1]):
        g = groups_of[i, m]
        if g < 0:
            break
        if count[k, g] + 1 > upper[g, k]:
            return False
        if run_within[g] > 1 and count[k, g] - count[max(0, k - run_within[g] + 1), g] + 1 > run_most[g]:
            return False
    return True


@kernel
def _mixed(number: np.uint64) -> np.uint64:
    """splitmix64: a 64-bit hash of a number."""
    z = number * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@kernel
def _state(
    k: int,
    count: I32,
    page: I32,
    lower: I32,
    room: I32,
    run_within: I32,
    member: Bool,
    family: I32,
    family_size: I32,
    slots: int,
    groups: int,
) -> np.uint64:
    """Hash of all that matters from slot k on: counts that still bind, who stood lately, kinds that may run out."""
    key = _mixed(np.uint64(k + 1))
    for g in range(groups):
        if lower[g, slots - 1] > count[k, g] or count[k, g] > room[g, k]:
            key += _mixed(np.uint64(1_000_003 * (g + 1) + count[k, g]))
        for j in range(max(0, k - run_within[g] + 1), k):
            if count[j + 1, g] > count[j, g]:
                key += _mixed(np.uint64(7_000_000_001 * (g + 1) + j))
    for j in range(k):
        kind = family[page[j]]
        gone = 0
        for s in range(k):
            gone += family[page[s]] == kind
        if family_size[kind] - gone < slots - k:
            key += _mixed(np.uint64(90_000_000_017 + kind))
    return max(key, np.uint64(1))


@kernel
def _is_nogood(table: np.ndarray, key: np.uint64) -> bool:
    at = key & np.uint64(len(table) - 1)
    while table[at] != 0:
        if table[at] == key:
            return True
        at = (at + np.uint64(1)) & np.uint64(len(table) - 1)
    return False


@kernel
def _add_nogood(table: np.ndarray, key: np.uint64) -> None:
    at = key & np.uint64(len(table) - 1)
    while table[at] != 0:
        at = (at + np.uint64(1)) & np.uint64(len(table) - 1)
    table[at] = key
