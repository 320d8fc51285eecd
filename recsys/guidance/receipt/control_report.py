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
from recsys.messages import Message, message

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
    slack: int = 0
    cause: ConflictSet | None = None
    shortage: Shortfall | None = None
    conflicts: tuple[Message, ...] = ()
    achieved_first: int | None = None  # of `achieved`, those in the first `first_slots`
    session: tuple[int, int] | None = (
        None  # counted in so many slots of earlier pages, where that changes what is asked
    )

    @property
    def status(self) -> Status:
        """Kept or not, and whether it could have been kept if no other control were in force."""
        if not self.slack:
            return "active" if self.by_choice else "met"
        return "infeasible" if self.shortage else "relaxed"

    @property
    def kind_of_cause(self) -> Literal["supply", "slots", "itself", "controls", "unknown"]:
        """Why it gave way: what `want` says, else other controls."""
        if self.shortage:
            return self.shortage.kind
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
        if self.status == "active":
            return message("control_active", counted=counted)
        if self.shortage:
            beyond = message("beyond_that", conflict=self._conflict()) if self.conflicts else None
            return message("control_lacks", counted=counted, cause=self.shortage.text, beyond=beyond)
        if not self.conflicts:
            return message("control_relaxed_unexplained", counted=counted, by=self.slack)
        return message("control_relaxed", counted=counted, by=self.slack, conflict=self._conflict())

    def _pins(self) -> Message:
        if self.status == "met":
            return message("pin_met", slot=self.slot)
        if self.status == "active":
            return message("pin_active", slot=self.slot)
        if self.shortage:
            return message("pin_infeasible", slot=self.slot, cause=self.shortage.text)
        if not self.conflicts:
            return message("pin_relaxed_unexplained", slot=self.slot)
        return message("pin_relaxed", slot=self.slot, conflict=self._conflict())

    def _blocks(self) -> Message:
        if not self.slack:
            return message("block_met")
        if not self.conflicts:
            return message("block_relaxed_unexplained", items=self.slack)
        if self.cause and self.cause.irreducible:
            return message("block_relaxed", items=self.slack, controls=self.conflicts)
        return message("block_relaxed_for_some", items=self.slack, controls=self.conflicts)

    def _conflict(self) -> Message:
        if self.cause and self.cause.irreducible:
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
    return replace(told, slack=by, cause=cause, shortage=want, shortfall=want.count if want else 0, conflicts=named)


def _control_names(controls: Sequence[SourcedControl], own: SourcedControl, cause: ConflictSet) -> tuple[Message, ...]:
    """The other controls of a cause, with their outlet where it is another one."""
    return tuple(controls[other].named(own.outlet) for other in cause.controls)


def _block(
    controls: Sequence[SourcedControl], bounds: PageConstraints, solution: Solution, c: int, b: int
) -> ControlOutcome:
    got = block_outcome(controls, bounds, solution, b)
    told = ControlOutcome("block", bounds.slots, got.slack, 0, 0, False, at_most=0, slack=got.slack)
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
        "spacing", bounds.slots, most, len(bounds), 0, shaped, at_most=int(bounds.at_most[s]), within=within
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
