"""Lagrangian relaxation of the count and window limits; an assignment problem remains.

For any prices >= 0 on the limits, weak duality gives a dual bound on the value of every feasible page:

    bound = assignment(c) - sum price * sign * limit + sum window price * window_limit
    c[i, k] = attention[k] * value[i] + sum_{groups g of i} adjustment[g, k]
    adjustment[g, k] = sum_{rows of g at p >= k} sign * price - sum of window prices over windows that contain k

Two subgradient methods update the prices: AdaGrad steps (Duchi et al. 2011) on the violations of a page that is only
improved by local swaps, then Polyak steps (Polyak 1969) on the violations of the optimal assignment.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recsys.domain.types import F64
from recsys.guidance.solver.kernels import kernel
from recsys.guidance.solver.kernels.assignment import FAR
from recsys.guidance.solver.kernels.instance import Instance


class Prices(NamedTuple):
    """Lagrange multipliers, in play equivalents, >= 0.

    row     [R]     price of each count limit
    window  [G, K]  price of each window limit, indexed by the first slot of the window
    """

    row: F64
    window: F64


class AdagradState(NamedTuple):
    """State of the AdaGrad steps: sums of squared violations and momentum, for rows and for windows."""

    row_square_sum: F64
    row_momentum: F64
    window_square_sum: F64
    window_momentum: F64


@kernel
def zero_prices(instance: Instance) -> Prices:
    """Return prices of 0 for all limits."""
    groups, slots = instance.lower.shape
    return Prices(np.zeros(len(instance.row_group)), np.zeros((groups, slots)))


@kernel
def new_adagrad_state(instance: Instance) -> AdagradState:
    """Return the initial AdaGrad state."""
    rows, (groups, slots) = len(instance.row_group), instance.lower.shape
    return AdagradState(np.zeros(rows), np.zeros(rows), np.zeros((groups, slots)), np.zeros((groups, slots)))


@kernel
def fill_adjustment(instance: Instance, prices: Prices, adjustment: F64, priced: np.ndarray) -> None:
    """Fill adjustment [G, K] with the sum of prices on a member of each group, and priced [G]: whether any is > 0."""
    groups, slots = adjustment.shape
    for g in range(groups):
        if priced[g]:
            for k in range(slots):
                adjustment[g, k] = 0.0
        priced[g] = False
    for r in range(len(prices.row)):
        if prices.row[r] > 0.0:
            adjustment[instance.row_group[r], instance.row_slot[r]] += instance.row_sign[r] * prices.row[r]
            priced[instance.row_group[r]] = True
    for g in range(groups):
        if priced[g]:
            suffix_sum = 0.0
            for k in range(slots - 1, -1, -1):
                suffix_sum += adjustment[g, k]
                adjustment[g, k] = suffix_sum
        window = instance.window_length[g]
        if window:
            for q in range(slots - window + 1):
                if prices.window[g, q] > 0.0:
                    priced[g] = True
                    for k in range(q, q + window):
                        adjustment[g, k] -= prices.window[g, q]


@kernel
def fill_profit(instance: Instance, working_set: np.ndarray, adjustment: F64, priced: np.ndarray, profit: F64) -> None:
    """Fill profit [M, K] with the Lagrangian profits c of the items in working_set [M]."""
    slots = profit.shape[1]
    depth = instance.groups_of.shape[1]
    for a in range(len(working_set)):
        i = working_set[a]
        v = instance.value[i]
        for k in range(slots):
            profit[a, k] = instance.attention[k] * v
        for d in range(depth):
            g = instance.groups_of[i, d]
            if g < 0:
                break
            if priced[g]:
                for k in range(slots):
                    profit[a, k] += adjustment[g, k]


@kernel
def fill_reduced_value(
    instance: Instance, adjustment: F64, priced: np.ndarray, slot_price: F64, reduced_value: F64
) -> None:
    """Fill reduced_value [N] with max_k c[i, k] - slot_price[k] over free slots; pinned items get -FAR.

    The reduced value is the negated reduced cost: an upper bound on what the item can add to the assignment.
    """
    slots, depth = len(slot_price), instance.groups_of.shape[1]
    c = np.empty(slots)
    for i in range(len(reduced_value)):
        v = instance.value[i]
        for k in range(slots):
            c[k] = instance.attention[k] * v - slot_price[k]
        for d in range(depth):
            g = instance.groups_of[i, d]
            if g < 0:
                break
            if priced[g]:
                for k in range(slots):
                    c[k] += adjustment[g, k]
        best = -FAR
        for k in range(slots):
            best = max(best, c[k])
        reduced_value[i] = best
    for k in range(slots):
        if instance.pin[k] >= 0:
            reduced_value[instance.pin[k]] = -FAR


@kernel
def swap_improve(profit: F64, page: np.ndarray, used: np.ndarray, fixed: np.ndarray, sweeps: int) -> None:
    """Improve a page [K] of columns by replacing one item or swapping two, in at most `sweeps` sweeps.

    Slots with fixed [K] keep their column.
    """
    m, slots = profit.shape
    best, best_column = np.empty(slots), np.empty(slots, np.int64)
    swap_profit = np.empty((slots, slots))
    for _ in range(sweeps):
        changed = False
        for k in range(slots):
            best[k], best_column[k] = -FAR, -1
        for a in range(m):
            if not used[a]:
                for k in range(slots):
                    better = profit[a, k] > best[k]
                    best[k] = profit[a, k] if better else best[k]
                    best_column[k] = a if better else best_column[k]
        for k in range(slots):
            if fixed[k]:
                continue
            current = profit[page[k], k]
            if best[k] <= current + 1e-12:
                continue
            if used[best_column[k]]:  # a previous slot has taken this column
                best[k] = -FAR
                for a in range(m):
                    if not used[a] and profit[a, k] > best[k]:
                        best[k], best_column[k] = profit[a, k], a
                if best[k] <= current + 1e-12:
                    continue
            used[page[k]], used[best_column[k]], page[k] = False, True, best_column[k]
            changed = True
        for k in range(slots):
            if not fixed[k]:
                for j in range(slots):
                    swap_profit[k, j] = profit[page[k], j]
        for k in range(slots):
            if fixed[k]:
                continue
            for j in range(k + 1, slots):
                if (
                    not fixed[j]
                    and swap_profit[k, j] + swap_profit[j, k] > swap_profit[k, k] + swap_profit[j, j] + 1e-12
                ):
                    page[k], page[j] = page[j], page[k]
                    for s in range(slots):
                        swap_profit[k, s], swap_profit[j, s] = swap_profit[j, s], swap_profit[k, s]
                    changed = True
        if not changed:
            return


@kernel
def count_members(instance: Instance, working_set: np.ndarray, page: np.ndarray, count: np.ndarray) -> None:
    """Fill count [G, K + 1] with the members in the first k slots of a page [K] of columns (-1: the pinned item)."""
    groups, slots = instance.lower.shape
    count[:] = 0
    for k in range(slots):
        i = instance.pin[k] if page[k] < 0 else working_set[page[k]]
        for d in range(instance.groups_of.shape[1]):
            g = instance.groups_of[i, d]
            if g < 0:
                break
            count[g, k + 1] = 1
    for g in range(groups):
        for k in range(slots):
            count[g, k + 1] += count[g, k]


@kernel
def adagrad_step(
    instance: Instance, prices: Prices, adagrad: AdagradState, count: np.ndarray, step_length: float
) -> int:
    """Update all prices by one AdaGrad step on the violations of a page; return the number of violated limits.

    step_length: length of the first step at attention 1, in play equivalents
    """
    violated = 0
    for r in range(len(prices.row)):
        k = instance.row_slot[r]
        violation = instance.row_sign[r] * (instance.row_limit[r] - count[instance.row_group[r], k + 1])
        if violation > 0 or prices.row[r] > 0.0:
            violated += violation > 0
            adagrad.row_square_sum[r] += violation * violation
            adagrad.row_momentum[r] = 0.4 * adagrad.row_momentum[r] + 0.6 * violation
            step = (
                step_length * instance.attention[k] * adagrad.row_momentum[r] / np.sqrt(1.0 + adagrad.row_square_sum[r])
            )
            prices.row[r] = max(0.0, prices.row[r] + step)
        else:
            adagrad.row_momentum[r] = 0.0
    groups, slots = instance.lower.shape
    for g in range(groups):
        window = instance.window_length[g]
        if window == 0:
            continue
        for q in range(slots - window + 1):
            violation = count[g, q + window] - count[g, q] - instance.window_limit[g]
            if violation > 0 or prices.window[g, q] > 0.0:
                violated += violation > 0
                adagrad.window_square_sum[g, q] += violation * violation
                adagrad.window_momentum[g, q] = 0.4 * adagrad.window_momentum[g, q] + 0.6 * violation
                step = (
                    step_length
                    * instance.attention[q]
                    * adagrad.window_momentum[g, q]
                    / np.sqrt(1.0 + adagrad.window_square_sum[g, q])
                )
                prices.window[g, q] = max(0.0, prices.window[g, q] + step)
    return violated


@kernel
def dual_constant(instance: Instance, prices: Prices) -> float:
    """Return the part of the dual bound that no item affects.

    This is - sum price * sign * limit + sum window price * window_limit.
    """
    total = 0.0
    for r in range(len(prices.row)):
        total -= prices.row[r] * instance.row_sign[r] * instance.row_limit[r]
    for g in range(len(prices.window)):
        if instance.window_length[g]:
            for q in range(prices.window.shape[1]):
                total += prices.window[g, q] * instance.window_limit[g]
    return total


@kernel
def fill_violations(
    instance: Instance, prices: Prices, count: np.ndarray, row_violation: F64, window_violation: F64
) -> tuple[int, float]:
    """Fill row_violation [R] and window_violation [G, K] for a page; inactive limits get 0.

    A limit is inactive if it is satisfied and its price is 0. Returns the number of violated limits and the squared
    norm of the violations, weighted by attention.
    """
    violated, squared_norm = 0, 0.0
    for r in range(len(prices.row)):
        k = instance.row_slot[r]
        violation = instance.row_sign[r] * (instance.row_limit[r] - count[instance.row_group[r], k + 1])
        violated += violation > 0
        if violation <= 0 and prices.row[r] <= 0.0:
            violation = 0
        row_violation[r] = violation
        squared_norm += instance.attention[k] * violation * violation
    groups, slots = instance.lower.shape
    for g in range(groups):
        window = instance.window_length[g]
        if window:
            for q in range(slots - window + 1):
                violation = count[g, q + window] - count[g, q] - instance.window_limit[g]
                violated += violation > 0
                if violation <= 0 and prices.window[g, q] <= 0.0:
                    violation = 0
                window_violation[g, q] = violation
                squared_norm += instance.attention[q] * violation * violation
    return violated, squared_norm


@kernel
def polyak_step(
    instance: Instance,
    prices: Prices,
    row_violation: F64,
    window_violation: F64,
    row_direction: F64,
    window_direction: F64,
    excess: float,
    momentum: float,
) -> None:
    """Update all prices by one Polyak step towards a dual bound lower by `excess`.

    The step directions row_direction and window_direction are updated in place: they keep a fraction `momentum` of
    their previous values.
    """
    squared_norm = 0.0
    for r in range(len(prices.row)):
        direction = momentum * row_direction[r] + (1.0 - momentum) * row_violation[r]
        if prices.row[r] <= 0.0 and direction < 0.0:
            direction = 0.0
        row_direction[r] = direction
        squared_norm += instance.attention[instance.row_slot[r]] * direction * direction
    groups, slots = instance.lower.shape
    for g in range(groups):
        if instance.window_length[g]:
            for q in range(slots - instance.window_length[g] + 1):
                direction = momentum * window_direction[g, q] + (1.0 - momentum) * window_violation[g, q]
                if prices.window[g, q] <= 0.0 and direction < 0.0:
                    direction = 0.0
                window_direction[g, q] = direction
                squared_norm += instance.attention[q] * direction * direction
    if squared_norm < 1e-12:
        return
    step_length = excess / squared_norm
    for r in range(len(prices.row)):
        if row_direction[r] != 0.0:
            prices.row[r] = max(
                0.0, prices.row[r] + step_length * instance.attention[instance.row_slot[r]] * row_direction[r]
            )
    for g in range(groups):
        if instance.window_length[g]:
            for q in range(slots - instance.window_length[g] + 1):
                if window_direction[g, q] != 0.0:
                    prices.window[g, q] = max(
                        0.0, prices.window[g, q] + step_length * instance.attention[q] * window_direction[g, q]
                    )
