"""Presolve: reduce page constraints to fewer items, tighter limits and a single kind of row.

Three reductions preserve feasibility and the optimal value. *Signature dominance*: items with the same memberships are
interchangeable, so only the best K of each signature are kept. *Closure*: a count grows by at most one per slot, so a
minimum of 3 at slot 5 implies a minimum of 2 at slot 4; pins tighten limits further. *Redundancy*: rows that no page
can violate are dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys.domain.types import F64, I32, Bool
from recsys.guidance.solver.page_constraints import PageConstraints


@dataclass(frozen=True)
class ReducedProblem:
    """A presolved problem: n items by descending value (ties by `PageConstraints.tie`), K slots, G groups of items.

    item      [n]     candidate of the item
    value     [n]     play equivalents, descending
    attention [K]     weight of each slot
    member    [G, n]  bool
    lower, upper [G, K]  limits on the number of members in the first k + 1 slots
    window_limit, window_length [G]  at most `window_limit` members in `window_length` consecutive slots; length 1
                      means no such limit
    owner     [G]     control that owns the group
    pin       [K]     item pinned to the slot, -1 = none
    duplicate_of [n]  next better item with the same signature, -1 = none
    feasible          False: the limits contradict each other, so no page exists
    """

    item: I32
    value: F64
    attention: F64
    member: Bool
    lower: I32
    upper: I32
    window_limit: I32
    window_length: I32
    owner: I32
    pin: I32
    duplicate_of: I32
    feasible: bool


def presolve(value: F64, attention: F64, constraints: PageConstraints) -> ReducedProblem:
    """Return an equivalent problem without redundant items and rows.

    value [N], attention [K] with K = `constraints.slots`
    """
    order = np.lexsort((constraints.tie, -value)).astype(np.int32)
    member, lower, upper, window_limit, window_length, owner = _groups(constraints)
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    pin, feasible = _pins_by_slot(constraints, rank)
    member = member[:, order]
    keep, duplicate_of = _signatures(member, pin, constraints.slots)
    renumber = np.cumsum(keep, dtype=np.int32) - 1
    pin = np.where(pin >= 0, renumber[pin], -1).astype(np.int32)
    duplicate_of = np.where(duplicate_of >= 0, renumber[duplicate_of], -1)[keep].astype(np.int32)
    member, order = np.ascontiguousarray(member[:, keep]), order[keep]
    if feasible:
        lower, upper = tighten_bounds(lower, upper, member, pin)
        feasible = bool((lower <= upper).all() and (lower.max(axis=1, initial=0) <= member.sum(axis=1)).all())
    return ReducedProblem(
        order,
        value[order],
        attention,
        member,
        lower,
        upper,
        window_limit,
        window_length,
        owner,
        pin,
        duplicate_of,
        feasible,
    )


def _groups(constraints: PageConstraints) -> tuple[Bool, I32, I32, I32, I32, I32]:
    """Return count rows and restricted spacing values as groups, without those that no page can violate."""
    k, slots = constraints.slots, np.arange(1, constraints.slots + 1)
    size = constraints.member.sum(axis=1)
    reach = np.minimum(slots[None, :], size[:, None])
    restricts = ((constraints.lower > 0) | (constraints.upper < reach)).any(axis=1)
    member, lower, upper = (
        [constraints.member[restricts]],
        [constraints.lower[restricts]],
        [constraints.upper[restricts]],
    )
    owner = [constraints.row_control[restricts]]
    window_limit, window_length = [np.zeros(int(restricts.sum()), np.int32)], [np.ones(int(restricts.sum()), np.int32)]
    for s in range(len(constraints.at_most)):
        code, limit, width = constraints.code[s], int(constraints.at_most[s]), int(constraints.within[s])
        history = constraints.before[s][len(constraints.before[s]) - (width - 1) :]
        values, counts = np.unique(code[code >= 0], return_counts=True)
        for value, count in zip(values, counts, strict=True):
            if count + int((history == value).sum()) <= limit or limit >= width:
                continue
            cumulative_limit = slots.astype(np.int32)
            for end in range(min(width - 1, k)):  # windows that start before the page
                cumulative_limit[end] = min(end + 1, max(0, limit - int((history[end:] == value).sum())))
            member.append((code == value)[None, :])
            lower.append(np.zeros((1, k), np.int32))
            upper.append(cumulative_limit[None, :])
            window_limit.append(np.array([limit], np.int32))
            window_length.append(np.array([width], np.int32))
            owner.append(constraints.spacing_control[s : s + 1])
    return (
        np.concatenate(member),
        np.concatenate(lower),
        np.concatenate(upper),
        np.concatenate(window_limit),
        np.concatenate(window_length),
        np.concatenate(owner),
    )


def _pins_by_slot(constraints: PageConstraints, rank: I32) -> tuple[I32, bool]:
    """Return the pinned item of each slot [K], and whether all pins can be satisfied together."""
    pin = np.full(constraints.slots, -1, np.int32)
    feasible = True
    for item, slot in zip(constraints.pin_item.tolist(), constraints.pin_slot.tolist(), strict=True):
        if item < 0 or slot >= constraints.slots:
            feasible = False
            continue
        index = rank[item]
        feasible &= pin[slot] in (-1, index) and not (pin[np.arange(len(pin)) != slot] == index).any()
        pin[slot] = index
    return pin, bool(feasible)


def _signatures(member: Bool, pin: I32, slots: int) -> tuple[Bool, I32]:
    """Return which items to keep [N], and the next better duplicate of each. Pinned items have no duplicates."""
    keep, duplicate_of = np.ones(member.shape[1], np.bool_), np.full(member.shape[1], -1, np.int32)
    packed = np.packbits(member, axis=0).T.copy()
    width, raw = packed.shape[1], packed.tobytes()
    pinned = set(pin[pin >= 0].tolist())
    last: dict[bytes, int] = {}
    counts: dict[bytes, int] = {}
    for i in range(member.shape[1]):
        if i in pinned:
            continue
        signature = raw[i * width : (i + 1) * width]
        count = counts.get(signature, 0)
        if count == slots:
            keep[i] = False
            continue
        duplicate_of[i] = last.get(signature, -1)
        counts[signature], last[signature] = count + 1, i
    return keep, duplicate_of


def tighten_bounds(lower: I32, upper: I32, member: Bool, pin: I32) -> tuple[I32, I32]:
    """Return the tightest equivalent limits, given the pins and at most one new member per slot."""
    groups, slots = lower.shape
    added_min, added_max = np.zeros((groups, slots), np.int32), np.ones((groups, slots), np.int32)
    for k in np.flatnonzero(pin >= 0).tolist():
        added_min[:, k] = added_max[:, k] = member[:, pin[k]]
    lower, upper = np.maximum(lower, 0), upper.copy()
    for k in range(slots):
        previous = slice(max(k - 1, 0), k)  # empty before the first slot
        lower[:, k] = np.maximum(lower[:, k], added_min[:, k] + lower[:, previous].sum(axis=1))
        upper[:, k] = np.minimum(upper[:, k], added_max[:, k] + upper[:, previous].sum(axis=1))
    for k in range(slots - 2, -1, -1):
        lower[:, k] = np.maximum(lower[:, k], lower[:, k + 1] - added_max[:, k + 1])
        upper[:, k] = np.minimum(upper[:, k], upper[:, k + 1] - added_min[:, k + 1])
    return lower, upper
