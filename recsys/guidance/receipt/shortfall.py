"""The shortage behind a control that no page can meet, even as the only control: too few items, too few slots, or a
self-contradictory definition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from recsys.guidance.policy.controls import Cap, Control, Spacing
from recsys.guidance.solver.page_constraints import PageConstraints
from recsys.messages import Message, message


@dataclass(frozen=True)
class Shortfall:
    """The items or slots that a control lacks.

    kind   supply  too few items, or too few different values
           slots   the page, or a prefix of it, is too short
           itself  the control contradicts itself
    count  number of additional items that would suffice; 0 if it cannot be counted
    text   the shortage, in words for editors
    """

    kind: Literal["supply", "slots", "itself"]
    count: int
    text: Message


def shortfall_of(constraints: PageConstraints, c: int, control: Control) -> Shortfall:
    """Return the shortage of an active control that no page meets, even as the only control."""
    if (constraints.pin_control == c).any():
        return _pin(constraints, c)
    if isinstance(control, Spacing):
        return _spacing(constraints, c, control)
    if isinstance(control, Cap):
        return _cap(constraints, c, control)
    return _quota(constraints, c)


def _pin(constraints: PageConstraints, c: int) -> Shortfall:
    p = int(np.flatnonzero(constraints.pin_control == c)[0])
    if constraints.pin_slot[p] >= constraints.slots:
        return Shortfall("slots", 0, message("pin_slot_beyond_page", slots=constraints.slots))
    return Shortfall("supply", 1, message("pin_item_unavailable"))


def _spacing(constraints: PageConstraints, c: int, control: Spacing) -> Shortfall:
    s = int(np.flatnonzero(constraints.spacing_control == c)[0])
    values, without = _values(constraints.code[s])
    lacks = message(
        "spacing_lacks_values",
        values=values,
        attribute=control.attribute,
        others=_excluding(without),
        maximum=control.at_most,
        within=control.within,
        slots=constraints.slots,
    )
    return Shortfall("supply", 0, lacks)


def _cap(constraints: PageConstraints, c: int, control: Cap) -> Shortfall:
    q = int(np.flatnonzero(constraints.cap_control == c)[0])
    code, maximum = constraints.cap_code[q], int(constraints.cap_at_most[q])
    values, without = _values(code)
    room = without
    rows = constraints.row_control == c
    limit = {
        int(code[member.argmax()]): int(upper[-1])
        for member, upper in zip(constraints.member[rows], constraints.upper[rows], strict=True)
    }
    for value, count in zip(*np.unique(code[code >= 0], return_counts=True), strict=True):
        room += min(int(count), limit.get(int(value), constraints.slots))
    missing = constraints.slots - room
    page = {
        "values": values,
        "attribute": control.attribute,
        "room": room,
        "slots": constraints.slots,
        "missing": missing,
    }
    if room == values * maximum and not without:
        return Shortfall("supply", missing, message("cap_lacks_values", maximum=maximum, **page))
    return Shortfall("supply", missing, message("cap_lacks_items", others=_excluding(without), **page))


def _quota(constraints: PageConstraints, c: int) -> Shortfall:
    row = int(np.flatnonzero(constraints.row_control == c)[0])
    k, lower, upper = np.arange(1, constraints.slots + 1), constraints.lower[row], constraints.upper[row]
    supply = int(constraints.member[row].sum())
    other_items, minimum = len(constraints) - supply, int(lower.max())
    if (lower > k).any():
        slot = int((lower - k).argmax())
        return Shortfall("slots", 0, message("prefix_too_short", minimum=int(lower[slot]), slots=int(k[slot])))
    if (lower > upper).any():
        slot = int((lower - upper).argmax())
        limits = {"minimum": int(lower[slot]), "maximum": int(upper[slot]), "slots": int(k[slot])}
        return Shortfall("itself", 0, message("limits_contradict", **limits))
    if minimum > supply:
        missing = minimum - supply
        return Shortfall("supply", missing, message("supply_short", missing=missing, supply=supply))
    if (short := int((k - upper).max()) - other_items) > 0:
        return Shortfall("supply", short, message("other_supply_short", missing=short, supply=other_items))
    return Shortfall("itself", 0, message("prefixes_contradict"))


def _values(code: np.ndarray) -> tuple[int, int]:
    """Return the number of distinct values and the number of items without a value."""
    return len(np.unique(code[code >= 0])), int((code < 0).sum())


def _excluding(without: int) -> Message | None:
    return message("items_without_value", items=without) if without else None
