"""What prices say of controls and candidates once the page stands."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recsys.domain.types import F64
from recsys.guidance.solver.kernels import kernel
from recsys.guidance.solver.kernels.assignment import FAR, assign
from recsys.guidance.solver.kernels.instance import Instance
from recsys.guidance.solver.kernels.lagrangian import Prices, profits
from recsys.guidance.solver.kernels.page_search import State
from recsys.guidance.solver.kernels.working_set import best_columns

MOST = 8
"""Pairs of controls looked into for one page."""
CLEAR = 0.07
"""Of a slot's mean worth: by so much a control clearly decides about an item; below it prices are often wrong."""


@kernel
def adders(layout: Instance, prices: Prices) -> tuple[F64, F64]:
    """What the prices of rows add to a member of a group in each slot [G, K], and what those of windows do [G, K]."""
    groups, slots = layout.lower.shape
    rows, runs = np.zeros((groups, slots)), np.zeros((groups, slots))
    for r in range(len(prices.row)):
        if prices.row[r] > 0.0:
            for k in range(layout.row_slot[r] + 1):
                rows[layout.row_group[r], k] += layout.row_sign[r] * prices.row[r]
    for g in range(groups):
        within = layout.run_within[g]
        if within:
            for q in range(slots - within + 1):
                for k in range(q, q + within):
                    runs[g, k] -= prices.run[g, q]
    return rows, runs


@kernel
def price_report(layout: Instance, state: State, order: np.ndarray, price: F64, credit: F64) -> None:
    """Fills price [C] of one unit of each control and credit [C, N]: what prices add to each candidate in its slot.

    A candidate's slot is its own on the page, else the one that its value would give it. order [N] as in `lay_out`.
    """
    n, (groups, slots) = len(layout.value), layout.lower.shape
    for r in range(len(state.prices.row)):
        price[layout.row_owner[layout.row_group[r]]] += state.prices.row[r]
    for g in range(groups):
        if layout.run_within[g]:
            for q in range(slots - layout.run_within[g] + 1):
                price[layout.run_owner[g]] += state.prices.run[g, q]
    rows, runs = adders(layout, state.prices)
    slot = np.minimum(np.arange(n), slots - 1)
    for k in range(slots):
        slot[state.page[k]] = k
    for a in range(n):
        for d in range(layout.groups_of.shape[1]):
            g = layout.groups_of[a, d]
            if g < 0:
                break
            if rows[g, slot[a]] != 0.0:
                credit[layout.row_owner[g], order[a]] += rows[g, slot[a]]
            if layout.run_within[g] and runs[g, slot[a]] != 0.0:
                credit[layout.run_owner[g], order[a]] += runs[g, slot[a]]


class LeaveOneOutWorkspace(NamedTuple):
    """Where pages under fewer prices are made: the few items that might stand on one, and room for their assignment.

    column [M], free [F] slots; rows, runs [G, K]: what prices add; whole [F, M]: profits under all prices
    flat [F, M], page [F] columns, rent [F], wage [M] of an assignment; stood [F], earned [M]: page and wage of `whole`
    """

    column: np.ndarray
    free: np.ndarray
    rows: F64
    runs: F64
    whole: F64
    flat: F64
    page: np.ndarray
    rent: F64
    wage: F64
    stood: np.ndarray
    earned: F64


@kernel
def workspace_of(layout: Instance, state: State) -> LeaveOneOutWorkspace:
    """The items of the page, the best by value, and those that prices rate nearest; from where prices last stood."""
    n, slots = len(layout.value), len(layout.pin)
    free = np.flatnonzero(layout.pin < 0)
    taken = np.zeros(n, np.bool_)
    for k in range(slots):
        taken[state.page[k]] = True
    for a in range(min(n, slots)):
        taken[a] = True
    for a in best_columns(state.reduced_value, min(n, slots), state.polyak_level):
        taken[a] = True
    for k in range(slots):
        if layout.pin[k] >= 0:
            taken[layout.pin[k]] = False
    column = np.flatnonzero(taken)
    m = len(column)
    wage, page = np.zeros(m), np.full(len(free), -1, np.int64)
    for a in range(m):
        wage[a] = state.item_price[column[a]]
    for f in range(len(free)):
        a = np.searchsorted(column, state.polyak_level[f])
        page[f] = a if a < m and column[a] == state.polyak_level[f] else -1
    rows, runs = adders(layout, state.prices)
    profit, whole = np.empty((m, slots)), np.empty((len(free), m))
    profits(layout, column, rows + runs, np.ones(len(rows), np.bool_), profit)
    for f in range(len(free)):
        whole[f] = profit[:, free[f]]
    return LeaveOneOutWorkspace(
        column, free, rows, runs, whole, whole.copy(), page, np.empty(len(free)), wage, page.copy(), wage.copy()
    )


@kernel
def without(layout: Instance, bench: LeaveOneOutWorkspace, one: int, other: int) -> None:
    """Fills the bench's page: the assignment under all prices but those of two controls (or one, twice)."""
    free, flat = bench.free, bench.flat
    flat[:] = bench.whole
    for a in range(len(bench.column)):
        for d in range(layout.groups_of.shape[1]):
            g = layout.groups_of[bench.column[a], d]
            if g < 0:
                break
            owner = layout.row_owner[g]
            if owner in (one, other):
                for f in range(len(free)):
                    flat[f, a] -= bench.rows[g, free[f]]
            owner = layout.run_owner[g]
            if layout.run_within[g] and owner in (one, other):
                for f in range(len(free)):
                    flat[f, a] -= bench.runs[g, free[f]]
    bench.page[:] = bench.stood
    bench.wage[:] = bench.earned
    assign(flat, bench.page, bench.rent, bench.wage)


@kernel
def lead(bench: LeaveOneOutWorkspace, a: int, there: bool) -> float:
    """By how much column a stands on the bench's page, or stays off it: what its worth there could change."""
    if there:
        return float(bench.wage[a])
    nearest = -FAR
    for f in range(len(bench.free)):
        nearest = max(nearest, bench.flat[f, a] - bench.rent[f])
    return float(-nearest)


@kernel
def leave_one_out(
    layout: Instance, state: State, order: np.ndarray, price: F64, credit: F64, stays: np.ndarray, pair: np.ndarray
) -> None:
    """Fills stays [C, N]: whether a candidate would be on the page without a control, as far as other prices tell.

    Under prices the page falls apart into an assignment: without one control's prices, another assignment is the page.
    Only priced controls are looked into; for the others stays says who is on the page.
    pair [N, 2]: for candidates that no control alone clearly put on the page or keeps off it, two that do together, by
    more than the one; else -1.
    """
    n, slots = len(layout.value), len(layout.pin)
    on = np.zeros(n, np.bool_)
    for k in range(slots):
        on[state.page[k]] = True
        stays[:, order[state.page[k]]] = True
    bench = workspace_of(layout, state)
    column, m = bench.column, len(bench.column)
    if m < len(bench.free):
        return
    clear = CLEAR * abs(state.known[0]) / slots
    strength, by, there = np.zeros(m), np.full(m, -1, np.int64), np.zeros(m, np.bool_)
    for c in np.flatnonzero(price > 0.0):
        without(layout, bench, int(c), int(c))
        there[:] = False
        for f in range(len(bench.free)):
            there[bench.page[f]] = True
        for a in range(m):
            stays[c, order[column[a]]] = there[a]
            if there[a] != on[column[a]]:
                strong = lead(bench, a, there[a])
                if by[a] < 0 or strong > strength[a]:
                    strength[a], by[a] = strong, c
    open_ = np.array([a for a in range(m) if strength[a] < clear and on[column[a]] != (column[a] < slots)])
    ways, tried, told = np.empty((len(open_), 3), np.int64), np.zeros((MOST, 2), np.int64), 0
    for z in range(len(open_)):
        i = column[open_[z]]
        _dearest(price, credit[:, order[i]], 1.0 if on[i] else -1.0, by[open_[z]], ways[z])
    for z in range(len(open_)):
        for w in range(3):
            one, other = ways[z, w // 2], ways[z, 1 + (w + 1) // 2]
            if strength[open_[z]] >= clear or other < 0 or told == MOST:
                break
            known = False
            for t in range(told):
                known |= (tried[t, 0] == one and tried[t, 1] == other) or (tried[t, 0] == other and tried[t, 1] == one)
            if known:
                continue
            tried[told, 0], tried[told, 1] = one, other
            told += 1
            without(layout, bench, int(one), int(other))
            there[:] = False
            for f in range(len(bench.free)):
                there[bench.page[f]] = True
            for y in range(len(open_)):  # whoever this pair answers for
                a, mine = open_[y], False
                for v in range(3):
                    first, second = ways[y, v // 2], ways[y, 1 + (v + 1) // 2]
                    mine |= (first == one and second == other) or (first == other and second == one)
                if mine and there[a] != on[column[a]]:
                    strong = lead(bench, a, there[a])
                    if strong > strength[a]:
                        strength[a] = strong
                        pair[order[column[a]], 0], pair[order[column[a]], 1] = one, other


@kernel
def _dearest(price: F64, credit: F64, sign: float, first: int, three: np.ndarray) -> None:
    """Fills `three` with the priced controls of the most credit, then price, behind `first` if >= 0; -1 for none."""
    for z in range(3):
        best = first if z == 0 else -1
        for c in range(len(price)):
            if z == 0 and first >= 0:
                break
            if price[c] <= 0.0 or (z > 0 and c == three[0]) or (z > 1 and c == three[1]):
                continue
            if best < 0 or (sign * credit[c], price[c]) > (sign * credit[best], price[best]):
                best = c
        three[z] = best
