"""What prices say of controls and candidates once the page stands."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recsys.guidance.kernels import kernel
from recsys.guidance.kernels.assignment import assign
from recsys.guidance.kernels.columns import best_columns
from recsys.guidance.kernels.layout import Layout
from recsys.guidance.kernels.page import State
from recsys.guidance.kernels.prices import Prices, add_up, profits
from recsys.types import F64

MOST = 12
"""Pairs of controls looked into for one page."""


@kernel
def account(layout: Layout, state: State, order: np.ndarray, price: F64, credit: F64) -> None:
    """Fills price [C] of one unit of each control and credit [C, N]: what prices add to each candidate in its slot.

    A candidate's slot is its own on the page, else the one that its value would give it. order [N] as in `lay_out`.
    """
    n, (groups, slots) = len(layout.value), layout.lower.shape
    rows, runs = np.zeros((groups, slots)), np.zeros((groups, slots))
    for r in range(len(state.prices.row)):
        if state.prices.row[r] > 0.0:
            g = layout.row_group[r]
            price[layout.row_owner[g]] += state.prices.row[r]
            for k in range(layout.row_slot[r] + 1):
                rows[g, k] += layout.row_sign[r] * state.prices.row[r]
    for g in range(groups):
        within = layout.run_within[g]
        if within:
            for q in range(slots - within + 1):
                price[layout.run_owner[g]] += state.prices.run[g, q]
                for k in range(q, q + within):
                    runs[g, k] -= state.prices.run[g, q]
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


class Bench(NamedTuple):
    """Where pages under fewer prices are made: the few items that might stand on one, and room for their assignment.

    column [M], free [F] slots; rest: the prices; adder [G, K], active [G], profit [M, K], flat [F, M]
    page [F] columns, rent [F], wage [M] of an assignment; stood [F], earned [M]: page and wage under all prices
    """

    column: np.ndarray
    free: np.ndarray
    rest: Prices
    adder: F64
    active: np.ndarray
    profit: F64
    flat: F64
    page: np.ndarray
    rent: F64
    wage: F64
    stood: np.ndarray
    earned: F64


@kernel
def bench_of(layout: Layout, state: State) -> Bench:
    """The items of the page, the best by value, and those that prices rate nearest; from where prices last stood."""
    n, (groups, slots) = len(layout.value), layout.lower.shape
    free = np.flatnonzero(layout.pin < 0)
    taken = np.zeros(n, np.bool_)
    for k in range(slots):
        taken[state.page[k]] = True
    for a in range(min(n, slots)):
        taken[a] = True
    for a in best_columns(state.margin, min(n, 2 * slots), state.held):
        taken[a] = True
    for k in range(slots):
        if layout.pin[k] >= 0:
            taken[layout.pin[k]] = False
    column = np.flatnonzero(taken)
    m = len(column)
    wage, page = np.zeros(m), np.full(len(free), -1, np.int64)
    for a in range(m):
        wage[a] = state.wage[column[a]]
    for f in range(len(free)):
        a = np.searchsorted(column, state.held[f])
        page[f] = a if a < m and column[a] == state.held[f] else -1
    return Bench(
        column,
        free,
        Prices(state.prices.row.copy(), state.prices.run.copy()),
        np.zeros((groups, slots)),
        np.zeros(groups, np.bool_),
        np.empty((m, slots)),
        np.empty((len(free), m)),
        page,
        np.empty(len(free)),
        wage,
        page.copy(),
        wage.copy(),
    )


@kernel
def without(layout: Layout, state: State, bench: Bench, one: int, other: int) -> None:
    """Fills the bench's page: the assignment under all prices but those of two controls (or one, twice)."""
    rest = bench.rest
    for r in range(len(rest.row)):
        owner = layout.row_owner[layout.row_group[r]]
        rest.row[r] = 0.0 if owner in (one, other) else state.prices.row[r]
    for g in range(len(rest.run)):
        owner = layout.run_owner[g]
        for q in range(rest.run.shape[1]):
            rest.run[g, q] = 0.0 if owner in (one, other) else state.prices.run[g, q]
    add_up(layout, rest, bench.adder, bench.active)
    profits(layout, bench.column, bench.adder, bench.active, bench.profit)
    for f in range(len(bench.free)):
        for a in range(len(bench.column)):
            bench.flat[f, a] = bench.profit[a, bench.free[f]]
    bench.page[:] = bench.stood
    bench.wage[:] = bench.earned
    assign(bench.flat, bench.page, bench.rent, bench.wage)


@kernel
def without_each(
    layout: Layout, state: State, order: np.ndarray, price: F64, credit: F64, stays: np.ndarray, pair: np.ndarray
) -> None:
    """Fills stays [C, N]: whether a candidate would be on the page without a control, as far as other prices tell.

    Under prices the page falls apart into an assignment: without one control's prices, another assignment is the page.
    Only priced controls are looked into; for the others stays says who is on the page.
    pair [N, 2]: for candidates that no control alone put on the page or keeps off it, two that do together; else -1.
    """
    n, slots = len(layout.value), len(layout.pin)
    on = np.zeros(n, np.bool_)
    for k in range(slots):
        on[state.page[k]] = True
        stays[:, order[state.page[k]]] = True
    bench = bench_of(layout, state)
    column, m = bench.column, len(bench.column)
    if m < len(bench.free):
        return
    alone = np.zeros(n, np.bool_)
    priced = np.flatnonzero(price > 0.0)
    for c in priced:
        without(layout, state, bench, int(c), int(c))
        for a in range(m):
            stays[c, order[column[a]]] = False
        for f in range(len(bench.free)):
            stays[c, order[column[bench.page[f]]]] = True
        for a in range(m):
            alone[column[a]] |= stays[c, order[column[a]]] != on[column[a]]
    open_ = np.array([i for i in column if not alone[i] and on[i] != (i < slots)])
    ways, tried, told = np.empty((len(open_), 3), np.int64), np.zeros((MOST, 2), np.int64), 0
    for z in range(len(open_)):
        _dearest(price, credit[:, order[open_[z]]], 1.0 if on[open_[z]] else -1.0, ways[z])
    for z in range(len(open_)):
        for w in range(3):
            one, other = ways[z, w // 2], ways[z, 1 + (w + 1) // 2]
            if pair[order[open_[z]], 0] >= 0 or other < 0 or told == MOST:
                break
            known = False
            for t in range(told):
                known |= (tried[t, 0] == one and tried[t, 1] == other) or (tried[t, 0] == other and tried[t, 1] == one)
            if known:
                continue
            tried[told, 0], tried[told, 1] = one, other
            told += 1
            without(layout, state, bench, int(one), int(other))
            there = np.zeros(n, np.bool_)
            for f in range(len(bench.free)):
                there[column[bench.page[f]]] = True
            for y in range(len(open_)):  # whoever this pair answers for
                i = open_[y]
                mine = False
                for v in range(3):
                    first, second = ways[y, v // 2], ways[y, 1 + (v + 1) // 2]
                    mine |= (first == one and second == other) or (first == other and second == one)
                if mine and there[i] != on[i] and pair[order[i], 0] < 0:
                    pair[order[i], 0], pair[order[i], 1] = one, other


@kernel
def _dearest(price: F64, credit: F64, sign: float, three: np.ndarray) -> None:
    """Fills `three` with the priced controls of the most credit, then price; -1 where there are fewer."""
    for z in range(3):
        best = -1
        for c in range(len(price)):
            if price[c] <= 0.0 or (z > 0 and c == three[0]) or (z > 1 and c == three[1]):
                continue
            if best < 0 or (sign * credit[c], price[c]) > (sign * credit[best], price[best]):
                best = c
        three[z] = best
