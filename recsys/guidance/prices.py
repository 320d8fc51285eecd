"""Prices on the limits of a page (Lagrangian relaxation), by the assignment problem that remains.

With a price on every limit, the page falls apart into an assignment of items to slots, and for *any* prices >= 0

    bound = assignment(c) - sum low * lower + sum up * upper + sum run * run_most      (weak duality)
    c[k, i] = attention[k] * value[i] + sum_{groups g of i} adder[g, k]
    adder[g, k] = sum_{p >= k} (low[g, p] - up[g, p]) - sum of run[g, q] over windows q that contain k

is worth at least as much as every page within the limits. Steps follow AdaGrad on each limit's violation.
Kernels are compiled by numba and call nothing outside this file, so that its cache cannot go stale.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from recsys.types import F64, I32, Bool

FAR = 1e12


@njit(cache=True)
def assign(profit: F64, page: I32, rent: F64, wage: F64) -> None:
    """The most profitable items for the rows of profit [F, n], F <= n (Hungarian method, shortest augmenting paths).

    Fills page [F], rent [F] and wage [n] >= 0 with profit[f, i] <= rent[f] + wage[i], equal on the page; wage is 0 for
    items left over. So sum(rent) + sum(wage) is the profit of the page.
    """
    rows, n = profit.shape
    holder = np.full(n + 1, -1, np.int32)  # row that holds an item; the last place is the row being put in
    u, v = np.zeros(rows), np.zeros(n)
    reach, via, done = np.empty(n), np.empty(n, np.int32), np.empty(n, np.bool_)
    for row in range(rows):
        for j in range(n):
            reach[j], via[j], done[j] = FAR, -1, False
        here, at = row, -1
        while True:
            step, nearest = FAR, -1
            for j in range(n):
                if not done[j]:
                    cost = -profit[here, j] - u[here] - v[j]
                    if cost < reach[j]:
                        reach[j], via[j] = cost, at
                    if reach[j] < step:
                        step, nearest = reach[j], j
            u[row] += step
            for j in range(n):
                if done[j]:
                    u[holder[j]] += step
                    v[j] -= step
                else:
                    reach[j] -= step
            done[nearest] = True
            at = nearest
            if holder[nearest] < 0:
                break
            here = holder[nearest]
        while at >= 0:
            before = via[at]
            holder[at] = row if before < 0 else holder[before]
            at = before
    for j in range(n):
        wage[j] = -v[j]
        if holder[j] >= 0:
            page[holder[j]] = j
    for row in range(rows):
        rent[row] = -u[row]


@njit(cache=True)
def adders(low: F64, up: F64, run: F64, run_within: I32, adder: F64) -> None:
    """Fills adder [G, K] from the prices [G, K]."""
    groups, slots = low.shape
    for g in range(groups):
        later = 0.0
        for k in range(slots - 1, -1, -1):
            later += low[g, k] - up[g, k]
            adder[g, k] = later
        if run_within[g] > 1:
            for q in range(slots - run_within[g] + 1):
                if run[g, q] > 0.0:
                    for k in range(q, q + run_within[g]):
                        adder[g, k] -= run[g, q]


@njit(cache=True)
def ascend(
    value: F64,
    attention: F64,
    groups_of: I32,
    lower: I32,
    upper: I32,
    run_most: I32,
    run_within: I32,
    pin: I32,
    asks_low: Bool,
    asks_up: Bool,
    low: F64,
    up: F64,
    run: F64,
    steps: int,
    stride: float,
    best_value: float,
    best_page: I32,
    loss: F64,
    wage: F64,
) -> tuple[float, float]:
    """Improve prices low, up, run [G, K] in place; returns the least bound found and the value of the best page found.

    value [n], attention [K], groups_of [n, M] padded with -1, limits [G, K], pin [K] (-1 = any);
    asks_low, asks_up [G, K] which limits carry prices; stride: length of the first step in clicks.
    best_page [K], best_value: a page already known (-inf: none), overwritten by better ones.
    Fills loss [K, n] = rent + wage - c >= 0 (0 at pins) and wage [n] of the best prices.
    """
    n, slots, groups = len(value), len(attention), len(lower)
    free = np.flatnonzero(pin < 0)
    profit = np.empty((len(free), n))
    got = np.empty(len(free), np.int32)
    rent = np.empty(len(free))
    pay = np.empty(n)
    adder = np.empty((groups, slots))
    priced = np.empty(groups, np.bool_)
    count = np.empty((groups, slots + 1), np.int32)
    force = np.zeros((3, groups, slots))  # gathered squares of violations, per kind of price
    drift = np.zeros((3, groups, slots))
    kept_low, kept_up, kept_run = low.copy(), up.copy(), run.copy()
    page = np.empty(slots, np.int32)
    pinned = np.zeros(n, np.bool_)
    for k in range(slots):
        if pin[k] >= 0:
            pinned[pin[k]] = True
    least = np.inf
    for step in range(steps + 1):
        if step == steps:  # once more with the best prices, for the losses
            low[:], up[:], run[:] = kept_low, kept_up, kept_run
        adders(low, up, run, run_within, adder)
        for g in range(groups):
            priced[g] = np.any(adder[g] != 0.0)
        for i in range(n):
            for f in range(len(free)):
                profit[f, i] = -1e6 if pinned[i] else attention[free[f]] * value[i]
            for m in range(groups_of.shape[1]):
                g = groups_of[i, m]
                if g >= 0 and priced[g]:
                    for f in range(len(free)):
                        profit[f, i] += adder[g, free[f]]
        assign(profit, got, rent, pay)
        bound = rent.sum() + pay.sum()
        for f in range(len(free)):
            page[free[f]] = got[f]
        for k in range(slots):
            if pin[k] >= 0:
                page[k] = pin[k]
                bound += attention[k] * value[pin[k]]
                for m in range(groups_of.shape[1]):
                    if groups_of[pin[k], m] >= 0:
                        bound += adder[groups_of[pin[k], m], k]
        count[:] = 0
        for k in range(slots):
            for g in range(groups):
                count[g, k + 1] = count[g, k]
            for m in range(groups_of.shape[1]):
                if groups_of[page[k], m] >= 0:
                    count[groups_of[page[k], m], k + 1] += 1
        holds = True
        for g in range(groups):
            for k in range(slots):
                bound += up[g, k] * upper[g, k] - low[g, k] * lower[g, k]
                holds &= lower[g, k] <= count[g, k + 1] <= upper[g, k]
            for q in range(slots - run_within[g] + 1 if run_within[g] > 1 else 0):
                bound += run[g, q] * run_most[g]
                holds &= count[g, q + run_within[g]] - count[g, q] <= run_most[g]
        if holds:
            worth = 0.0
            for k in range(slots):
                worth += attention[k] * value[page[k]]
            if worth > best_value:
                best_value = worth
                best_page[:] = page
        if step < steps and bound < least - 1e-12:
            least = bound
            kept_low[:], kept_up[:], kept_run[:] = low, up, run
        if step == steps:
            least = min(least, bound)
            break
        if least - best_value <= 1e-10 * (1.0 + abs(least)):
            steps = step + 1
            continue
        pace = stride * (1.0 - 0.85 * step / steps)
        for g in range(groups):
            for k in range(slots):
                if asks_low[g, k]:
                    low[g, k] = _moved(
                        low[g, k], lower[g, k] - count[g, k + 1], pace * attention[k], force, drift, 0, g, k
                    )
                if asks_up[g, k]:
                    up[g, k] = _moved(
                        up[g, k], count[g, k + 1] - upper[g, k], pace * attention[k], force, drift, 1, g, k
                    )
            for q in range(slots - run_within[g] + 1 if run_within[g] > 1 else 0):
                over = count[g, q + run_within[g]] - count[g, q] - run_most[g]
                run[g, q] = _moved(run[g, q], over, pace * attention[q], force, drift, 2, g, q)
    loss[:] = 0.0
    for f in range(len(free)):
        for i in range(n):
            loss[free[f], i] = max(0.0, rent[f] + pay[i] - profit[f, i])
    wage[:] = pay
    return least, best_value


@njit(cache=True)
def _moved(price: float, off: int, pace: float, force: F64, drift: F64, kind: int, g: int, k: int) -> float:
    """One AdaGrad step with momentum; a limit that holds and costs nothing stays asleep."""
    if off <= 0 and price == 0.0:
        return 0.0
    force[kind, g, k] += off * off
    drift[kind, g, k] = 0.4 * drift[kind, g, k] + 0.6 * off
    stepped: float = price + pace * drift[kind, g, k] / math.sqrt(1.0 + force[kind, g, k])
    return max(0.0, stepped)
