"""What prices say of the slots to come: the least that a partial page will lose, group by group.

For each priced group a dynamic programme over the slots knows the least loss given how many members stand so far, by
the group's own limits and the losses of the best member and the best other item in each slot. The largest of these is a
bound on what is to come, since each leaves out only limits and losses that are >= 0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recsys.domain.types import F64
from recsys.guidance.solver.kernels import kernel
from recsys.guidance.solver.kernels.assignment import FAR
from recsys.guidance.solver.kernels.instance import Instance, is_member
from recsys.guidance.solver.kernels.lagrangian import Prices

LISTED = 48
"""Columns kept in order of loss for each slot; the others are looked at only where none of these fits."""


@kernel
def surplus(layout: Instance, prices: Prices, group: int, out: F64) -> None:
    """Fills out[c, k]: what placing the (c + 1)-th member of a group in slot k costs in slack of the floors to come."""
    slots = out.shape[1]
    out[:] = 0.0
    for r in range(len(prices.row)):
        if layout.row_group[r] == group and layout.row_sign[r] > 0 and prices.row[r] > 0.0:
            for c in range(layout.row_limit[r], slots):
                for k in range(layout.row_slot[r] + 1):
                    out[c, k] += prices.row[r]


@kernel
def short_of_cap(layout: Instance, prices: Prices, group: int, price: F64) -> None:
    """Fills price[k]: what each member too few in the first k + 1 slots costs in slack of the cap there."""
    price[:] = 0.0
    for r in range(len(prices.row)):
        if layout.row_group[r] == group and layout.row_sign[r] < 0:
            price[layout.row_slot[r]] += prices.row[r]


@kernel
def cost_to_go(
    layout: Instance, group: int, over: F64, cap_price: F64, with_member: F64, without: F64, least: F64
) -> None:
    """Fills least[k, c]: the least loss of slots k.. when c members stand before k, by this group's limits alone.

    with_member, without [K]: least loss of any column in the group, or outside it, in each slot
    """
    slots = len(with_member)
    least[slots, :] = 0.0
    for k in range(slots - 1, -1, -1):
        pinned = layout.pin[k]
        for c in range(k + 1):
            best = FAR
            for member in range(2):
                count = c + member
                if count < layout.lower[group, k] or count > layout.upper[group, k]:
                    continue
                if pinned >= 0:
                    if is_member(layout.mask, pinned, group) != member:
                        continue
                    here = 0.0
                else:
                    here = with_member[k] if member else without[k]
                if member:
                    here += over[c, k]
                if cap_price[k] > 0.0:
                    here += cap_price[k] * (layout.upper[group, k] - count)
                best = min(best, here + least[k + 1, count])
            least[k, c] = best


@kernel
def in_order(loss: F64, k: int, limit: float, listed: np.ndarray) -> tuple[int, float]:
    """Fills listed with the columns of slot k that lose <= limit, least first; how many, and the least left out."""
    count, beyond = 0, FAR
    for a in range(loss.shape[1]):
        x = loss[k, a]
        if x > limit or (count == len(listed) and x >= loss[k, listed[count - 1]]):
            beyond = min(beyond, x)
            continue
        if count == len(listed):
            beyond = min(beyond, loss[k, listed[count - 1]])
            count -= 1
        j = count
        while j > 0 and loss[k, listed[j - 1]] > x:
            listed[j] = listed[j - 1]
            j -= 1
        listed[j] = a
        count += 1
    return count, beyond


class Lookahead(NamedTuple):
    """What prices say of the slots to come, group by group; X priced groups.

    group [X], which [G]  the priced groups, and the place of each group among them (-1 = not priced)
    over [X, K, K]   slack of floors that the (c + 1)-th member in slot k costs at once
    cap [X, K]       price of each member too few in the first k + 1 slots
    least [X, K + 1, K + 2]  least loss of slots k.. when c members stand before k
    """

    group: np.ndarray
    which: np.ndarray
    over: F64
    cap: F64
    least: F64


@kernel
def look_ahead(
    layout: Instance, column: np.ndarray, prices: Prices, loss: F64, listed: np.ndarray, lists: np.ndarray, beyond: F64
) -> Lookahead:
    """The tables of `Ahead` for columns whose loss beyond the lists is at least `beyond` [K]."""
    groups, slots = layout.lower.shape
    priced = np.zeros(groups, np.bool_)
    for r in range(len(prices.row)):
        priced[layout.row_group[r]] |= prices.row[r] > 0.0
    group = np.flatnonzero(priced)
    which = np.full(groups, -1, np.int64)
    over, cap = np.zeros((len(group), slots, slots)), np.zeros((len(group), slots))
    least = np.zeros((len(group), slots + 1, slots + 2))
    inside, outside = np.empty(slots), np.empty(slots)
    for x in range(len(group)):
        g = group[x]
        which[g] = x
        surplus(layout, prices, g, over[x])
        short_of_cap(layout, prices, g, cap[x])
        for k in range(slots):
            inside[k] = outside[k] = beyond[k]
            for y in range(lists[k] - 1, -1, -1):
                a = listed[k, y]
                if is_member(layout.mask, column[a], g):
                    inside[k] = loss[k, a]
                else:
                    outside[k] = loss[k, a]
        cost_to_go(layout, g, over[x], cap[x], inside, outside, least[x])
    return Lookahead(group, which, over, cap, least)
