"""What one control asked of a page and what it got, read off the bounds, in editors' words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from recsys.guidance.bounds import Bounds, Solution, most_in_a_row
from recsys.types import F64, I32


@dataclass(frozen=True)
class Told:
    """Of one control in force. `supply`: candidates that could have served it; `missing`: how many it lacked."""

    kind: str  # "share" | "cap" | "space" | "pin"
    slots: int  # of the page
    achieved: int
    supply: int
    missing: int
    shaped: bool  # the best page without controls would have broken it
    at_least: int | None = None
    at_most: int | None = None
    within: int | None = None
    slot: int | None = None
    first_slots: int | None = None  # the floor is due in full so early

    def reason(self, status: str, by: int) -> str:
        """One sentence for editors."""
        if self.kind == "pin":
            return self._pin(status)
        got = self._got()
        if status == "impossible":
            return f"{got}; {self.missing} more would have to be available: only {self.supply} may be shown here now"
        if status == "relaxed":
            return f"{got}; gave way by {by}, because more important controls leave no room for more"
        return f"{got}; it shaped this page" if status == "binding" else f"{got}; it would have held anyway"

    def _got(self) -> str:
        if not self.slots:
            return "nothing may be shown here now, so the page has no slots"
        asked = [
            f"{word} {number}"
            for word, number in (("at least", self.at_least), ("at most", self.at_most))
            if number is not None
        ]
        where = " on the page"
        if self.within:
            where = f" in any {self.within} neighbouring slots"
        elif self.first_slots:
            where = f" in the first {self.first_slots} slots; on the page"
        return f"{' and '.join(asked) or f'nothing asked of {self.slots} slots'}{where}: {self.achieved}"

    def _pin(self, status: str) -> str:
        if status == "impossible":
            return f"slot {self.slot}: the item may not be shown here now, or the page has no such slot"
        if status == "relaxed":
            return f"slot {self.slot}: gave way to more important controls"
        return f"stands in slot {self.slot}" + ("" if status == "binding" else "; it would have stood there anyway")


def tell(bounds: Bounds, solution: Solution, value: F64) -> Iterator[Told | None]:
    """For each control in the order of their numbers; None where it is not in force."""
    free = np.lexsort((bounds.tie, -value))[: bounds.slots].astype(np.int32)
    shaped = bounds.broken(free) > 0
    for c in range(bounds.controls):
        if not bounds.active[c]:
            yield None
        elif (bounds.pin_control == c).any():
            yield _pin(bounds, c, solution.chosen, bool(shaped[c]))
        elif (bounds.space_control == c).any():
            yield _space(bounds, c, solution.chosen, bool(shaped[c]))
        elif (bounds.cap_control == c).any():
            yield _cap(bounds, c, solution.chosen, bool(shaped[c]))
        else:
            yield _rows(bounds, c, solution.chosen, bool(shaped[c]))


def _pin(bounds: Bounds, c: int, chosen: I32, shaped: bool) -> Told:
    p = int(np.flatnonzero(bounds.pin_control == c)[0])
    item, slot = int(bounds.pin_item[p]), int(bounds.pin_slot[p])
    there = item >= 0 and slot < bounds.slots
    stands = there and int(chosen[slot]) == item
    return Told("pin", bounds.slots, int(stands), int(there), int(not there), shaped, slot=slot + 1)


def _space(bounds: Bounds, c: int, chosen: I32, shaped: bool) -> Told:
    s = int(np.flatnonzero(bounds.space_control == c)[0])
    codes = np.concatenate([bounds.before[s], bounds.code[s, chosen]])
    within = int(bounds.within[s])
    most = most_in_a_row(codes, within, bounds.slots)
    return Told("space", bounds.slots, most, len(bounds), 0, shaped, at_most=int(bounds.at_most[s]), within=within)


def _cap(bounds: Bounds, c: int, chosen: I32, shaped: bool) -> Told:
    """Whether or not it could bind here, a cap tells how many of one value stand on the page."""
    q = int(np.flatnonzero(bounds.cap_control == c)[0])
    there = bounds.cap_code[q, chosen]
    fullest = int(np.bincount(there[there >= 0]).max(initial=0))
    return Told("cap", bounds.slots, fullest, len(bounds), 0, shaped, at_most=int(bounds.cap_at_most[q]))


def _rows(bounds: Bounds, c: int, chosen: I32, shaped: bool) -> Told:
    """A share has one row."""
    rows = np.flatnonzero(bounds.row_control == c)
    if not len(rows) or not bounds.slots:
        return Told("share", bounds.slots, 0, len(bounds), 0, shaped)
    counts = bounds.member[rows][:, chosen].sum(axis=1)
    supply = int(bounds.member[rows[0]].sum())
    least, most = int(bounds.lower[rows[0]].max()), int(bounds.upper[rows[0], -1])
    missing = max(0, least - supply)
    due = int((bounds.lower[rows[0]] == least).argmax()) + 1
    return Told(
        "share",
        bounds.slots,
        int(counts.max()),
        supply,
        missing,
        shaped,
        at_least=least or None,
        at_most=most if most < bounds.slots else None,
        first_slots=due if least and due < bounds.slots else None,
    )
