"""Controls that contradict each other: floors beyond the page, floors above caps, pins that collide or break caps.

Only what is wrong for any inventory of these kinds of items is told here; what the present inventory cannot supply is
told by `rehearsal`. Findings stand at the controls of the last policy of the line; where both sides are a parent's or a
profile's, its editors can do nothing about them here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

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


def contradictions(line: Sequence[Policy], catalog: Catalog) -> Iterator[Finding]:
    """All contradictions in which a control of the last policy has a part."""
    told = _PolicyMasks.of(line, catalog)
    for origin in told.controls:
        if told.own(origin):
            yield from _of_one(told, origin)


@dataclass(frozen=True)
class _PolicyMasks:
    """The effective controls, and where the last policy said its own."""

    policy: CompiledPolicy
    outlet: str
    index_of: Mapping[str, int]

    @classmethod
    def of(cls, line: Sequence[Policy], catalog: Catalog) -> _PolicyMasks:
        places = {control.id: place for place, control in enumerate(line[-1].controls)}
        return cls(compile_policy(line, catalog), line[-1].outlet, places)

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
        return self.policy.member(control.where, self.outlet)

    def others(self, origin: SourcedControl) -> Iterator[SourcedControl]:
        """The other controls that may be in force on a page with this one."""
        return (o for o in self.controls if o is not origin and overlap(o.control, origin.control))


def _of_one(said: _PolicyMasks, origin: SourcedControl) -> Iterator[Finding]:
    control = origin.control
    if isinstance(control, Quota) and control.at_least is not None:
        yield from _combined(said, origin, control)
        yield from _above_caps(said, origin, control)
    if isinstance(control, Quota) and control.at_most is not None:
        yield from _below_floors(said, origin, control)
    if isinstance(control, Pin):
        yield from _pin(said, origin, control)


def _combined(said: _PolicyMasks, origin: SourcedControl, floor: Quota) -> Iterator[Finding]:
    """Floors that no item serves two of, and that together ask for more than a page. Told at the least important."""
    group, union = [origin], said.member(floor).copy()
    if not union.any():
        return
    others = [o for o in said.others(origin) if isinstance(o.control, Quota) and o.control.at_least]
    for other in sorted(others, key=lambda o: -_requested_count(o.control)):
        assert isinstance(other.control, Quota)
        member = said.member(other.control)
        if member.any() and not (member & union).any() and all(overlap(other.control, o.control) for o in group):
            group.append(other)
            union |= member
    ours = [o for o in group if said.own(o)]
    if max(ours, key=said.controls.index) is not origin:
        return
    if len(group) == 1:
        return
    for page, slots in _pages(*(o.control for o in group)):
        asked = {o.control.id: int(min_counts(o.control, slots)[-1]) for o in group if isinstance(o.control, Quota)}
        if sum(asked.values()) > slots:
            together = message(
                "floors_above_page",
                total=sum(asked.values()),
                slots=slots,
                page=page,
                own=asked[floor.id],
                others=[
                    message("count_of_control", count=asked[o.control.id], control=said.named(o)) for o in group[1:]
                ],
            )
            yield Finding(said.field(origin, "at_least"), together)
            return


def _above_caps(said: _PolicyMasks, origin: SourcedControl, floor: Quota) -> Iterator[Finding]:
    """A floor on items that another control allows fewer of."""
    member = said.member(floor)
    if not member.any():
        return
    for other in said.others(origin):
        if isinstance(other.control, Block) and not (member & ~said.member(other.control)).any():
            if not origin.outranks(other):  # else the block gives way: `defeats`
                yield Finding(said.field(origin, "where"), message("floor_blocked", control=said.named(other)))
            continue
        for page, slots in _pages(floor, other.control):
            allowed = _allowed(said, other.control, member, slots)
            asked = min_counts(floor, slots)
            short = np.flatnonzero((asked > allowed) & (allowed < np.arange(1, slots + 1)))
            if len(short):
                k = int(short[-1])
                limits = {"minimum": int(asked[k]), "maximum": int(allowed[k]), "slots": k + 1, "page": page}
                above = message("floor_above_other_cap", control=said.named(other), **limits)
                yield Finding(said.field(origin, "at_least"), above)
                break


def _below_floors(said: _PolicyMasks, origin: SourcedControl, cap: Quota) -> Iterator[Finding]:
    """A cap on items that a parent's or profile's floor asks more of; an own floor has told it already."""
    for other in said.others(origin):
        floor = other.control
        if said.own(other) or not isinstance(floor, Quota) or floor.at_least is None:
            continue
        member = said.member(floor)
        for page, slots in _pages(floor, cap):
            asked, allowed = min_counts(floor, slots), _allowed(said, cap, member, slots)
            short = np.flatnonzero((asked > allowed) & (allowed < np.arange(1, slots + 1)))
            if member.any() and len(short):
                k = int(short[-1])
                limits = {"minimum": int(asked[k]), "maximum": int(allowed[k]), "slots": k + 1, "page": page}
                below = message("cap_below_other_floor", control=said.named(other), **limits)
                yield Finding(said.field(origin, "at_most"), below)
                break


def _allowed(said: _PolicyMasks, control: Control, member: Bool, slots: int) -> np.ndarray:
    """[slots] how many of `member` another control allows in the first k slots, whatever else is on the page; k where
    it allows any number."""
    most = np.arange(1, slots + 1)
    if isinstance(control, Quota) and control.at_most is not None:
        inside = said.member(control)
        return max_counts(control, slots) if not (member & ~inside).any() else most
    if isinstance(control, Cap):
        codes = attribute(said.policy.catalog, control.attribute)[member]
        if len(codes) and codes.min() >= 0:
            one = control.at_most if isinstance(control.at_most, int) else int(control.at_most * slots + 1e-9)
            return np.minimum(most, int(np.minimum(np.bincount(codes), one).sum()))
    return most


def _pin(said: _PolicyMasks, origin: SourcedControl, pin: Pin) -> Iterator[Finding]:
    """A pin in a slot that is taken, of an item that is placed elsewhere, or that blocks, caps or spacings forbid."""
    catalog = said.policy.catalog
    row = catalog.row_of.get(pin.item)
    for other in said.others(origin):
        control = other.control
        if isinstance(control, Pin) and (not said.own(other) or said.index_of[control.id] < said.index_of[pin.id]):
            if control.slot == pin.slot:
                taken = message("pin_slot_taken", slot=pin.slot, control=_pinned(other))
                yield Finding(said.field(origin, "slot"), taken)
            elif control.item == pin.item:
                elsewhere = message("pin_item_elsewhere", item=pin.item, control=_pinned(other), slot=control.slot)
                yield Finding(said.field(origin, "item"), elsewhere)
        elif row is not None and isinstance(control, Block) and said.member(control)[row]:
            if not origin.outranks(other):
                blocked = message("pin_item_blocked", item=pin.item, control=said.named(other))
                yield Finding(said.field(origin, "item"), blocked)
        elif row is not None and isinstance(control, Quota | Cap | Spacing):
            yield from _pin_breaks(said, origin, pin, other)


def _pinned(other: SourcedControl) -> Message:
    return message("control_of_outlet", id=other.control.id, outlet=other.outlet)


def _pin_breaks(said: _PolicyMasks, origin: SourcedControl, pin: Pin, other: SourcedControl) -> Iterator[Finding]:
    """This pin, with the pins before it, puts more into the first slots than a cap or spacing allows."""
    catalog, control = said.policy.catalog, other.control
    near_pins = [
        (o.control, catalog.row_of[o.control.item])
        for o in [origin, *said.others(origin)]
        if isinstance(o.control, Pin) and o.control.slot <= pin.slot and o.control.item in catalog.row_of
    ]
    row = catalog.row_of[pin.item]
    for page, slots in _pages(pin, control):
        if pin.slot > slots:
            continue
        pins = [(p.slot, r) for p, r in near_pins if (page, slots) in _pages(p, pin, control)]
        if isinstance(control, Quota):
            member = said.member(control)
            there = sum(bool(member[r]) for _, r in pins)
            allowed = int(max_counts(control, slots)[pin.slot - 1]) if control.at_most is not None else slots
            broken = bool(member[row]) and there > allowed
        elif isinstance(control, Cap | Spacing):
            codes = attribute(catalog, control.attribute)
            near = pin.slot - control.within if isinstance(control, Spacing) else 0
            there = sum(int(codes[r] == codes[row]) for slot, r in pins if slot > near)
            most = control.at_most
            allowed = most if isinstance(most, int) else int(most * slots + 1e-9)
            broken = bool(codes[row] >= 0) and there > allowed
        else:
            return
        if broken:
            breaks = message(
                "pin_breaks_cap", count=there, slots=pin.slot, page=page, control=said.named(other), maximum=allowed
            )
            yield Finding(said.field(origin, "slot"), breaks)
            return


def overlap(one: Control, other: Control) -> bool:
    """Whether two controls can be in force on the same page, as far as places and dates tell."""
    pairs = ((one.on.screens, other.on.screens), (one.on.surfaces, other.on.surfaces))
    if any(a and b and not set(a) & set(b) for a, b in pairs):
        return False
    for here, there in ((one.on.regions, other.on.regions), (one.on.outlets, other.on.outlets)):
        if here and there and not any(within(a, b) or within(b, a) for a in here for b in there):
            return False
    for first, second in ((one.active, other.active), (other.active, one.active)):
        if first.until and second.since and first.until <= second.since:
            return False
    return not (one.active.days and other.active.days and not set(one.active.days) & set(other.active.days))


def unreachable_slots(policy: Policy) -> dict[int, Finding]:
    """Floors whose number of items does not even fit most of their pages, by their place among the controls.

    Nothing else that could be said of such a floor would be its fault, or any other control's.
    """
    found = {}
    for place, control in enumerate(policy.controls):
        if not isinstance(control, Quota) or not isinstance(control.at_least, int):
            continue
        pages, asked = _pages(control), control.at_least
        small = sorted((one for one in pages if one[1] < asked), key=lambda one: -one[1])
        if 2 * len(small) > len(pages):
            page, slots = next((one for one in small if one[0].params["screen"] == Screen.MOBILE), small[0])
            beyond = message(
                "floor_above_page",
                items=asked,
                slots=slots,
                page=page,
                others=message("floor_above_other_pages", pages=len(small) - 1) if len(small) > 1 else None,
                suggestion=message("did_you_mean", word=f"{asked}%") if 5 <= asked <= 100 else None,
            )
            found[place] = Finding(f"controls[{place}].at_least", beyond)
    return found


def _pages(*controls: Control) -> list[tuple[Message, int]]:
    """Screen and surface, and slots of their pages, where all the controls speak."""
    surfaces = {surface for control in controls for surface in control.on.surfaces} or {Surface.HOME}
    return [
        (message("page", screen=screen, surface=surface), default_slots(screen, surface))
        for screen in Screen
        for surface in sorted(surfaces)
        if all(not c.on.screens or screen in c.on.screens for c in controls)
        and all(not c.on.surfaces or surface in c.on.surfaces for c in controls)
    ]


def _requested_count(control: Control) -> float:
    least = getattr(control, "at_least", None) or 0
    return float(least) if isinstance(least, float) else least / 20.0
