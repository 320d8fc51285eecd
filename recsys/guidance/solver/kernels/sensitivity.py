"""Sensitivity analysis of a solved page: prices of controls, and the effect of each control on each candidate."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recsys.domain.types import F64
from recsys.guidance.solver.kernels import kernel
from recsys.guidance.solver.kernels.assignment import FAR, assign
from recsys.guidance.solver.kernels.instance import Instance
from recsys.guidance.solver.kernels.lagrangian import Prices, fill_profit
from recsys.guidance.solver.kernels.search_state import State
from recsys.guidance.solver.kernels.working_set import best_columns

MAX_PAIRS = 8
"""Maximum number of control pairs evaluated per page."""
CLEAR_MARGIN = 0.07
"""Margin, relative to the mean value of a slot, from which a control counts as decisive for an item.

Below it, dual estimates are often wrong.
"""


@kernel
def price_adjustments(instance: Instance, prices: Prices) -> tuple[F64, F64]:
    """Return the sums of row prices [G, K] and of window prices [G, K] for a member of group g in slot k."""
    groups, slots = instance.lower.shape
    row_adjustment, window_adjustment = np.zeros((groups, slots)), np.zeros((groups, slots))
    for r in range(len(prices.row)):
        if prices.row[r] > 0.0:
            for k in range(instance.row_slot[r] + 1):
                row_adjustment[instance.row_group[r], k] += instance.row_sign[r] * prices.row[r]
    for g in range(groups):
        window = instance.window_length[g]
        if window:
            for q in range(slots - window + 1):
                for k in range(q, q + window):
                    window_adjustment[g, k] -= prices.window[g, q]
    return row_adjustment, window_adjustment


@kernel
def price_report(instance: Instance, state: State, order: np.ndarray, price: F64, credit: F64) -> None:
    """Fill price [C] per unit of each control, and credit [C, N]: the price adjustment of each candidate in its slot.

    The slot of a candidate is its slot on the page or, off the page, its rank by value (at most
    the last slot). order [N] as in `build_instance`.
    """
    n, (groups, slots) = len(instance.value), instance.lower.shape
    for r in range(len(state.prices.row)):
        price[instance.row_owner[instance.row_group[r]]] += state.prices.row[r]
    for g in range(groups):
        if instance.window_length[g]:
            for q in range(slots - instance.window_length[g] + 1):
                price[instance.window_owner[g]] += state.prices.window[g, q]
    row_adjustment, window_adjustment = price_adjustments(instance, state.prices)
    slot = np.minimum(np.arange(n), slots - 1)
    for k in range(slots):
        slot[state.incumbent[k]] = k
    for a in range(n):
        for d in range(instance.groups_of.shape[1]):
            g = instance.groups_of[a, d]
            if g < 0:
                break
            if row_adjustment[g, slot[a]] != 0.0:
                credit[instance.row_owner[g], order[a]] += row_adjustment[g, slot[a]]
            if instance.window_length[g] and window_adjustment[g, slot[a]] != 0.0:
                credit[instance.window_owner[g], order[a]] += window_adjustment[g, slot[a]]


class LeaveOneOutWorkspace(NamedTuple):
    """Buffers for solving the assignment without the prices of some controls.

    working_set [M]  items that may be assigned; free [F] free slots
    row_adjustment, window_adjustment [G, K]  price adjustments
    full_profit [F, M]  Lagrangian profits under all prices
    profit [F, M], page [F] columns, slot_price [F], item_price [M]  of the current assignment
    full_page [F], full_item_price [M]  page and item prices under all prices
    """

    working_set: np.ndarray
    free: np.ndarray
    row_adjustment: F64
    window_adjustment: F64
    full_profit: F64
    profit: F64
    page: np.ndarray
    slot_price: F64
    item_price: F64
    full_page: np.ndarray
    full_item_price: F64


@kernel
def new_workspace(instance: Instance, state: State) -> LeaveOneOutWorkspace:
    """Build the workspace from the items of the page, the best by value, and those with the highest reduced value.

    The last assignment is the warm start.
    """
    n, slots = len(instance.value), len(instance.pin)
    free = np.flatnonzero(instance.pin < 0)
    selected = np.zeros(n, np.bool_)
    for k in range(slots):
        selected[state.incumbent[k]] = True
    for a in range(min(n, slots)):
        selected[a] = True
    for a in best_columns(state.reduced_value, min(n, slots), state.assigned_items):
        selected[a] = True
    for k in range(slots):
        if instance.pin[k] >= 0:
            selected[instance.pin[k]] = False
    working_set = np.flatnonzero(selected)
    m = len(working_set)
    item_price, page = np.zeros(m), np.full(len(free), -1, np.int64)
    for a in range(m):
        item_price[a] = state.item_price[working_set[a]]
    for f in range(len(free)):
        a = np.searchsorted(working_set, state.assigned_items[f])
        page[f] = a if a < m and working_set[a] == state.assigned_items[f] else -1
    row_adjustment, window_adjustment = price_adjustments(instance, state.prices)
    profit, full_profit = np.empty((m, slots)), np.empty((len(free), m))
    fill_profit(
        instance, working_set, row_adjustment + window_adjustment, np.ones(len(row_adjustment), np.bool_), profit
    )
    for f in range(len(free)):
        full_profit[f] = profit[:, free[f]]
    return LeaveOneOutWorkspace(
        working_set,
        free,
        row_adjustment,
        window_adjustment,
        full_profit,
        full_profit.copy(),
        page,
        np.empty(len(free)),
        item_price,
        page.copy(),
        item_price.copy(),
    )


@kernel
def assign_without(instance: Instance, workspace: LeaveOneOutWorkspace, first: int, second: int) -> None:
    """Solve the assignment without the prices of two controls (or of a single control, passed twice)."""
    free, profit = workspace.free, workspace.profit
    profit[:] = workspace.full_profit
    for a in range(len(workspace.working_set)):
        for d in range(instance.groups_of.shape[1]):
            g = instance.groups_of[workspace.working_set[a], d]
            if g < 0:
                break
            owner = instance.row_owner[g]
            if owner in (first, second):
                for f in range(len(free)):
                    profit[f, a] -= workspace.row_adjustment[g, free[f]]
            owner = instance.window_owner[g]
            if instance.window_length[g] and owner in (first, second):
                for f in range(len(free)):
                    profit[f, a] -= workspace.window_adjustment[g, free[f]]
    workspace.page[:] = workspace.full_page
    workspace.item_price[:] = workspace.full_item_price
    assign(profit, workspace.page, workspace.slot_price, workspace.item_price)


@kernel
def decision_margin(workspace: LeaveOneOutWorkspace, a: int, assigned: bool) -> float:
    """Return how much the value of column a can change before it enters or leaves the assignment."""
    if assigned:
        return float(workspace.item_price[a])
    nearest = -FAR
    for f in range(len(workspace.free)):
        nearest = max(nearest, workspace.profit[f, a] - workspace.slot_price[f])
    return float(-nearest)


@kernel
def leave_one_out(
    instance: Instance,
    state: State,
    order: np.ndarray,
    price: F64,
    credit: F64,
    on_page_without: np.ndarray,
    joint_cause: np.ndarray,
) -> None:
    """Fill on_page_without [C, N]: whether a candidate would be on the page without a control, by the dual estimate.

    Under Lagrangian prices the page is an assignment; dropping the prices of a control yields the assignment without
    it. Only priced controls are evaluated; for the others, on_page_without marks the candidates on the page.

    joint_cause [N, 2]: for a candidate whose place on or off the page no single control clearly explains, two controls
    that together explain it with a larger margin; otherwise -1
    """
    n, slots = len(instance.value), len(instance.pin)
    on_page = np.zeros(n, np.bool_)
    for k in range(slots):
        on_page[state.incumbent[k]] = True
        on_page_without[:, order[state.incumbent[k]]] = True
    workspace = new_workspace(instance, state)
    working_set, m = workspace.working_set, len(workspace.working_set)
    if m < len(workspace.free):
        return
    clear = CLEAR_MARGIN * abs(state.bounds[0]) / slots
    strength, cause, assigned = np.zeros(m), np.full(m, -1, np.int64), np.zeros(m, np.bool_)
    for c in np.flatnonzero(price > 0.0):
        assign_without(instance, workspace, int(c), int(c))
        assigned[:] = False
        for f in range(len(workspace.free)):
            assigned[workspace.page[f]] = True
        for a in range(m):
            on_page_without[c, order[working_set[a]]] = assigned[a]
            if assigned[a] != on_page[working_set[a]]:
                margin = decision_margin(workspace, a, assigned[a])
                if cause[a] < 0 or margin > strength[a]:
                    strength[a], cause[a] = margin, c
    unexplained = np.array(
        [a for a in range(m) if strength[a] < clear and on_page[working_set[a]] != (working_set[a] < slots)]
    )
    candidates, tried_pairs, tried_count = (
        np.empty((len(unexplained), 3), np.int64),
        np.zeros((MAX_PAIRS, 2), np.int64),
        0,
    )
    for z in range(len(unexplained)):
        i = working_set[unexplained[z]]
        _top_controls(price, credit[:, order[i]], 1.0 if on_page[i] else -1.0, cause[unexplained[z]], candidates[z])
    for z in range(len(unexplained)):
        for w in range(3):
            control, partner = candidates[z, w // 2], candidates[z, 1 + (w + 1) // 2]
            if strength[unexplained[z]] >= clear or partner < 0 or tried_count == MAX_PAIRS:
                break
            already_tried = False
            for t in range(tried_count):
                already_tried |= (tried_pairs[t, 0] == control and tried_pairs[t, 1] == partner) or (
                    tried_pairs[t, 0] == partner and tried_pairs[t, 1] == control
                )
            if already_tried:
                continue
            tried_pairs[tried_count, 0], tried_pairs[tried_count, 1] = control, partner
            tried_count += 1
            assign_without(instance, workspace, int(control), int(partner))
            assigned[:] = False
            for f in range(len(workspace.free)):
                assigned[workspace.page[f]] = True
            for y in range(len(unexplained)):  # all candidates that list this pair
                a, applies = unexplained[y], False
                for v in range(3):
                    first, second = candidates[y, v // 2], candidates[y, 1 + (v + 1) // 2]
                    applies |= (first == control and second == partner) or (first == partner and second == control)
                if applies and assigned[a] != on_page[working_set[a]]:
                    margin = decision_margin(workspace, a, assigned[a])
                    if margin > strength[a]:
                        strength[a] = margin
                        joint_cause[order[working_set[a]], 0], joint_cause[order[working_set[a]], 1] = control, partner


@kernel
def _top_controls(price: F64, credit: F64, sign: float, first: int, top: np.ndarray) -> None:
    """Fill `top` with three priced controls: `first` if >= 0, then by credit and price; -1 for none."""
    for z in range(3):
        best = first if z == 0 else -1
        for c in range(len(price)):
            if z == 0 and first >= 0:
                break
            if price[c] <= 0.0 or (z > 0 and c == top[0]) or (z > 1 and c == top[1]):
                continue
            if best < 0 or (sign * credit[c], price[c]) > (sign * credit[best], price[best]):
                best = c
        top[z] = best
