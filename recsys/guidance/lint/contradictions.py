"""A check for controls that contradict each other: minimums beyond the page or above maximums, and colliding pins.

These contradictions exist for any inventory; `dry_run` reports what the current inventory cannot supply. Findings refer
to controls of the last policy of the line. Contradictions between controls of parents or profiles are not reported,
because editors of this policy cannot resolve them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from recsys.distribution.layouts import default_slots
from recsys.domain.catalog import Catalog
from recsys.domain.errors import Finding
from recsys.domain.placement import Screen, Surface
from recsys.domain.regions import within
from recsys.domain.types import Bool
from recsys.guidance.compilation.compile import CompiledPolicy, attribute, compile_policy
from recsys.guidance.policy.controls import Block, Cap, Control, Pin, Quota, Spacing
from recsys.guidance.policy.inheritance import SourcedControl
from recsys.guidance.policy.policy import Policy
from recsys.guidance.policy.quotas import max_counts, min_counts
from recsys.messages import Message, message


def contradictions(
    line: Sequence[Policy], catalog: Catalog, stopped: Callable[[], bool] = lambda: False
) -> Iterator[Finding]:
    """Yield all contradictions that involve a control of the last policy, until `stopped` returns True."""
    view = _PolicyView.of(line, catalog)
    for origin in view.controls:
        if stopped():
            return
        if view.own(origin):
            yield from _contradictions_of(view, origin)


@dataclass(frozen=True)
class _PolicyView:
    """The effective controls, their items, and the fields of the last policy that define its own controls."""

    policy: CompiledPolicy
    outlet: str
    index_of: Mapping[str, int]
    _members: dict[str, Bool] = field(default_factory=dict)  # control id -> its items

    @classmethod
    def of(cls, line: Sequence[Policy], catalog: Catalog) -> _PolicyView:
        index_of = {control.id: index for index, control in enumerate(line[-1].controls)}
        return cls(compile_policy(line, catalog), line[-1].outlet, index_of)

    @property
    def controls(self) -> tuple[SourcedControl, ...]:
        return self.policy.controls

    def own(self, origin: SourcedControl) -> bool:
        return origin.outlet == self.outlet and origin.control.id in self.index_of

    def field(self, origin: SourcedControl, name: str) -> str:
        return f"controls[{self.index_of[origin.control.id]}].{name}"

    def named(self, origin: SourcedControl) -> Message:
        return origin.named(self.outlet)

    def member(self, control: Quota | Block) -> Bool:
        if control.id not in self._members:
            self._members[control.id] = self.policy.member(control.where, self.outlet)
        return self._members[control.id]

    def overlapping(self, origin: SourcedControl) -> Iterator[SourcedControl]:
        """Yield the controls that may be in force on the same page as this control."""
        return (o for o in self.controls if o is not origin and overlap(o.control, origin.control))


def _contradictions_of(view: _PolicyView, origin: SourcedControl) -> Iterator[Finding]:
    control = origin.control
    if isinstance(control, Quota) and control.at_least is not None:
        yield from _above_page(view, origin, control)
        yield from _above_caps(view, origin, control)
    if isinstance(control, Quota) and control.at_most is not None:
        yield from _below_minimums(view, origin, control)
    if isinstance(control, Pin):
        yield from _pin(view, origin, control)


def _above_page(view: _PolicyView, origin: SourcedControl, quota: Quota) -> Iterator[Finding]:
    """Report disjoint minimums whose sum exceeds the page, at the least important of the policy's own controls."""
    group, union = [origin], view.member(quota).copy()
    if not union.any():
        return
    quotas = [o for o in view.overlapping(origin) if isinstance(o.control, Quota) and o.control.at_least]
    for quota_origin in sorted(quotas, key=lambda o: -_requested_count(o.control)):
        assert isinstance(quota_origin.control, Quota)
        member = view.member(quota_origin.control)
        if member.any() and not (member & union).any() and all(overlap(quota_origin.control, o.control) for o in group):
            group.append(quota_origin)
            union |= member
    own_origins = [o for o in group if view.own(o)]
    if max(own_origins, key=lambda o: o.importance) is not origin:
        return
    if len(group) == 1:
        return
    for page, slots in _pages(*(o.control for o in group)):
        required = {o.control.id: int(min_counts(o.control, slots)[-1]) for o in group if isinstance(o.control, Quota)}
        if sum(required.values()) > slots:
            text = message(
                "minimums_above_page",
                total=sum(required.values()),
                slots=slots,
                page=page,
                own=required[quota.id],
                others=[
                    message("count_of_control", count=required[o.control.id], control=view.named(o)) for o in group[1:]
                ],
            )
            yield Finding(view.field(origin, "at_least"), text)
            return


def _above_caps(view: _PolicyView, origin: SourcedControl, quota: Quota) -> Iterator[Finding]:
    """Report a minimum of items of which another control allows fewer."""
    member = view.member(quota)
    if not member.any():
        return
    for limiting in view.overlapping(origin):
        if isinstance(limiting.control, Block) and not (member & ~view.member(limiting.control)).any():
            if not origin.outranks(limiting):  # else the block is relaxed: see `blocked_floors`
                yield Finding(view.field(origin, "where"), message("minimum_blocked", control=view.named(limiting)))
            continue
        if getattr(limiting.control, "at_most", None) is None:
            continue
        for page, slots in _pages(quota, limiting.control):
            allowed = _allowed(view, limiting.control, member, slots)
            required = min_counts(quota, slots)
            short = np.flatnonzero((required > allowed) & (allowed < np.arange(1, slots + 1)))
            if len(short):
                k = int(short[-1])
                limits = {"minimum": int(required[k]), "maximum": int(allowed[k]), "slots": k + 1, "page": page}
                text = message("minimum_above_other_cap", control=view.named(limiting), **limits)
                yield Finding(view.field(origin, "at_least"), text)
                break


def _below_minimums(view: _PolicyView, origin: SourcedControl, cap: Quota) -> Iterator[Finding]:
    """Report a maximum below the minimum of a parent or profile; for own minimums, `_above_caps` reports it."""
    for requiring in view.overlapping(origin):
        requiring_quota = requiring.control
        if view.own(requiring) or not isinstance(requiring_quota, Quota) or requiring_quota.at_least is None:
            continue
        member = view.member(requiring_quota)
        for page, slots in _pages(requiring_quota, cap):
            required, allowed = min_counts(requiring_quota, slots), _allowed(view, cap, member, slots)
            short = np.flatnonzero((required > allowed) & (allowed < np.arange(1, slots + 1)))
            if member.any() and len(short):
                k = int(short[-1])
                limits = {"minimum": int(required[k]), "maximum": int(allowed[k]), "slots": k + 1, "page": page}
                text = message("cap_below_other_minimum", control=view.named(requiring), **limits)
                yield Finding(view.field(origin, "at_most"), text)
                break


def _allowed(view: _PolicyView, control: Control, member: Bool, slots: int) -> np.ndarray:
    """Return the [slots] maximum of `member` items in the first k slots under a control; k if it sets no maximum."""
    limits = np.arange(1, slots + 1)
    if isinstance(control, Quota) and control.at_most is not None:
        inside = view.member(control)
        return max_counts(control, slots) if not (member & ~inside).any() else limits
    if isinstance(control, Cap):
        codes = attribute(view.policy.catalog, control.attribute)[member]
        if len(codes) and codes.min() >= 0:
            per_value = control.at_most if isinstance(control.at_most, int) else int(control.at_most * slots + 1e-9)
            return np.minimum(limits, int(np.minimum(np.bincount(codes), per_value).sum()))
    return limits


def _pin(view: _PolicyView, origin: SourcedControl, pin: Pin) -> Iterator[Finding]:
    """Report a pin whose slot is taken, whose item has another pin, or that a block, cap or spacing forbids."""
    catalog = view.policy.catalog
    row = catalog.row_of.get(pin.item)
    for conflicting in view.overlapping(origin):
        control = conflicting.control
        if isinstance(control, Pin) and (
            not view.own(conflicting) or view.index_of[control.id] < view.index_of[pin.id]
        ):
            if control.slot == pin.slot:
                text = message("pin_slot_taken", slot=pin.slot, control=_pinned(conflicting))
                yield Finding(view.field(origin, "slot"), text)
            elif control.item == pin.item:
                repeated = message("pin_item_elsewhere", item=pin.item, control=_pinned(conflicting), slot=control.slot)
                yield Finding(view.field(origin, "item"), repeated)
        elif row is not None and isinstance(control, Block) and view.member(control)[row]:
            if not origin.outranks(conflicting):
                blocked = message("pin_item_blocked", item=pin.item, control=view.named(conflicting))
                yield Finding(view.field(origin, "item"), blocked)
        elif row is not None and isinstance(control, Quota | Cap | Spacing):
            yield from _pin_breaks(view, origin, pin, conflicting)


def _pinned(origin: SourcedControl) -> Message:
    return message("control_of_outlet", id=origin.control.id, outlet=origin.outlet)


def _pin_breaks(view: _PolicyView, origin: SourcedControl, pin: Pin, limiting: SourcedControl) -> Iterator[Finding]:
    """Report a pin that, with the pins in earlier slots, exceeds a cap or spacing."""
    catalog, control = view.policy.catalog, limiting.control
    near_pins = [
        (o.control, catalog.row_of[o.control.item])
        for o in [origin, *view.overlapping(origin)]
        if isinstance(o.control, Pin) and o.control.slot <= pin.slot and o.control.item in catalog.row_of
    ]
    row = catalog.row_of[pin.item]
    for page, slots in _pages(pin, control):
        if pin.slot > slots:
            continue
        pins = [(p.slot, r) for p, r in near_pins if (page, slots) in _pages(p, pin, control)]
        if isinstance(control, Quota):
            member = view.member(control)
            count = sum(bool(member[r]) for _, r in pins)
            allowed = int(max_counts(control, slots)[pin.slot - 1]) if control.at_most is not None else slots
            broken = bool(member[row]) and count > allowed
        elif isinstance(control, Cap | Spacing):
            codes = attribute(catalog, control.attribute)
            near = pin.slot - control.within if isinstance(control, Spacing) else 0
            count = sum(int(codes[r] == codes[row]) for slot, r in pins if slot > near)
            maximum = control.at_most
            allowed = maximum if isinstance(maximum, int) else int(maximum * slots + 1e-9)
            broken = bool(codes[row] >= 0) and count > allowed
        else:
            return
        if broken:
            text = message(
                "pin_breaks_cap", count=count, slots=pin.slot, page=page, control=view.named(limiting), maximum=allowed
            )
            yield Finding(view.field(origin, "slot"), text)
            return


def overlap(a: Control, b: Control) -> bool:
    """Return whether two controls can be in force on the same page, judged by scopes and schedules."""
    for a_values, b_values in ((a.on.screens, b.on.screens), (a.on.surfaces, b.on.surfaces)):
        if a_values and b_values and not set(a_values) & set(b_values):
            return False
    for a_roots, b_roots in ((a.on.regions, b.on.regions), (a.on.outlets, b.on.outlets)):
        if a_roots and b_roots and not any(within(x, y) or within(y, x) for x in a_roots for y in b_roots):
            return False
    for first, second in ((a.active, b.active), (b.active, a.active)):
        if first.until and second.since and first.until <= second.since:
            return False
    return not (a.active.days and b.active.days and not set(a.active.days) & set(b.active.days))


def unreachable_slots(policy: Policy) -> dict[int, Finding]:
    """Return a finding for each minimum that requires more items than most of its pages have slots, by control index.

    All other findings about such a minimum would be consequences of this mistake.
    """
    findings = {}
    for index, control in enumerate(policy.controls):
        if not isinstance(control, Quota) or not isinstance(control.at_least, int):
            continue
        pages, minimum = _pages(control), control.at_least
        too_small = sorted(
            (page_slots for page_slots in pages if page_slots[1] < minimum), key=lambda page_slots: -page_slots[1]
        )
        if 2 * len(too_small) > len(pages):
            page, slots = next(
                (page_slots for page_slots in too_small if page_slots[0].params["screen"] == Screen.MOBILE),
                too_small[0],
            )
            text = message(
                "minimum_above_page",
                items=minimum,
                slots=slots,
                page=page,
                others=message("minimum_above_other_pages", pages=len(too_small) - 1) if len(too_small) > 1 else None,
                suggestion=message("did_you_mean", word=f"{minimum}%") if 5 <= minimum <= 100 else None,
            )
            findings[index] = Finding(f"controls[{index}].at_least", text)
    return findings


def _pages(*controls: Control) -> list[tuple[Message, int]]:
    """Return name and slots of the pages on which all controls may be in force."""
    surfaces = {surface for control in controls for surface in control.on.surfaces} or {Surface.HOME}
    return [
        (_page_name(screen, surface), default_slots(screen, surface))
        for screen in Screen
        for surface in sorted(surfaces)
        if all(not c.on.screens or screen in c.on.screens for c in controls)
        and all(not c.on.surfaces or surface in c.on.surfaces for c in controls)
    ]


@cache
def _page_name(screen: Screen, surface: Surface) -> Message:
    return message("page", screen=screen, surface=surface)


def _requested_count(control: Control) -> float:
    minimum = getattr(control, "at_least", None) or 0
    return float(minimum) if isinstance(minimum, float) else minimum / 20.0
