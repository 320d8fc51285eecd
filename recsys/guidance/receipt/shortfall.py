"""What a control lacks that cannot be kept even where no other control is in force: items, slots, or sense."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from recsys.guidance.policy.controls import Cap, Control, Spacing
from recsys.guidance.solver.page_constraints import PageConstraints

PLURAL = {
    "topic": "topics",
    "provider": "providers",
    "series": "series",
    "outlet": "outlets",
    "region": "regions",
    "kind": "kinds",
}


@dataclass(frozen=True)
class Shortfall:
    """kind   supply  items are missing, or too much alike
          slots   the page, or its beginning, is too short
          itself  what the control asks contradicts itself

    missing  so many items more would do, as far as items are counted; words for editors
    """

    kind: Literal["supply", "slots", "itself"]
    count: int
    words: str


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
        return Shortfall("slots", 0, f"this page has {bounds.slots} slots")
    return Shortfall("supply", 1, "the item may not be shown here now")


def _space(bounds: PageConstraints, c: int, control: Spacing) -> Shortfall:
    s = int(np.flatnonzero(bounds.space_control == c)[0])
    values, without = _values(bounds.code[s])
    return Shortfall(
        "supply", 0,
        f"{_item_phrase(values, control.attribute)}{_excluding(without)}: too few for at most {control.at_most} of one "
        f"in any {control.within} of {bounds.slots} neighbouring slots",
    )  # fmt: skip


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
    sum_of = f"{_item_phrase(values, control.attribute)} x {most} = " if room == values * most and not without else ""
    filled = f"{sum_of}{room} of {bounds.slots} slots"
    if not sum_of:
        filled = f"{_item_phrase(values, control.attribute)}{_excluding(without)} fill {filled}"
    return Shortfall("supply", bounds.slots - room, f"{filled}: {bounds.slots - room} more items of others are needed")


def _share(bounds: PageConstraints, c: int) -> Shortfall:
    row = int(np.flatnonzero(bounds.row_control == c)[0])
    k, lower, upper = np.arange(1, bounds.slots + 1), bounds.lower[row], bounds.upper[row]
    supply = int(bounds.member[row].sum())
    others, least = len(bounds) - supply, int(lower.max())
    if (lower > k).any():
        at = int((lower - k).argmax())
        return Shortfall("slots", 0, f"{lower[at]} cannot stand in the first {k[at]} slots")
    if (lower > upper).any():
        at = int((lower - upper).argmax())
        return Shortfall(
            "itself", 0, f"at least {lower[at]} and at most {upper[at]} of {k[at]} slots contradict each other"
        )
    if least > supply:
        missing = least - supply
        return Shortfall(
            "supply", missing, f"{missing} more would have to be available: only {supply} may be shown here now"
        )
    if (short := int((k - upper).max()) - others) > 0:
        return Shortfall(
            "supply", short, f"{short} more others would have to be available: only {others} may be shown here now"
        )
    return Shortfall("itself", 0, "what it asks of beginnings and of the page contradicts itself")


def _values(code: np.ndarray) -> tuple[int, int]:
    """How many values there are, and how many items without one."""
    return len(np.unique(code[code >= 0])), int((code < 0).sum())


def _item_phrase(values: int, attribute: str) -> str:
    return f"{values} {attribute if values == 1 else PLURAL[attribute]}"


def _excluding(without: int) -> str:
    return f" and {without} items without one" if without else ""
