"""Lookahead bounds for beam search: the minimum loss that a partial page still incurs, per priced group.

For each priced group, a dynamic program over the slots computes the minimum remaining loss given the number of
members placed so far. It uses only the limits of the group and, in each slot, the loss of the best member and of the
best item outside the group. The terms left out are >= 0, so the maximum over groups is a valid lower bound.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recsys.domain.types import F64
from recsys.guidance.solver.kernels import kernel
from recsys.guidance.solver.kernels.assignment import FAR
from recsys.guidance.solver.kernels.instance import Instance, is_member
from recsys.guidance.solver.kernels.lagrangian import Prices

SHORTLIST_SIZE = 48
"""Columns per slot that the beam search tries first, by ascending loss; it tries the rest only if none of them fits."""


@kernel
def fill_surplus_price(instance: Instance, prices: Prices, group: int, price: F64) -> None:
    """Fill price[c, k]: the slack price of lower limits paid for placing the (c + 1)-th member of a group in slot k."""
    slots = price.shape[1]
    price[:] = 0.0
    for r in range(len(prices.row)):
        if instance.row_group[r] == group and instance.row_sign[r] > 0 and prices.row[r] > 0.0:
            for c in range(instance.row_limit[r], slots):
                for k in range(instance.row_slot[r] + 1):
                    price[c, k] += prices.row[r]


@kernel
def fill_upper_price(instance: Instance, prices: Prices, group: int, price: F64) -> None:
    """Fill price[k]: the slack price of the upper limit at slot k, per member below the limit."""
    price[:] = 0.0
    for r in range(len(prices.row)):
        if instance.row_group[r] == group and instance.row_sign[r] < 0:
            price[instance.row_slot[r]] += prices.row[r]


@kernel
def cost_to_go(
    instance: Instance,
    group: int,
    surplus_price: F64,
    upper_price: F64,
    member_loss: F64,
    other_loss: F64,
    loss_to_go: F64,
) -> None:
    """Fill loss_to_go[k, c]: the minimum loss of slots k.. with c members before k, by this group's limits alone.

    member_loss, other_loss [K]: minimum loss in each slot of any column in the group, and of any column outside it
    """
    slots = len(member_loss)
    loss_to_go[slots, :] = 0.0
    for k in range(slots - 1, -1, -1):
        pinned = instance.pin[k]
        for c in range(k + 1):
            best = FAR
            for member in range(2):
                count = c + member
                if count < instance.lower[group, k] or count > instance.upper[group, k]:
                    continue
                if pinned >= 0:
                    if is_member(instance.mask, pinned, group) != member:
                        continue
                    loss = 0.0
                else:
                    loss = member_loss[k] if member else other_loss[k]
                if member:
                    loss += surplus_price[c, k]
                if upper_price[k] > 0.0:
                    loss += upper_price[k] * (instance.upper[group, k] - count)
                best = min(best, loss + loss_to_go[k + 1, count])
            loss_to_go[k, c] = best


@kernel
def shortlist_by_loss(loss: F64, k: int, limit: float, shortlist: np.ndarray) -> tuple[int, float]:
    """Fill shortlist with the columns of slot k whose loss is <= limit, in ascending order of loss.

    Returns the length of the list and the minimum loss of the columns that are not on it.
    """
    count, omitted_loss = 0, FAR
    for a in range(loss.shape[1]):
        x = loss[k, a]
        if x > limit or (count == len(shortlist) and x >= loss[k, shortlist[count - 1]]):
            omitted_loss = min(omitted_loss, x)
            continue
        if count == len(shortlist):
            omitted_loss = min(omitted_loss, loss[k, shortlist[count - 1]])
            count -= 1
        j = count
        while j > 0 and loss[k, shortlist[j - 1]] > x:
            shortlist[j] = shortlist[j - 1]
            j -= 1
        shortlist[j] = a
        count += 1
    return count, omitted_loss


class Lookahead(NamedTuple):
    """Lookahead tables for X priced groups.

    group [X], position [G]  the priced groups, and the index of each group in this list (-1 = not priced)
    surplus_price [X, K, K]  slack price of lower limits, charged when the (c + 1)-th member is placed in slot k
    upper_price [X, K]       slack price of the upper limit at slot k, per member below the limit
    loss_to_go [X, K + 1, K + 2]  minimum loss of slots k.. with c members placed before k
    """

    group: np.ndarray
    position: np.ndarray
    surplus_price: F64
    upper_price: F64
    loss_to_go: F64


@kernel
def build_lookahead(
    instance: Instance,
    working_set: np.ndarray,
    prices: Prices,
    loss: F64,
    shortlist: np.ndarray,
    shortlist_size: np.ndarray,
    omitted_loss: F64,
) -> Lookahead:
    """Build the lookahead tables. Columns outside the shortlist of slot k have a loss of at least omitted_loss[k]."""
    groups, slots = instance.lower.shape
    priced = np.zeros(groups, np.bool_)
    for r in range(len(prices.row)):
        priced[instance.row_group[r]] |= prices.row[r] > 0.0
    group = np.flatnonzero(priced)
    position = np.full(groups, -1, np.int64)
    surplus_price, upper_price = np.zeros((len(group), slots, slots)), np.zeros((len(group), slots))
    loss_to_go = np.zeros((len(group), slots + 1, slots + 2))
    member_loss, other_loss = np.empty(slots), np.empty(slots)
    for x in range(len(group)):
        g = group[x]
        position[g] = x
        fill_surplus_price(instance, prices, g, surplus_price[x])
        fill_upper_price(instance, prices, g, upper_price[x])
        for k in range(slots):
            member_loss[k] = other_loss[k] = omitted_loss[k]
            for y in range(shortlist_size[k] - 1, -1, -1):
                a = shortlist[k, y]
                if is_member(instance.mask, working_set[a], g):
                    member_loss[k] = loss[k, a]
                else:
                    other_loss[k] = loss[k, a]
        cost_to_go(instance, g, surplus_price[x], upper_price[x], member_loss, other_loss, loss_to_go[x])
    return Lookahead(group, position, surplus_price, upper_price, loss_to_go)
