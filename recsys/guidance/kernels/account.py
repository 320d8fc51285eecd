"""What prices say of controls and candidates once the page stands."""

from __future__ import annotations

import numpy as np

from recsys.guidance.kernels import kernel
from recsys.guidance.kernels.assignment import assign
from recsys.guidance.kernels.columns import best_columns
from recsys.guidance.kernels.layout import Layout
from recsys.guidance.kernels.page import State
from recsys.guidance.kernels.prices import Prices, add_up, profits
from recsys.types import F64


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


@kernel
def without_each(layout: Layout, state: State, order: np.ndarray, price: F64, stays: np.ndarray) -> None:
    """Fills stays [C, N]: whether a candidate would be on the page without a control, as far as other prices tell.

    Under prices the page falls apart into an assignment: without one control's prices, another assignment is the page.
    Only priced controls are looked into; for the others stays says who is on the page.
    """
    n, (groups, slots) = len(layout.value), layout.lower.shape
    free = np.flatnonzero(layout.pin < 0)
    taken = np.zeros(n, np.bool_)
    for k in range(slots):
        taken[state.page[k]] = True
        stays[:, order[state.page[k]]] = True
    for a in range(min(n, slots)):
        taken[a] = True
    nearest = best_columns(state.margin, min(n, 2 * slots), state.held)
    for a in nearest:
        taken[a] = True
    for k in range(slots):
        if layout.pin[k] >= 0:
            taken[layout.pin[k]] = False
    column = np.flatnonzero(taken)
    m = len(column)
    if m < len(free):
        return
    adder, active, profit = np.zeros((groups, slots)), np.zeros(groups, np.bool_), np.empty((m, slots))
    flat, page, rent, wage = (
        np.empty((len(free), m)),
        np.full(len(free), -1, np.int64),
        np.empty(len(free)),
        np.zeros(m),
    )
    for a in range(m):  # from where the last assignment stood
        wage[a] = state.wage[column[a]]
    for f in range(len(free)):
        a = np.searchsorted(column, state.held[f])
        page[f] = a if a < m and column[a] == state.held[f] else -1
    rest = Prices(state.prices.row.copy(), state.prices.run.copy())
    for c in range(len(price)):
        if price[c] <= 0.0:
            continue
        for r in range(len(rest.row)):
            rest.row[r] = 0.0 if layout.row_owner[layout.row_group[r]] == c else state.prices.row[r]
        for g in range(groups):
            for q in range(slots):
                rest.run[g, q] = 0.0 if layout.run_owner[g] == c else state.prices.run[g, q]
        add_up(layout, rest, adder, active)
        profits(layout, column, adder, active, profit)
        for f in range(len(free)):
            for a in range(m):
                flat[f, a] = profit[a, free[f]]
        assign(flat, page, rent, wage)
        for a in range(m):
            stays[c, order[column[a]]] = False
        for f in range(len(free)):
            stays[c, order[column[page[f]]]] = True
