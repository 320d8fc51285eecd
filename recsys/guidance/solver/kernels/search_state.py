"""The state of the search for one page, and its incumbent."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recsys.domain.types import F64
from recsys.guidance.solver.kernels import kernel
from recsys.guidance.solver.kernels.instance import Instance
from recsys.guidance.solver.kernels.lagrangian import AdagradState, Prices, count_members


class State(NamedTuple):
    """Search state of one page; `refine` updates it in place.

    incumbent [K]       best feasible page so far, as items of the instance; all -1 = none yet
    bounds [2]          primal bound (value of the incumbent, -FAR = none) and dual bound
    prices, adagrad     Lagrange multipliers of the limits and the state of their updates
    reduced_value [N]   what each item can add at most to the assignment at these prices
    slot_price [K]      assignment dual of each slot (FAR at pins)
    item_price [N]      assignment dual of each item
    assigned_items [F]  items of the free slots in the last assignment
    """

    incumbent: np.ndarray
    bounds: F64
    prices: Prices
    adagrad: AdagradState
    reduced_value: F64
    slot_price: F64
    item_price: F64
    assigned_items: np.ndarray


@kernel
def is_feasible(instance: Instance, count: np.ndarray) -> bool:
    """Return whether member counts [G, K + 1] satisfy all limits."""
    groups, slots = instance.lower.shape
    for g in range(groups):
        for k in range(slots):
            if count[g, k + 1] < instance.lower[g, k] or count[g, k + 1] > instance.upper[g, k]:
                return False
        window = instance.window_length[g]
        if window:
            for q in range(slots - window + 1):
                if count[g, q + window] - count[g, q] > instance.window_limit[g]:
                    return False
    return True


@kernel
def update_incumbent(instance: Instance, working_set: np.ndarray, page: np.ndarray, state: State) -> None:
    """Make a feasible page [K] of columns the incumbent if its value is higher."""
    value = 0.0
    for k in range(len(page)):
        value += (
            instance.attention[k] * instance.value[instance.pin[k] if instance.pin[k] >= 0 else working_set[page[k]]]
        )
    if value > state.bounds[0] + 1e-12:
        state.bounds[0] = value
        for k in range(len(page)):
            state.incumbent[k] = instance.pin[k] if instance.pin[k] >= 0 else working_set[page[k]]


@kernel
def is_optimal(state: State) -> bool:
    """Return whether the incumbent is proven optimal, to a relative tolerance of 1e-9."""
    return bool(state.bounds[1] - state.bounds[0] <= 1e-9 * (1.0 + abs(state.bounds[1])))


@kernel
def is_greedy_feasible(instance: Instance) -> bool:
    """Return whether the page in order of value satisfies all limits and pins."""
    groups, slots = instance.lower.shape
    count, working_set, page = np.zeros((groups, slots + 1), np.int64), np.arange(slots), np.arange(slots)
    for k in range(slots):
        if instance.pin[k] >= 0 and instance.pin[k] != k:
            return False
    count_members(instance, working_set, page, count)
    return is_feasible(instance, count)
