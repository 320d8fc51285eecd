"""What one control asked of a page and what it got, read off the bounds, in editors' words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from recsys.guidance.blocks import given
from recsys.guidance.bounds import Bounds, Solution, most_in_a_row
from recsys.guidance.causes import Cause, Causes
from recsys.guidance.inherit import Origin
from recsys.guidance.want import Want, want_of
from recsys.messages import Message, message
from recsys.types import F64, I32

Status = Literal["met", "binding", "relaxed", "impossible"]


@dataclass(frozen=True)
class Told:
    """Of one control in force. `supply`: candidates that could have served it; `missing`: how many it lacked.

    cause, conflicts  why it gave way, and the more important controls that left no room, in words
    """

    kind: str  # "share" | "cap" | "space" | "pin" | "block" | "free": nothing is asked of this page alone
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
    by: int = 0
    cause: Cause | None = None
    want: Want | None = None
    conflicts: tuple[Message, ...] = ()
    achieved_first: int | None = None  # of `achieved`, those in the first `first_slots`
    session: tuple[int, int] | None = (
        None  # counted in so many slots of earlier pages, where that changes what is asked
    )

    @property
    def status(self) -> Status:
        """Kept or not, and whether it could have been kept if no other control were in force."""
        if not self.by:
            return "binding" if self.shaped else "met"
        return "impossible" if self.want else "relaxed"

    @property
    def kind_of_cause(self) -> Literal["supply", "slots", "itself", "controls", "unknown"]:
        """Why it gave way: what `want` says, else other controls."""
        if self.want:
            return self.want.kind
        return "controls" if self.conflicts else "unknown"

    def reason(self) -> Message:
        """Why it stands as it does, in one sentence for editors."""
        if self.kind == "free":
            return message("nothing_required", achieved=self.achieved)
        if self.kind == "block":
            return self._blocks()
        if self.kind == "pin":
            return self._pins()
        counted = self._counted()
        if self.status == "met":
            return message("control_met", counted=counted)
        if self.status == "binding":
            return message("control_active", counted=counted)
        if self.want:
            beyond = message("beyond_that", conflict=self._conflict()) if self.conflicts else None
            return message("control_lacks", counted=counted, cause=self.want.said, beyond=beyond)
        if not self.conflicts:
            return message("control_relaxed_unexplained", counted=counted, by=self.by)
        return message("control_relaxed", counted=counted, by=self.by, conflict=self._conflict())

    def _pins(self) -> Message:
        if self.status == "met":
            return message("pin_met", slot=self.slot)
        if self.status == "binding":
            return message("pin_active", slot=self.slot)
        if self.want:
            return message("pin_infeasible", slot=self.slot, cause=self.want.said)
        if not self.conflicts:
            return message("pin_relaxed_unexplained", slot=self.slot)
        return message("pin_relaxed", slot=self.slot, conflict=self._conflict())

    def _blocks(self) -> Message:
        if not self.by:
            return message("block_met")
        if not self.conflicts:
            return message("block_relaxed_unexplained", items=self.by)
        if self.cause and self.cause.narrowed:
            return message("block_relaxed", items=self.by, controls=self.conflicts)
        return message("block_relaxed_for_some", items=self.by, controls=self.conflicts)

    def _conflict(self) -> Message:
        if self.cause and self.cause.narrowed:
            controls = message("more_important_controls", controls=self.conflicts)
        else:
            controls = message("some_more_important_controls", controls=self.conflicts)
        if self.kind == "pin":
            return message("no_other_page", controls=controls)
        if self.at_most is not None and self.achieved > self.at_most:
            return message("no_page_with_fewer", controls=controls)
        return message("no_room_for_more", controls=controls)

    def _counted(self) -> Message:
        if not self.slots:
            return message("page_empty")
        limits, session = self._limits(), self._session()
        if self.within:
            return message("counted_nearby", limits=limits, within=self.within, achieved=self.achieved)
        if self.first_slots:
            there = {"first": self.first_slots, "early": self.achieved_first, "achieved": self.achieved}
            return message("counted_first", limits=limits, session=session, **there)
        if limits is None:
            return message("counted_prefixes_only", session=session, achieved=self.achieved)
        return message("counted_on_page", limits=limits, session=session, achieved=self.achieved)

    def _limits(self) -> Message | None:
        if self.at_least is not None and self.at_most is not None:
            return message("at_least_and_at_most", minimum=self.at_least, maximum=self.at_most)
        if self.at_least is not None:
            return message("at_least", minimum=self.at_least)
        return None if self.at_most is None else message("at_most", maximum=self.at_most)

    def _session(self) -> Message | None:
        if not self.session:
            return None
        counted, shown = self.session
        if self.kind == "cap":
            return message("after_session_of_value", counted=counted, shown=shown)
        return message("after_session", counted=counted, shown=shown)


def tell(
    controls: Sequence[Origin], bounds: Bounds, solution: Solution, value: F64, causes: Causes
) -> Iterator[Told | None]:
    """For each control in the order of their numbers; None where it is not in force.

    causes  of what gave way (`causes_of`)
    """
    free = np.lexsort((bounds.tie, -value))[: bounds.slots].astype(np.int32)
    shaped = bounds.broken(free) > 0
    block_of = {c: b for b, c in enumerate(bounds.block_control.tolist())}
    for c in range(bounds.controls):
        if c in block_of:
            yield _block(controls, bounds, solution, c, block_of[c])
            continue
        if not bounds.active[c]:
            yield None
            continue
        told = _counted(bounds, c, solution.chosen, bool(shaped[c]))
        if len(bounds.session) and bounds.session[c] >= 0:
            told = replace(told, session=(int(bounds.session[c]), bounds.shown))
        yield _caused(told, controls, bounds, c, int(solution.relaxed[c]), causes[c]) if c in causes else told


def _counted(bounds: Bounds, c: int, chosen: I32, shaped: bool) -> Told:
    if (bounds.pin_control == c).any():
        return _pin(bounds, c, chosen, shaped)
    if (bounds.space_control == c).any():
        return _space(bounds, c, chosen, shaped)
    if (bounds.cap_control == c).any():
        return _cap(bounds, c, chosen, shaped)
    return _rows(bounds, c, chosen, shaped)


def _caused(told: Told, controls: Sequence[Origin], bounds: Bounds, c: int, by: int, cause: Cause) -> Told:
    want = want_of(bounds, c, controls[c].control) if cause.alone else None
    named = _named(controls, controls[c], cause)
    return replace(told, by=by, cause=cause, want=want, missing=want.missing if want else 0, conflicts=named)


def _named(controls: Sequence[Origin], own: Origin, cause: Cause) -> tuple[Message, ...]:
    """The other controls of a cause, with their outlet where it is another one."""
    return tuple(controls[other].named(own.outlet) for other in cause.controls)


def _block(controls: Sequence[Origin], bounds: Bounds, solution: Solution, c: int, b: int) -> Told:
    got = given(controls, bounds, solution, b)
    told = Told("block", bounds.slots, got.by, 0, 0, False, at_most=0, by=got.by)
    if not got.by:
        return told
    cause = Cause(0, got.controls, got.narrowed)
    return replace(told, cause=cause, conflicts=_named(controls, controls[c], cause))


def _pin(bounds: Bounds, c: int, chosen: I32, shaped: bool) -> Told:
    p = int(np.flatnonzero(bounds.pin_control == c)[0])
    item, slot = int(bounds.pin_item[p]), int(bounds.pin_slot[p])
    there = item >= 0 and slot < bounds.slots
    stands = there and int(chosen[slot]) == item
    return Told("pin", bounds.slots, int(stands), int(there), 0, shaped, slot=slot + 1)


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
    due = int((bounds.lower[rows[0]] == least).argmax()) + 1
    early = due if least and due < bounds.slots else None
    free = not least and bool((bounds.upper[rows[0]] >= np.arange(1, bounds.slots + 1)).all())
    return Told(
        "free" if free and len(rows) == 1 else "share",
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
