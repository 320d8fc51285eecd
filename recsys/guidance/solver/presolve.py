"""Bounds reduced to what a search needs: fewer items, tighter limits, one kind of row.

Three sound reductions. *Signature dominance*: items with the same memberships are interchangeable, so only the best K
of each signature can matter. *Closure*: a count rises by at most one a slot, so a floor of 3 at slot 5 is one of 2 at
slot 4; pinned slots tighten further. *Silence*: rows that no page can break are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys.domain.types import F64, I32, Bool
from recsys.guidance.solver.page_constraints import PageConstraints


@dataclass(frozen=True)
class ReducedProblem:
    """n items in order of value (ties by `Bounds.tie`), K slots, G groups of items.

    item      [n]     candidate that the item is
    value     [n]     play equivalents, falling
    attention [K]
    member    [G, n]  bool
    lower, upper [G, K]  limits of members in the first k + 1 slots
    run_most, run_within [G]  at most so many members in so many neighbouring slots; run_within 1 = no such limit
    owner     [G]     control that the group serves
    pin       [K]     item that must stand in the slot, -1 = any
    twin      [n]     the next better item with the same signature, -1 = none
    possible          False: limits contradict each other, no page exists
    """

    item: I32
    value: F64
    attention: F64
    member: Bool
    lower: I32
    upper: I32
    run_most: I32
    run_within: I32
    owner: I32
    pin: I32
    twin: I32
    possible: bool


def presolve(value: F64, attention: F64, bounds: PageConstraints) -> ReducedProblem:
    """The same question with all that cannot matter taken out; same best pages, same feasibility.

    value [N], attention [K]: K = `bounds.slots`.
    """
    order = np.lexsort((bounds.tie, -value)).astype(np.int32)
    member, lower, upper, most, within, owner = _groups(bounds)
    place = np.empty(len(order), np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    pin, possible = _pins(bounds, place)
    member = member[:, order]
    keep, twin = _signatures(member, pin, bounds.slots)
    renumber = np.cumsum(keep, dtype=np.int32) - 1
    pin = np.where(pin >= 0, renumber[pin], -1).astype(np.int32)
    twin = np.where(twin >= 0, renumber[twin], -1)[keep].astype(np.int32)
    member, order = np.ascontiguousarray(member[:, keep]), order[keep]
    if possible:
        lower, upper = tighten_bounds(lower, upper, member, pin)
        possible = bool((lower <= upper).all() and (lower.max(axis=1, initial=0) <= member.sum(axis=1)).all())
    return ReducedProblem(
        order, value[order], attention, member, lower, upper, most, within, owner, pin, twin, possible
    )


def _groups(bounds: PageConstraints) -> tuple[Bool, I32, I32, I32, I32, I32]:
    """Rows and crowded values of spacings as groups, without those that no page can break."""
    k, slots = bounds.slots, np.arange(1, bounds.slots + 1)
    size = bounds.member.sum(axis=1)
    reach = np.minimum(slots[None, :], size[:, None])
    speaks = ((bounds.lower > 0) | (bounds.upper < reach)).any(axis=1)
    member, lower, upper = [bounds.member[speaks]], [bounds.lower[speaks]], [bounds.upper[speaks]]
    owner = [bounds.row_control[speaks]]
    most, within = [np.zeros(int(speaks.sum()), np.int32)], [np.ones(int(speaks.sum()), np.int32)]
    for s in range(len(bounds.at_most)):
        code, limit, width = bounds.code[s], int(bounds.at_most[s]), int(bounds.within[s])
        seam = bounds.before[s][len(bounds.before[s]) - (width - 1) :]
        values, counts = np.unique(code[code >= 0], return_counts=True)
        for one, count in zip(values, counts, strict=True):
            if count + int((seam == one).sum()) <= limit or limit >= width:
                continue
            most_so_far = slots.astype(np.int32)
            for end in range(min(width - 1, k)):  # windows that begin before the page
                most_so_far[end] = min(end + 1, max(0, limit - int((seam[end:] == one).sum())))
            member.append((code == one)[None, :])
            lower.append(np.zeros((1, k), np.int32))
            upper.append(most_so_far[None, :])
            most.append(np.array([limit], np.int32))
            within.append(np.array([width], np.int32))
            owner.append(bounds.space_control[s : s + 1])
    return (
        np.concatenate(member),
        np.concatenate(lower),
        np.concatenate(upper),
        np.concatenate(most),
        np.concatenate(within),
        np.concatenate(owner),
    )


def _pins(bounds: PageConstraints, place: I32) -> tuple[I32, bool]:
    """[K] pinned item per slot; whether the pins can all stand."""
    pin = np.full(bounds.slots, -1, np.int32)
    possible = True
    for item, slot in zip(bounds.pin_item.tolist(), bounds.pin_slot.tolist(), strict=True):
        if item < 0 or slot >= bounds.slots:
            possible = False
            continue
        wanted = place[item]
        possible &= pin[slot] in (-1, wanted) and not (pin[np.arange(len(pin)) != slot] == wanted).any()
        pin[slot] = wanted
    return pin, bool(possible)


def _signatures(member: Bool, pin: I32, slots: int) -> tuple[Bool, I32]:
    """[N] which items to keep, and each one's next better twin. Pinned items are like no other."""
    keep, twin = np.ones(member.shape[1], np.bool_), np.full(member.shape[1], -1, np.int32)
    packed = np.packbits(member, axis=0).T.copy()
    width, raw = packed.shape[1], packed.tobytes()
    pinned = set(pin[pin >= 0].tolist())
    last: dict[bytes, int] = {}
    taken: dict[bytes, int] = {}
    for i in range(member.shape[1]):
        if i in pinned:
            continue
        signature = raw[i * width : (i + 1) * width]
        count = taken.get(signature, 0)
        if count == slots:
            keep[i] = False
            continue
        twin[i] = last.get(signature, -1)
        taken[signature], last[signature] = count + 1, i
    return keep, twin


def tighten_bounds(lower: I32, upper: I32, member: Bool, pin: I32) -> tuple[I32, I32]:
    """The tightest limits that say the same, given that a slot adds one member or none, and pins."""
    groups, slots = lower.shape
    least, most = np.zeros((groups, slots), np.int32), np.ones((groups, slots), np.int32)
    for k in np.flatnonzero(pin >= 0).tolist():
        least[:, k] = most[:, k] = member[:, pin[k]]
    lower, upper = np.maximum(lower, 0), upper.copy()
    for k in range(slots):
        before = slice(max(k - 1, 0), k)  # nothing stands before the first slot
        lower[:, k] = np.maximum(lower[:, k], least[:, k] + lower[:, before].sum(axis=1))
        upper[:, k] = np.minimum(upper[:, k], most[:, k] + upper[:, before].sum(axis=1))
    for k in range(slots - 2, -1, -1):
        lower[:, k] = np.maximum(lower[:, k], lower[:, k + 1] - most[:, k + 1])
        upper[:, k] = np.minimum(upper[:, k], upper[:, k + 1] - least[:, k + 1])
    return lower, upper
