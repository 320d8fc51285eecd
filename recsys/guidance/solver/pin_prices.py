"""What a pin costs, estimated at the prices the solver stands at.

These prices make a page fall apart into an assignment of items to slots. What it would be worth more with the pinned
item and its slot let go is what the pin costs. Other duals err on the high side; this may err either way, since the
prices are those of limits to which the pin adds something.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

from recsys.domain.types import F64
from recsys.guidance.solver.kernels.instance import Instance
from recsys.guidance.solver.kernels.page_search import State
from recsys.guidance.solver.kernels.sensitivity import adders
from recsys.guidance.solver.page_constraints import I64, PageConstraints

NEAREST = 8
"""Items that no slot holds and that may come in: those that the prices rate highest."""


def pin_prices(layout: Instance, state: State, bounds: PageConstraints, order: I64) -> Iterator[tuple[int, float]]:
    """Control and price of each pin in the bounds, all of which stand. order [N] as in `lay_out`."""
    if not len(bounds.pin_item):
        return
    free, held = np.flatnonzero(layout.pin < 0), state.polyak_level
    adder = np.vstack([np.add(*adders(layout, state.prices)), np.zeros((1, bounds.slots))])  # the last of no group
    others = state.reduced_value.copy()
    others[held] = others[layout.pin[layout.pin >= 0]] = -np.inf
    nearest = np.argsort(-others, kind="stable")[:NEAREST]
    column = np.concatenate([held, nearest[others[nearest] > -np.inf]])
    profit = _profit(layout, adder, column)
    stands = float(profit[np.arange(len(free)), free].sum())
    control_of = {int(slot): int(c) for slot, c in zip(bounds.pin_slot, bounds.pin_control, strict=True)}
    for slot, control in control_of.items():
        own = _profit(layout, adder, layout.pin[slot : slot + 1])
        worth = np.concatenate([profit, own])[:, [*free, slot]]
        most = float(worth[linear_sum_assignment(worth, maximize=True)].sum())
        yield control, max(0.0, most - stands - float(own[0, slot]))


def _profit(layout: Instance, adder: F64, items: I64) -> F64:
    """[M, K] what items are worth in each slot, with what prices add."""
    alone = layout.value[items, None] * layout.attention
    return np.asarray(alone + adder[layout.groups_of[items]].sum(axis=1), np.float64)


def pins_alone(value: F64, attention: F64, bounds: PageConstraints) -> Iterator[tuple[int, float]]:
    """The same as if there were no other limits: where the solver has no prices.

    value [N], attention [K]
    """
    best, weight = np.sort(value)[::-1], np.sort(attention)[::-1]
    free = float(weight @ best[: len(weight)])
    for item, slot, control in zip(bounds.pin_item, bounds.pin_slot, bounds.pin_control.tolist(), strict=True):
        others, slots = np.sort(np.delete(value, item))[::-1], np.sort(np.delete(attention, slot))[::-1]
        yield control, max(0.0, free - float(attention[slot] * value[item] + slots @ others[: len(slots)]))
