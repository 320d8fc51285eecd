"""Estimates of the price of a pin, at the final Lagrangian prices of the solver.

At these prices the page is an assignment of items to slots. The price of a pin is the value that the assignment gains
if the pinned item and its slot are released. Unlike other dual estimates, it can err in either direction, because the
prices belong to limits that the pin contributes to.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

from recsys.domain.types import F64
from recsys.guidance.solver.kernels.instance import Instance
from recsys.guidance.solver.kernels.search_state import State
from recsys.guidance.solver.kernels.sensitivity import price_adjustments
from recsys.guidance.solver.page_constraints import I64, PageConstraints

MAX_INCOMING_ITEMS = 8
"""Number of unassigned items that may enter the assignment: those with the highest reduced value."""


def pin_prices(
    instance: Instance, state: State, constraints: PageConstraints, order: I64
) -> Iterator[tuple[int, float]]:
    """Yield the control and the price of each pin of a page that satisfies all pins.

    order [N]: candidates by descending value, as in `build_instance`
    """
    if not len(constraints.pin_item):
        return
    free, assigned = np.flatnonzero(instance.pin < 0), state.assigned_items
    adjustment = np.add(*price_adjustments(instance, state.prices))
    adjustment = np.vstack([adjustment, np.zeros((1, constraints.slots))])  # the last row is for the padding -1
    candidates = state.reduced_value.copy()
    candidates[assigned] = candidates[instance.pin[instance.pin >= 0]] = -np.inf
    nearest = np.argsort(-candidates, kind="stable")[:MAX_INCOMING_ITEMS]
    column = np.concatenate([assigned, nearest[candidates[nearest] > -np.inf]])
    profit = _profit(instance, adjustment, column)
    assigned_value = float(profit[np.arange(len(free)), free].sum())
    control_of = {int(slot): int(c) for slot, c in zip(constraints.pin_slot, constraints.pin_control, strict=True)}
    for slot, control in control_of.items():
        own = _profit(instance, adjustment, instance.pin[slot : slot + 1])
        released = np.concatenate([profit, own])[:, [*free, slot]]
        best_value = float(released[linear_sum_assignment(released, maximize=True)].sum())
        yield control, max(0.0, best_value - assigned_value - float(own[0, slot]))


def _profit(instance: Instance, adjustment: F64, items: I64) -> F64:
    """Return the Lagrangian profit of the items in each slot [M, K]."""
    alone = instance.value[items, None] * instance.attention
    return np.asarray(alone + adjustment[instance.groups_of[items]].sum(axis=1), np.float64)


def standalone_pin_prices(value: F64, attention: F64, constraints: PageConstraints) -> Iterator[tuple[int, float]]:
    """Yield control and price of each pin as if there were no other limits, for solutions without Lagrangian prices.

    value [N], attention [K]
    """
    best, weight = np.sort(value)[::-1], np.sort(attention)[::-1]
    free = float(weight @ best[: len(weight)])
    for item, slot, control in zip(
        constraints.pin_item, constraints.pin_slot, constraints.pin_control.tolist(), strict=True
    ):
        candidates, slots = np.sort(np.delete(value, item))[::-1], np.sort(np.delete(attention, slot))[::-1]
        yield control, max(0.0, free - float(attention[slot] * value[item] + slots @ candidates[: len(slots)]))
