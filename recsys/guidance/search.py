"""Exhaustive search over pages, slot by slot, by *loss*: what a page forgoes against the bound of the prices.

    value(page) = bound - sum_k loss[k, page[k]] - sum_{items left over} wage - sum price * slack

and every term is >= 0. So a partial page that has lost more than `bound - best` cannot become a better page, and trying
the smallest loss first finds good pages early. Without a budget the same search settles whether any page exists; then
states that led nowhere are remembered by a 64-bit hash of all that matters for what is left.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from recsys.types import F64, I32, Bool

DONE, LIMIT = 0, 1


@njit(cache=True)
def search(
    value: F64,
    attention: F64,
    groups_of: I32,
    member: Bool,
    lower: I32,
    upper: I32,
    run_most: I32,
    run_within: I32,
    pin: I32,
    twin: I32,
    twins_in_order: bool,
    family: I32,
    family_size: I32,
    loss: F64,
    wage: F64,
    low: F64,
    up: F64,
    run: F64,
    bound: float,
    budget: float,
    best_value: float,
    best_page: I32,
    first_only: bool,
    limit: int,
) -> tuple[int, float, int]:
    """Best page that loses at most `budget`; returns (DONE | LIMIT, its value, nodes).

    Arrays as in `prices.ascend`; twin [n] next better item alike (-1 = none), family [n] and family_size [families] say
    which items are alike. best_value, best_page [K]: the page to beat, overwritten. first_only: stop at the first page,
    remember dead ends, ignore the budget. DONE means that no page within the budget was passed over.
    """
    n, slots, groups = len(value), len(attention), len(lower)
    order, width = _orders(loss, pin, np.inf if first_only else budget, slots, n)
    late, stake = _late(loss, wage, pin)
    room = _room(upper)
    used = np.zeros(n, np.bool_)
    for k in range(slots):
        if pin[k] >= 0:
            used[pin[k]] = True
    spent = np.zeros(slots + 1)
    count = np.zeros((slots + 1, groups), np.int32)
    page = np.full(slots, -1, np.int32)
    place = np.zeros(slots, np.int64)
    must = np.zeros((slots, groups), np.int32)
    musts = np.zeros(slots, np.int32)
    key = np.zeros(slots, np.uint64)
    dead = np.zeros(1 << 16 if first_only else 1, np.uint64)
    remembered = 0
    tolerance = 1e-10 * (1.0 + abs(bound))
    nodes, k, entering = 0, 0, True
    while k >= 0:
        if entering:
            entering = False
            place[k] = 0
            musts[k] = 0
            for g in range(groups):
                if count[k, g] < lower[g, k]:
                    must[k, musts[k]] = g
                    musts[k] += 1
            if first_only:
                key[k] = _state(k, count, page, lower, room, run_within, member, family, family_size, slots, groups)
                if _known(dead, key[k]):
                    k -= 1
                    continue
        elif page[k] >= 0:
            if pin[k] < 0:
                used[page[k]] = False
            page[k] = -1
        placed = False
        while place[k] < width[k]:
            i = order[k, place[k]]
            place[k] += 1
            if not first_only and spent[k] + loss[k, i] > budget:
                place[k] = width[k]
                break
            if pin[k] < 0 and (used[i] or (twins_in_order and twin[i] >= 0 and not used[twin[i]])):
                continue
            if not _fits(i, k, count, page, groups_of, member, upper, run_most, run_within, must, musts):
                continue
            for g in range(groups):
                count[k + 1, g] = count[k, g] + member[g, i]
            page[k] = i
            used[i] = True
            spent[k + 1] = spent[k] + loss[k, i]
            if not first_only:
                spent[k + 1] += _slack(k, count, page, member, lower, upper, run_most, run_within, low, up, run, groups)
                ahead = spent[k + 1]
                for j in stake:
                    if not used[j]:
                        ahead += late[k + 1, j]
                if ahead > budget:
                    if pin[k] < 0:
                        used[i] = False
                    page[k] = -1
                    continue
            placed = True
            break
        if not placed:
            if first_only and remembered < 40_000:
                _remember(dead, key[k])
                remembered += 1
            k -= 1
            continue
        nodes += 1
        if k == slots - 1:
            worth = 0.0
            for s in range(slots):
                worth += attention[s] * value[page[s]]
            if worth > best_value + (0.0 if best_value == -np.inf else tolerance):
                best_value = worth
                best_page[:] = page
                budget = min(budget, bound - worth - tolerance)
            if first_only:
                return DONE, best_value, nodes
        elif nodes >= limit:
            return LIMIT, best_value, nodes
        else:
            k += 1
            entering = True
    return DONE, best_value, nodes


@njit(cache=True)
def _orders(loss: F64, pin: I32, budget: float, slots: int, n: int) -> tuple[I32, I32]:
    """[K, n] items of each slot by rising loss, and how many [K] lie within the budget."""
    order, width = np.empty((slots, n), np.int32), np.empty(slots, np.int32)
    for k in range(slots):
        if pin[k] >= 0:
            order[k, 0], width[k] = pin[k], 1
            continue
        inside = np.flatnonzero(loss[k] <= budget)
        by_loss = inside[np.argsort(loss[k][inside], kind="mergesort")]
        width[k] = len(by_loss)
        for j in range(len(by_loss)):
            order[k, j] = by_loss[j]
    return order, width


@njit(cache=True)
def _late(loss: F64, wage: F64, pin: I32) -> tuple[F64, I32]:
    """[K + 1, n] least that an unused item with a wage still loses from slot k on, and those items."""
    slots, n = loss.shape
    late = np.zeros((slots + 1, n))
    late[slots] = wage
    for k in range(slots - 1, -1, -1):
        for i in range(n):
            late[k, i] = min(late[k + 1, i], loss[k, i]) if pin[k] < 0 else late[k + 1, i]
    return late, np.flatnonzero(wage > 1e-12).astype(np.int32)


@njit(cache=True)
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


@njit(cache=True)
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


@njit(cache=True)
def _slack(
    k: int,
    count: I32,
    page: I32,
    member: Bool,
    lower: I32,
    upper: I32,
    run_most: I32,
    run_within: I32,
    low: F64,
    up: F64,
    run: F64,
    groups: int,
) -> float:
    """What the limits that end in slot k lose by not being tight: price x slack."""
    lost = 0.0
    for g in range(groups):
        if low[g, k] > 0.0:
            lost += low[g, k] * (count[k + 1, g] - lower[g, k])
        if up[g, k] > 0.0:
            lost += up[g, k] * (upper[g, k] - count[k + 1, g])
        start = k - run_within[g] + 1
        if run_within[g] > 1 and start >= 0 and run[g, start] > 0.0:
            lost += run[g, start] * (run_most[g] - count[k + 1, g] + count[start, g])
    return lost


@njit(cache=True)
def _mixed(number: np.uint64) -> np.uint64:
    """splitmix64: a 64-bit hash of a number."""
    z = number * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(cache=True)
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


@njit(cache=True)
def _known(table: np.ndarray, key: np.uint64) -> bool:
    at = key & np.uint64(len(table) - 1)
    while table[at] != 0:
        if table[at] == key:
            return True
        at = (at + np.uint64(1)) & np.uint64(len(table) - 1)
    return False


@njit(cache=True)
def _remember(table: np.ndarray, key: np.uint64) -> None:
    at = key & np.uint64(len(table) - 1)
    while table[at] != 0:
        at = (at + np.uint64(1)) & np.uint64(len(table) - 1)
    table[at] = key
