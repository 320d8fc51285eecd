"""Prices on the limits of a page (Lagrangian relaxation), by the assignment problem that remains.

With a price on every limit, the page falls apart into an assignment of items to slots, and for *any* prices >= 0

    bound = assignment(c) - sum price * sign * limit + sum run price * run_most                    (weak duality)
    c[i, k] = attention[k] * value[i] + sum_{groups g of i} adder[g, k]
    adder[g, k] = sum_{rows of g at p >= k} sign * price - sum of run prices over windows that contain k

is worth at least as much as every page within the limits. Steps follow AdaGrad on each limit's violation
(Duchi et al. 2011) against a page that is only improved locally; later Polyak's (1969) against the best assignment.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recsys.domain.types import F64
from recsys.guidance.solver.kernels import kernel
from recsys.guidance.solver.kernels.assignment import FAR
from recsys.guidance.solver.kernels.instance import Instance


class Prices(NamedTuple):
    """row [R] price of each row of limits, run [G, K] price of each window by its first slot; in play
    equivalents, >= 0."""

    row: F64
    run: F64


class AdagradState(NamedTuple):
    """AdaGrad's memory: gathered squares and momentum of violations, for rows and for windows."""

    row_force: F64
    row_drift: F64
    run_force: F64
    run_drift: F64


@kernel
def no_prices(layout: Instance) -> Prices:
    groups, slots = layout.lower.shape
    return Prices(np.zeros(len(layout.row_group)), np.zeros((groups, slots)))


@kernel
def new_adagrad_state(layout: Instance) -> AdagradState:
    rows, (groups, slots) = len(layout.row_group), layout.lower.shape
    return AdagradState(np.zeros(rows), np.zeros(rows), np.zeros((groups, slots)), np.zeros((groups, slots)))


@kernel
def add_up(layout: Instance, prices: Prices, adder: F64, active: np.ndarray) -> None:
    """Fills adder [G, K] and active [G], whether the group has any price."""
    groups, slots = adder.shape
    for g in range(groups):
        if active[g]:
            for k in range(slots):
                adder[g, k] = 0.0
        active[g] = False
    for r in range(len(prices.row)):
        if prices.row[r] > 0.0:
            adder[layout.row_group[r], layout.row_slot[r]] += layout.row_sign[r] * prices.row[r]
            active[layout.row_group[r]] = True
    for g in range(groups):
        if active[g]:
            later = 0.0
            for k in range(slots - 1, -1, -1):
                later += adder[g, k]
                adder[g, k] = later
        within = layout.run_within[g]
        if within:
            for q in range(slots - within + 1):
                if prices.run[g, q] > 0.0:
                    active[g] = True
                    for k in range(q, q + within):
                        adder[g, k] -= prices.run[g, q]


@kernel
def profits(layout: Instance, column: np.ndarray, adder: F64, active: np.ndarray, profit: F64) -> None:
    """Fills profit [M, K] = c of the items in the working set `column` [M]."""
    slots = profit.shape[1]
    depth = layout.groups_of.shape[1]
    for a in range(len(column)):
        i = column[a]
        v = layout.value[i]
        for k in range(slots):
            profit[a, k] = layout.attention[k] * v
        for d in range(depth):
            g = layout.groups_of[i, d]
            if g < 0:
                break
            if active[g]:
                for k in range(slots):
                    profit[a, k] += adder[g, k]


@kernel
def margins(layout: Instance, adder: F64, active: np.ndarray, rent: F64, margin: F64) -> None:
    """Fills margin [N] = max_k c[i, k] - rent[k] over slots that are free: what an item could add to the assignment."""
    slots, depth = len(rent), layout.groups_of.shape[1]
    c = np.empty(slots)
    for i in range(len(margin)):
        v = layout.value[i]
        for k in range(slots):
            c[k] = layout.attention[k] * v - rent[k]
        for d in range(depth):
            g = layout.groups_of[i, d]
            if g < 0:
                break
            if active[g]:
                for k in range(slots):
                    c[k] += adder[g, k]
        best = -FAR
        for k in range(slots):
            best = max(best, c[k])
        margin[i] = best
    for k in range(slots):
        if layout.pin[k] >= 0:
            margin[layout.pin[k]] = -FAR


@kernel
def swap_improve(profit: F64, page: np.ndarray, used: np.ndarray, fixed: np.ndarray, sweeps: int) -> None:
    """Improve a page [K] of columns by replacing one item or swapping two, `sweeps` times; fixed [K] slots stay."""
    m, slots = profit.shape
    best, who = np.empty(slots), np.empty(slots, np.int64)
    worth = np.empty((slots, slots))
    for _ in range(sweeps):
        changed = False
        for k in range(slots):
            best[k], who[k] = -FAR, -1
        for a in range(m):
            if not used[a]:
                for k in range(slots):
                    better = profit[a, k] > best[k]
                    best[k] = profit[a, k] if better else best[k]
                    who[k] = a if better else who[k]
        for k in range(slots):
            if fixed[k]:
                continue
            here = profit[page[k], k]
            if best[k] <= here + 1e-12:
                continue
            if used[who[k]]:  # another slot was quicker
                best[k] = -FAR
                for a in range(m):
                    if not used[a] and profit[a, k] > best[k]:
                        best[k], who[k] = profit[a, k], a
                if best[k] <= here + 1e-12:
                    continue
            used[page[k]], used[who[k]], page[k] = False, True, who[k]
            changed = True
        for k in range(slots):
            if not fixed[k]:
                for j in range(slots):
                    worth[k, j] = profit[page[k], j]
        for k in range(slots):
            if fixed[k]:
                continue
            for j in range(k + 1, slots):
                if not fixed[j] and worth[k, j] + worth[j, k] > worth[k, k] + worth[j, j] + 1e-12:
                    page[k], page[j] = page[j], page[k]
                    for s in range(slots):
                        worth[k, s], worth[j, s] = worth[j, s], worth[k, s]
                    changed = True
        if not changed:
            return


@kernel
def count_members(layout: Instance, column: np.ndarray, page: np.ndarray, count: np.ndarray) -> None:
    """Fills count [G, K + 1], members in the first k slots of a page [K] of columns (-1: the pinned item)."""
    groups, slots = layout.lower.shape
    count[:] = 0
    for k in range(slots):
        i = layout.pin[k] if page[k] < 0 else column[page[k]]
        for d in range(layout.groups_of.shape[1]):
            g = layout.groups_of[i, d]
            if g < 0:
                break
            count[g, k + 1] = 1
    for g in range(groups):
        for k in range(slots):
            count[g, k + 1] += count[g, k]


@kernel
def adagrad_step(layout: Instance, prices: Prices, pace: AdagradState, count: np.ndarray, length: float) -> int:
    """One step of all prices against the violations of a page's counts; how many limits the page breaks.

    length: of the first step at full attention, in play equivalents
    """
    broken = 0
    for r in range(len(prices.row)):
        k = layout.row_slot[r]
        off = layout.row_sign[r] * (layout.row_limit[r] - count[layout.row_group[r], k + 1])
        if off > 0 or prices.row[r] > 0.0:
            broken += off > 0
            pace.row_force[r] += off * off
            pace.row_drift[r] = 0.4 * pace.row_drift[r] + 0.6 * off
            moved = length * layout.attention[k] * pace.row_drift[r] / np.sqrt(1.0 + pace.row_force[r])
            prices.row[r] = max(0.0, prices.row[r] + moved)
        else:
            pace.row_drift[r] = 0.0
    groups, slots = layout.lower.shape
    for g in range(groups):
        within = layout.run_within[g]
        if within == 0:
            continue
        for q in range(slots - within + 1):
            off = count[g, q + within] - count[g, q] - layout.run_most[g]
            if off > 0 or prices.run[g, q] > 0.0:
                broken += off > 0
                pace.run_force[g, q] += off * off
                pace.run_drift[g, q] = 0.4 * pace.run_drift[g, q] + 0.6 * off
                moved = length * layout.attention[q] * pace.run_drift[g, q] / np.sqrt(1.0 + pace.run_force[g, q])
                prices.run[g, q] = max(0.0, prices.run[g, q] + moved)
    return broken


@kernel
def constant(layout: Instance, prices: Prices) -> float:
    """The part of the bound that no item changes: - sum price * sign * limit + sum run price * run_most."""
    total = 0.0
    for r in range(len(prices.row)):
        total -= prices.row[r] * layout.row_sign[r] * layout.row_limit[r]
    for g in range(len(prices.run)):
        if layout.run_within[g]:
            for q in range(prices.run.shape[1]):
                total += prices.run[g, q] * layout.run_most[g]
    return total


@kernel
def violations(layout: Instance, prices: Prices, count: np.ndarray, row_off: F64, run_off: F64) -> tuple[int, float]:
    """Fills row_off [R] and run_off [G, K] with what a page is off its limits, 0 where the limit sleeps.

    A limit sleeps while it holds and costs nothing. Result: how many limits are broken, and the squares of all that is
    off, weighed by attention.
    """
    broken, size = 0, 0.0
    for r in range(len(prices.row)):
        k = layout.row_slot[r]
        off = layout.row_sign[r] * (layout.row_limit[r] - count[layout.row_group[r], k + 1])
        broken += off > 0
        if off <= 0 and prices.row[r] <= 0.0:
            off = 0
        row_off[r] = off
        size += layout.attention[k] * off * off
    groups, slots = layout.lower.shape
    for g in range(groups):
        within = layout.run_within[g]
        if within:
            for q in range(slots - within + 1):
                off = count[g, q + within] - count[g, q] - layout.run_most[g]
                broken += off > 0
                if off <= 0 and prices.run[g, q] <= 0.0:
                    off = 0
                run_off[g, q] = off
                size += layout.attention[q] * off * off
    return broken, size


@kernel
def polyak_step(
    layout: Instance, prices: Prices, row_off: F64, run_off: F64, row_way: F64, run_way: F64, excess: float, keep: float
) -> None:
    """One step of Polyak's length towards a bound lower by `excess`; row_way and run_way remember a share `keep`."""
    size = 0.0
    for r in range(len(prices.row)):
        way = keep * row_way[r] + (1.0 - keep) * row_off[r]
        if prices.row[r] <= 0.0 and way < 0.0:
            way = 0.0
        row_way[r] = way
        size += layout.attention[layout.row_slot[r]] * way * way
    groups, slots = layout.lower.shape
    for g in range(groups):
        if layout.run_within[g]:
            for q in range(slots - layout.run_within[g] + 1):
                way = keep * run_way[g, q] + (1.0 - keep) * run_off[g, q]
                if prices.run[g, q] <= 0.0 and way < 0.0:
                    way = 0.0
                run_way[g, q] = way
                size += layout.attention[q] * way * way
    if size < 1e-12:
        return
    length = excess / size
    for r in range(len(prices.row)):
        if row_way[r] != 0.0:
            prices.row[r] = max(0.0, prices.row[r] + length * layout.attention[layout.row_slot[r]] * row_way[r])
    for g in range(groups):
        if layout.run_within[g]:
            for q in range(slots - layout.run_within[g] + 1):
                if run_way[g, q] != 0.0:
                    prices.run[g, q] = max(0.0, prices.run[g, q] + length * layout.attention[q] * run_way[g, q])
