"""The outcome of each control on a page: what it requires, what it achieved, and the reason in words for editors."""

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
    """The outcome of one active control.

    supply     number of candidates that count towards the control
    shortfall  number of candidates it lacks
    cause      conflict set that explains why it was relaxed
    shortage   what is missing even without other controls
    conflicts  names of the more important controls that leave no room, for editors
    """

    kind: str  # "quota" | "cap" | "spacing" | "pin" | "block" | "free": nothing is required of this page
    slots: int  # of the page
    achieved: int
    supply: int
    shortfall: int
    shaped_page: bool  # the best page without controls violates it
    at_least: int | None = None
    at_most: int | None = None
    within: int | None = None
    slot: int | None = None
    first_slots: int | None = None  # the full minimum is due within so many slots
    slack: int = 0
    cause: ConflictSet | None = None
    shortage: Shortfall | None = None
    conflicts: tuple[Message, ...] = ()
    achieved_first: int | None = None  # members among the first `first_slots`
    # (members, slots) of the session's earlier pages, if they change what is required of this page
    session: tuple[int, int] | None = None

    @property
    def status(self) -> Status:
        """Whether the control is met, and if not, whether it could be met as the only control."""
        if not self.slack:
            return "active" if self.shaped_page else "met"
        return "infeasible" if self.shortage else "relaxed"

    @property
    def kind_of_cause(self) -> Literal["supply", "slots", "itself", "controls", "unknown"]:
        """Why the control was relaxed: a shortage, or a conflict with other controls."""
        if self.shortage:
            return self.shortage.kind
        return "controls" if self.conflicts else "unknown"

    def reason(self) -> Message:
        """Return one sentence for editors that explains the status."""
        if self.kind == "free":
            return message("nothing_required", achieved=self.achieved)
        if self.kind == "block":
            return self._block_reason()
        if self.kind == "pin":
            return self._pin_reason()
        counted = self._count_text()
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

    def _pin_reason(self) -> Message:
        if self.status == "met":
            return message("pin_met", slot=self.slot)
        if self.status == "active":
            return message("pin_active", slot=self.slot)
        if self.shortage:
            return message("pin_infeasible", slot=self.slot, cause=self.shortage.text)
        if not self.conflicts:
            return message("pin_relaxed_unexplained", slot=self.slot)
        return message("pin_relaxed", slot=self.slot, conflict=self._conflict())

    def _block_reason(self) -> Message:
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

    def _count_text(self) -> Message:
        if not self.slots:
            return message("page_empty")
        limits, session = self._limits(), self._session()
        if self.within:
            return message("counted_nearby", limits=limits, within=self.within, achieved=self.achieved)
        if self.first_slots:
            counts = {"first": self.first_slots, "early": self.achieved_first, "achieved": self.achieved}
            return message("counted_first", limits=limits, session=session, **counts)
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
    controls: Sequence[SourcedControl], constraints: PageConstraints, solution: Solution, value: F64, causes: Causes
) -> Iterator[ControlOutcome | None]:
    """Yield the outcome of every control in policy order; None for a control that is not active.

    causes  control index -> cause, for the relaxed controls
    """
    unguided = np.lexsort((constraints.tie, -value))[: constraints.slots].astype(np.int32)
    violated = constraints.violated_by(unguided) > 0
    block_of = {c: b for b, c in enumerate(constraints.block_control.tolist())}
    for c in range(constraints.controls):
        if c in block_of:
            yield _block(controls, constraints, solution, c, block_of[c])
            continue
        if not constraints.active[c]:
            yield None
            continue
        outcome = _slot_counts(constraints, c, solution.chosen, bool(violated[c]))
        if len(constraints.session) and constraints.session[c] >= 0:
            outcome = replace(outcome, session=(int(constraints.session[c]), constraints.shown))
        yield (
            _with_cause(outcome, controls, constraints, c, int(solution.relaxed[c]), causes[c])
            if c in causes
            else outcome
        )


def _slot_counts(constraints: PageConstraints, c: int, chosen: I32, shaped: bool) -> ControlOutcome:
    if (constraints.pin_control == c).any():
        return _pin(constraints, c, chosen, shaped)
    if (constraints.spacing_control == c).any():
        return _spacing(constraints, c, chosen, shaped)
    if (constraints.cap_control == c).any():
        return _cap(constraints, c, chosen, shaped)
    return _quota(constraints, c, chosen, shaped)


def _with_cause(
    outcome: ControlOutcome,
    controls: Sequence[SourcedControl],
    constraints: PageConstraints,
    c: int,
    slack: int,
    cause: ConflictSet,
) -> ControlOutcome:
    shortage = shortfall_of(constraints, c, controls[c].control) if cause.violated_alone_by else None
    names = _control_names(controls, controls[c], cause)
    return replace(
        outcome,
        slack=slack,
        cause=cause,
        shortage=shortage,
        shortfall=shortage.count if shortage else 0,
        conflicts=names,
    )


def _control_names(controls: Sequence[SourcedControl], own: SourcedControl, cause: ConflictSet) -> tuple[Message, ...]:
    """Return the names of the controls in a cause, with the outlet if it differs from that of `own`."""
    return tuple(controls[c].named(own.outlet) for c in cause.controls)


def _block(
    controls: Sequence[SourcedControl], constraints: PageConstraints, solution: Solution, c: int, b: int
) -> ControlOutcome:
    result = block_outcome(controls, constraints, solution, b)
    outcome = ControlOutcome("block", constraints.slots, result.slack, 0, 0, False, at_most=0, slack=result.slack)
    if not result.slack:
        return outcome
    cause = ConflictSet(0, result.controls, result.irreducible)
    return replace(outcome, cause=cause, conflicts=_control_names(controls, controls[c], cause))


def _pin(constraints: PageConstraints, c: int, chosen: I32, shaped: bool) -> ControlOutcome:
    p = int(np.flatnonzero(constraints.pin_control == c)[0])
    item, slot = int(constraints.pin_item[p]), int(constraints.pin_slot[p])
    available = item >= 0 and slot < constraints.slots
    achieved = available and int(chosen[slot]) == item
    return ControlOutcome("pin", constraints.slots, int(achieved), int(available), 0, shaped, slot=slot + 1)


def _spacing(constraints: PageConstraints, c: int, chosen: I32, shaped: bool) -> ControlOutcome:
    s = int(np.flatnonzero(constraints.spacing_control == c)[0])
    codes = np.concatenate([constraints.before[s], constraints.code[s, chosen]])
    within = int(constraints.within[s])
    largest = max_in_window(codes, within, constraints.slots)
    return ControlOutcome(
        "spacing",
        constraints.slots,
        largest,
        len(constraints),
        0,
        shaped,
        at_most=int(constraints.at_most[s]),
        within=within,
    )


def _cap(constraints: PageConstraints, c: int, chosen: I32, shaped: bool) -> ControlOutcome:
    """Return the outcome of a cap, with the count of its most frequent value even if the cap cannot be exceeded."""
    q = int(np.flatnonzero(constraints.cap_control == c)[0])
    codes = constraints.cap_code[q, chosen]
    fullest = int(np.bincount(codes[codes >= 0]).max(initial=0))
    return ControlOutcome(
        "cap", constraints.slots, fullest, len(constraints), 0, shaped, at_most=int(constraints.cap_at_most[q])
    )


def _quota(constraints: PageConstraints, c: int, chosen: I32, shaped: bool) -> ControlOutcome:
    """Return the outcome of a quota; it is described by its first row."""
    rows = np.flatnonzero(constraints.row_control == c)
    if not len(rows) or not constraints.slots:
        return ControlOutcome("quota", constraints.slots, 0, len(constraints), 0, shaped)
    counts = constraints.member[rows][:, chosen].sum(axis=1)
    supply = int(constraints.member[rows[0]].sum())
    minimum, maximum = int(constraints.lower[rows[0]].max()), int(constraints.upper[rows[0], -1])
    deadline = int((constraints.lower[rows[0]] == minimum).argmax()) + 1
    first_slots = deadline if minimum and deadline < constraints.slots else None
    free = not minimum and bool((constraints.upper[rows[0]] >= np.arange(1, constraints.slots + 1)).all())
    return ControlOutcome(
        "free" if free and len(rows) == 1 else "quota",
        constraints.slots,
        int(counts.max()),
        supply,
        0,
        shaped,
        at_least=minimum or None,
        at_most=maximum if maximum < constraints.slots else None,
        first_slots=first_slots,
        achieved_first=None if first_slots is None else int(constraints.member[rows[0], chosen[:first_slots]].sum()),
    )
