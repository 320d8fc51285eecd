"""What prices say of controls and candidates once the page stands."""

from __future__ import annotations

import numpy as np

from recsys.guidance.kernels import kernel
from recsys.guidance.kernels.layout import Layout
from recsys.guidance.kernels.page import State
from recsys.types import F64


@kernel
def account(layout: Layout, state: State, order: np.ndarray, chosen: np.ndarray, price: F64, credit: F64) -> None:
    """Fills price [C] of one unit of each control and credit [C, N]: what prices add to each candidate in its slot.

    A candidate's slot is its own on the page `chosen` [K] (candidates), else the one it would have by value alone.
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
        for a in range(n):
            if order[a] == chosen[k]:
                slot[a] = k
                break
    for a in range(n):
        for d in range(layout.groups_of.shape[1]):
            g = layout.groups_of[a, d]
            if g < 0:
                break
            if rows[g, slot[a]] != 0.0:
                credit[layout.row_owner[g], order[a]] += rows[g, slot[a]]
            if layout.run_within[g] and runs[g, slot[a]] != 0.0:
                credit[layout.run_owner[g], order[a]] += runs[g, slot[a]]
