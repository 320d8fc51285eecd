"""What a control lacks that cannot be kept even where no other control is in force: items, slots, or sense."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from recsys.guidance.policy.controls import Cap, Control, Spacing
from recsys.guidance.solver.page_constraints import PageConstraints
from recsys.messages import Message, message


@dataclass(frozen=True)
class Shortfall:
    """kind   supply  items are missing, or too much alike
          slots   the page, or its beginning, is too short
          itself  what the control asks contradicts itself

    missing  so many items more would do, as far as items are counted
    said     what is lacking, for editors
    """

    kind: Literal["supply", "slots", "itself"]
    count: int
    text: Message


def shortfall_of(bounds: PageConstraints, c: int, control: Control) -> Shortfall:
    """Of a control in force that no page keeps, even alone."""
    if (bounds.pin_control == c).any():
        return _pin(bounds, c)
    if isinstance(control, Spacing):
        return _space(bounds, c, control)
    if isinstance(control, Cap):
        return _cap(bounds, c, control)
    return _share(bounds, c)


def _pin(bounds: PageConstraints, c: int) -> Shortfall:
    p = int(np.flatnonzero(bounds.pin_control == c)[0])
    if bounds.pin_slot[p] >= bounds.slots:
        return Shortfall("slots", 0, message("pin_slot_beyond_page", slots=bounds.slots))
    return Shortfall("supply", 1, message("pin_item_unavailable"))


def _space(bounds: PageConstraints, c: int, control: Spacing) -> Shortfall:
    s = int(np.flatnonzero(bounds.space_control == c)[0])
    values, without = _values(bounds.code[s])
    lacks = message(
        "spacing_lacks_values",
        values=values,
        attribute=control.attribute,
        others=_excluding(without),
        maximum=control.at_most,
        within=control.within,
        slots=bounds.slots,
    )
    return Shortfall("supply", 0, lacks)


def _cap(bounds: PageConstraints, c: int, control: Cap) -> Shortfall:
    q = int(np.flatnonzero(bounds.cap_control == c)[0])
    code, most = bounds.cap_code[q], int(bounds.cap_at_most[q])
    values, without = _values(code)
    room = without
    rows = bounds.row_control == c
    limit = {
        int(code[member.argmax()]): int(upper[-1])
        for member, upper in zip(bounds.member[rows], bounds.upper[rows], strict=True)
    }
    for value, count in zip(*np.unique(code[code >= 0], return_counts=True), strict=True):
        room += min(int(count), limit.get(int(value), bounds.slots))
    missing = bounds.slots - room
    page = {"values": values, "attribute": control.attribute, "room": room, "slots": bounds.slots, "missing": missing}
    if room == values * most and not without:
        return Shortfall("supply", missing, message("cap_lacks_values", maximum=most, **page))
    return Shortfall("supply", missing, message("cap_lacks_items", others=_excluding(without), **page))


def _share(bounds: PageConstraints, c: int) -> Shortfall:
    row = int(np.flatnonzero(bounds.row_control == c)[0])
    k, lower, upper = np.arange(1, bounds.slots + 1), bounds.lower[row], bounds.upper[row]
    supply = int(bounds.member[row].sum())
    others, least = len(bounds) - supply, int(lower.max())
    if (lower > k).any():
        at = int((lower - k).argmax())
        return Shortfall("slots", 0, message("prefix_too_short", minimum=int(lower[at]), slots=int(k[at])))
    if (lower > upper).any():
        at = int((lower - upper).argmax())
        limits = {"minimum": int(lower[at]), "maximum": int(upper[at]), "slots": int(k[at])}
        return Shortfall("itself", 0, message("limits_contradict", **limits))
    if least > supply:
        missing = least - supply
        return Shortfall("supply", missing, message("supply_short", missing=missing, supply=supply))
    if (short := int((k - upper).max()) - others) > 0:
        return Shortfall("supply", short, message("other_supply_short", missing=short, supply=others))
    return Shortfall("itself", 0, message("prefixes_contradict"))


def _values(code: np.ndarray) -> tuple[int, int]:
    """How many values there are, and how many items without one."""
    return len(np.unique(code[code >= 0])), int((code < 0).sum())


def _excluding(without: int) -> Message | None:
    return message("items_without_value", items=without) if without else None
