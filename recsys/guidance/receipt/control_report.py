"""What one control asked of a page and what it got, read off the bounds, in editors' words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from recsys.domain.types import F64, I32
from recsys.guidance.policy.inheritance import SourcedControl
from recsys.guidance.receipt.block_outcome import block_outcome
from recsys.guidance.receipt.shortfall import Shortfall, shortfall_of
from recsys.guidance.solver.infeasibility import Causes, ConflictSet
from recsys.guidance.solver.page_constraints import PageConstraints, Solution, max_in_window

Status = Literal["met", "active", "relaxed", "infeasible"]


@dataclass(frozen=True)
class ControlOutcome:
    """Of one control in force. `supply`: candidates that could have served it; `missing`: how many it lacked.

    cause, conflicts  why it gave way, and the more important controls that left no room, in words
    """

    kind: str  # "quota" | "cap" | "spacing" | "pin" | "block" | "free": nothing is asked of this page alone
    slots: int  # of the page
    achieved: int
    supply: int
    shortfall: int
    by_choice: bool  # the best page without controls would have broken it
    at_least: int | None = None
    at_most: int | None = None
    within: int | None = None
    slot: int | None = None
    first_slots: int | None = None  # the floor is due in full so early
    by: int = 0
    cause: ConflictSet | None = None
    shortage: Shortfall | None = None
    conflicts: tuple[str, ...] = ()
    achieved_first: int | None = None  # of `achieved`, those in the first `first_slots`
    session: tuple[int, int] | None = (
        None  # counted in so many slots of earlier pages, where that changes what is asked
    )

    @property
    def status(self) -> Status:
        """Kept or not, and whether it could have been kept if no other control were in force."""
        if not self.by:
            return "active" if self.by_choice else "met"
        return "infeasible" if self.shortage else "relaxed"

    @property
    def kind_of_cause(self) -> Literal["supply", "slots", "itself", "controls", "unknown"]:
        """Why it gave way: what `want` says, else other controls."""
        if self.shortage:
            return self.shortage.kind
        return "controls" if self.conflicts else "unknown"

    def reason(self) -> str:
        """One sentence for editors."""
        if self.kind == "free":
            return f"asks nothing of this page alone; {self.achieved} on the page"
        if self.kind == "block":
            return self._blocks()
        got = f"slot {self.slot}" if self.kind == "pin" else self._achieved_text()
        if self.status == "met":
            return self._position_text("; it would have stood there anyway") or f"{got}; it would have held anyway"
        if self.status == "active":
            return self._position_text("") or f"{got}; it shaped this page"
        if self.shortage:
            rest = f"; beyond that: {self._conflict()}" if self.conflicts else ""
            return f"{got}: {self.shortage.words}" if self.kind == "pin" else f"{got}; {self.shortage.words}{rest}"
        gave_way = "gave way" if self.kind == "pin" else f"gave way by {self.by}"
        if not self.conflicts:
            return f"{got}; {gave_way}; whether it had to was not found out in time"
        return f"{got}; {gave_way}: {self._conflict()}"

    def _blocks(self) -> str:
        if not self.by:
            return "none of its items is on the page"
        there = f"{self.by} of its items on the page"
        if not self.conflicts:
            return f"{there}; for what it gave way was not found out"
        some = "" if self.cause and self.cause.irreducible else "some of "
        return f"{there}; it gave way to what {some}the harder {', '.join(self.conflicts)} must have"

    def _position_text(self, more: str) -> str:
        return f"stands in slot {self.slot}{more}" if self.kind == "pin" else ""

    def _conflict(self) -> str:
        fewer = self.at_most is not None and self.achieved > self.at_most
        room = "other page" if self.kind == "pin" else "page with fewer" if fewer else "room for more"
        which = "the more important" if self.cause and self.cause.irreducible else "more important controls among"
        return f"beside {which} {', '.join(self.conflicts)} there is no {room} among the candidates"

    def _achieved_text(self) -> str:
        if not self.slots:
            return "nothing may be shown here now, so the page has no slots"
        asked = [
            f"{word} {number}"
            for word, number in (("at least", self.at_least), ("at most", self.at_most))
            if number is not None
        ]
        since = ""
        if self.session:
            counted, shown = self.session
            since = f", after {counted}{' of one' if self.kind == 'cap' else ''} in the session's {shown} slots before"
        where = f" on the page{since}"
        if self.within:
            where = f" in any {self.within} neighbouring slots"
        elif self.first_slots:
            there = f"{self.achieved_first} there, {self.achieved} on the page"
            return f"{' and '.join(asked)} in the first {self.first_slots} slots{since}: {there}"
        return f"{' and '.join(asked) or 'asked of beginnings only'}{where}: {self.achieved}"


def evaluate(
    controls: Sequence[SourcedControl], bounds: PageConstraints, solution: Solution, value: F64, causes: Causes
) -> Iterator[ControlOutcome | None]:
    """For each control in the order of their numbers; None where it is not in force.

    causes  of what gave way (`causes_of`)
    """
    free = np.lexsort((bounds.tie, -value))[: bounds.slots].astype(np.int32)
    shaped = bounds.violated_by(free) > 0
    block_of = {c: b for b, c in enumerate(bounds.block_control.tolist())}
    for c in range(bounds.controls):
        if c in block_of:
            yield _block(controls, bounds, solution, c, block_of[c])
            continue
        if not bounds.active[c]:
            yield None
            continue
        told = _slot_counts(bounds, c, solution.chosen, bool(shaped[c]))
        if len(bounds.session) and bounds.session[c] >= 0:
            told = replace(told, session=(int(bounds.session[c]), bounds.shown))
        yield _with_cause(told, controls, bounds, c, int(solution.relaxed[c]), causes[c]) if c in causes else told


def _slot_counts(bounds: PageConstraints, c: int, chosen: I32, shaped: bool) -> ControlOutcome:
    if (bounds.pin_control == c).any():
        return _pin(bounds, c, chosen, shaped)
    if (bounds.space_control == c).any():
        return _space(bounds, c, chosen, shaped)
    if (bounds.cap_control == c).any():
        return _cap(bounds, c, chosen, shaped)
    return _rows(bounds, c, chosen, shaped)


def _with_cause(
    told: ControlOutcome,
    controls: Sequence[SourcedControl],
    bounds: PageConstraints,
    c: int,
    by: int,
    cause: ConflictSet,
) -> ControlOutcome:
    want = shortfall_of(bounds, c, controls[c].control) if cause.violated_alone_by else None
    named = _control_names(controls, controls[c], cause)
    return replace(told, by=by, cause=cause, shortage=want, shortfall=want.count if want else 0, conflicts=named)


def _control_names(controls: Sequence[SourcedControl], own: SourcedControl, cause: ConflictSet) -> tuple[str, ...]:
    """The other controls of a cause, with their outlet where it is another one."""
    return tuple(
        repr(controls[other].control.id)
        + ("" if controls[other].outlet == own.outlet else f" of {controls[other].outlet}")
        for other in cause.controls
    )


def _block(
    controls: Sequence[SourcedControl], bounds: PageConstraints, solution: Solution, c: int, b: int
) -> ControlOutcome:
    got = block_outcome(controls, bounds, solution, b)
    told = ControlOutcome("block", bounds.slots, got.slack, 0, 0, False, at_most=0, by=got.slack)
    if not got.slack:
        return told
    cause = ConflictSet(0, got.controls, got.narrowed)
    return replace(told, cause=cause, conflicts=_control_names(controls, controls[c], cause))


def _pin(bounds: PageConstraints, c: int, chosen: I32, shaped: bool) -> ControlOutcome:
    p = int(np.flatnonzero(bounds.pin_control == c)[0])
    item, slot = int(bounds.pin_item[p]), int(bounds.pin_slot[p])
    there = item >= 0 and slot < bounds.slots
    stands = there and int(chosen[slot]) == item
    return ControlOutcome("pin", bounds.slots, int(stands), int(there), 0, shaped, slot=slot + 1)


def _space(bounds: PageConstraints, c: int, chosen: I32, shaped: bool) -> ControlOutcome:
    s = int(np.flatnonzero(bounds.space_control == c)[0])
    codes = np.concatenate([bounds.before[s], bounds.code[s, chosen]])
    within = int(bounds.within[s])
    most = max_in_window(codes, within, bounds.slots)
    return ControlOutcome(
        "space", bounds.slots, most, len(bounds), 0, shaped, at_most=int(bounds.at_most[s]), within=within
    )


def _cap(bounds: PageConstraints, c: int, chosen: I32, shaped: bool) -> ControlOutcome:
    """Whether or not it could bind here, a cap tells how many of one value stand on the page."""
    q = int(np.flatnonzero(bounds.cap_control == c)[0])
    there = bounds.cap_code[q, chosen]
    fullest = int(np.bincount(there[there >= 0]).max(initial=0))
    return ControlOutcome("cap", bounds.slots, fullest, len(bounds), 0, shaped, at_most=int(bounds.cap_at_most[q]))


def _rows(bounds: PageConstraints, c: int, chosen: I32, shaped: bool) -> ControlOutcome:
    """A share has one row."""
    rows = np.flatnonzero(bounds.row_control == c)
    if not len(rows) or not bounds.slots:
        return ControlOutcome("quota", bounds.slots, 0, len(bounds), 0, shaped)
    counts = bounds.member[rows][:, chosen].sum(axis=1)
    supply = int(bounds.member[rows[0]].sum())
    least, most = int(bounds.lower[rows[0]].max()), int(bounds.upper[rows[0], -1])
    due = int((bounds.lower[rows[0]] == least).argmax()) + 1
    early = due if least and due < bounds.slots else None
    free = not least and bool((bounds.upper[rows[0]] >= np.arange(1, bounds.slots + 1)).all())
    return ControlOutcome(
        "free" if free and len(rows) == 1 else "quota",
        bounds.slots,
        int(counts.max()),
        supply,
        0,
        shaped,
        at_least=least or None,
        at_most=most if most < bounds.slots else None,
        first_slots=early,
        achieved_first=None if early is None else int(bounds.member[rows[0], chosen[:early]].sum()),
    )
