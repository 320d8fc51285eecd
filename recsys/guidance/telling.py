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

    kind: str  # "share" | "cap" | "space" | "pin" | "free": nothing is asked of this page alone, only of the audience
    achieved: int
    supply: int
    missing: int
    shaped: bool  # the best page without controls would have broken it
    at_least: int | None = None
    at_most: int | None = None
    within: int | None = None
    slot: int | None = None
    first_slots: int | None = None  # the floor is due in full so early
    achieved_first: int | None = None  # of `achieved`, those in the first `first_slots`

    def reason(self, status: str, by: int) -> str:
        """One sentence for editors."""
        if self.kind == "pin":
            return self._pin(status)
        if self.kind == "free":
            return f"asks nothing of this page alone; {self.achieved} on the page"
        got = self._got()
        if status == "impossible":
            return f"{got}; {self.missing} more would have to be available: only {self.supply} may be shown here now"
        if status == "relaxed":
            return f"{got}; gave way by {by}, because more important controls leave no room for more"
        return f"{got}; it shaped this page" if status == "binding" else f"{got}; it would have held anyway"

    def _got(self) -> str:
        asked = [
            f"{word} {number}"
            for word, number in (("at least", self.at_least), ("at most", self.at_most))
            if number is not None
        ]
        where = " on the page"
        if self.within:
            where = f" in any {self.within} neighbouring slots"
        elif self.first_slots:
            there = f"{self.achieved_first} there, {self.achieved} on the page"
            return f"{' and '.join(asked)} in the first {self.first_slots} slots: {there}"
        return f"{' and '.join(asked) or 'asked of beginnings only'}{where}: {self.achieved}"

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
        else:
            yield _rows(bounds, c, solution.chosen, bool(shaped[c]))


def _pin(bounds: Bounds, c: int, chosen: I32, shaped: bool) -> Told:
    p = int(np.flatnonzero(bounds.pin_control == c)[0])
    item, slot = int(bounds.pin_item[p]), int(bounds.pin_slot[p])
    there = item >= 0 and slot < bounds.slots
    stands = there and int(chosen[slot]) == item
    return Told("pin", int(stands), int(there), int(not there), shaped, slot=slot + 1)


def _space(bounds: Bounds, c: int, chosen: I32, shaped: bool) -> Told:
    s = int(np.flatnonzero(bounds.space_control == c)[0])
    codes = np.concatenate([bounds.before[s], bounds.code[s, chosen]])
    within = int(bounds.within[s])
    most = most_in_a_row(codes, within, bounds.slots)
    return Told("space", most, len(bounds), 0, shaped, at_most=int(bounds.at_most[s]), within=within)


def _rows(bounds: Bounds, c: int, chosen: I32, shaped: bool) -> Told:
    """A share has one row, a cap one row for each value that could exceed it, or none."""
    rows = np.flatnonzero(bounds.row_control == c)
    if not len(rows) or not bounds.slots:
        return Told("cap", 0, len(bounds), 0, shaped)
    counts = bounds.member[rows][:, chosen].sum(axis=1)
    supply = int(bounds.member[rows[0]].sum())
    least, most = int(bounds.lower[rows[0]].max()), int(bounds.upper[rows[0], -1])
    missing = max(0, least - supply)
    due = int((bounds.lower[rows[0]] == least).argmax()) + 1
    early = due if least and due < bounds.slots else None
    free = not least and bool((bounds.upper[rows[0]] >= np.arange(1, bounds.slots + 1)).all())
    return Told(
        "free" if free and len(rows) == 1 else "share",
        int(counts.max()),
        supply,
        missing,
        shaped,
        at_least=least or None,
        at_most=most if most < bounds.slots else None,
        first_slots=early,
        achieved_first=None if early is None else int(bounds.member[rows[0], chosen[:early]].sum()),
    )
