"""Policies put to the test before they are published: pages of all that may be shown, by screen and region.

Every item is worth the same here, so a control gives way only when no page at all could keep it. A control that no page
of any place could break never binds, and is told too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from recsys.distribution.eligibility import first_match, ineligible
from recsys.distribution.layouts import default_slots
from recsys.domain.catalog import Catalog
from recsys.domain.errors import Finding
from recsys.domain.placement import Placement, Screen, Surface
from recsys.domain.query import Query
from recsys.domain.regions import province, within
from recsys.domain.types import I32
from recsys.guidance.compilation.compile import CompiledPolicy, compile_policy
from recsys.guidance.policy.controls import Cap, Control, Pin, Spacing
from recsys.guidance.policy.inheritance import SourcedControl
from recsys.guidance.policy.policy import Policy
from recsys.guidance.receipt.control_report import ControlOutcome, evaluate
from recsys.guidance.solver.infeasibility import ConflictCache
from recsys.guidance.solver.page_constraints import PageConstraints
from recsys.guidance.solver.relaxation_cache import RelaxationCache
from recsys.guidance.solver.solve import is_late_after, solve
from recsys.messages import Message, message

REGIONS_MAX = 12
"""Regions rehearsed at most: the outlet's own, those the controls name, and provinces that items are about."""

OUTLETS_MAX = 12
"""Outlets rehearsed at most: the policy's own, and those below it that the controls name."""

PLACES_MAX = 4
"""Places that one finding names."""


PAGE_S, ALL_S = 0.05, 10.0
"""Seconds after which no better page of one kind, and no other kind of page, is tried, where there is a clock."""


@dataclass
class _Known:
    """What one page of a rehearsal leaves to the next."""

    clock: Callable[[], float] | None
    relaxations: RelaxationCache = field(default_factory=RelaxationCache)
    causes: ConflictCache = field(default_factory=ConflictCache)


@dataclass
class _Record:
    """What the rehearsal has seen of one control: where it gave way, and whether any page could break it at all."""

    short: list[tuple[int, Message, Message]] = field(default_factory=list)  # by how much, where, what is missing
    amiss: dict[Message, Message] = field(default_factory=dict)  # where -> how much is too little or too much
    in_force: bool = False
    could_bind: bool = False


def dry_run(
    line: Sequence[Policy], catalog: Catalog, now: float, clock: Callable[[], float] | None = None
) -> Iterator[Finding]:
    """Controls that cannot be kept somewhere, with what is there and what is needed, and those that never bind.

    clock  seconds: bounds how long it takes (`PAGE_S`, `ALL_S`); without one all is proven, however long that takes
    """
    policy = compile_policy(line, catalog)
    own = {control.id: place for place, control in enumerate(line[-1].controls)}
    records, known = [_Record() for _ in policy.controls], _Known(clock)
    late = is_late_after(ALL_S, clock)
    done: set[tuple[bytes, int, bytes]] = set()
    places = _Contexts.of(line[-1].outlet, policy, catalog)
    yield from places.untried()
    for query in _queries(places, policy, now):
        rows = _showable(policy, catalog, query)
        bounds = policy.bounds(query, rows, query.slots, np.zeros(0, np.int32))
        same = (bounds.active.tobytes(), query.slots, bounds.member.tobytes() + rows.tobytes())
        if same in done or not bounds.active.any() or not len(rows):
            continue
        if late():
            yield Finding("controls", message("dry_run_pages_truncated", tried=len(done)), "hint")
            break
        done.add(same)
        _try_page(policy, bounds, query, records, line[-1].outlet, known)
    for origin, record in zip(policy.controls, records, strict=True):
        place = own.get(origin.control.id) if origin.outlet == line[-1].outlet else None
        if place is not None and not places.reach(origin.control):
            yield Finding(f"controls[{place}].on.outlets", message("outlets_out_of_reach", outlet=line[-1].outlet))
        where = "controls" if place is None else f"controls[{place}]"
        if record.short:
            yield Finding(where, _cannot(record, None if place is not None else origin))
        elif record.in_force and not record.could_bind and place is not None:
            yield Finding(where, message("control_never_binds"), "hint")


def _try_page(
    policy: CompiledPolicy, bounds: PageConstraints, query: Query, records: list[_Record], outlet: str, known: _Known
) -> None:
    value = np.zeros(len(bounds))
    solution = solve(
        value,
        np.ones(bounds.slots),
        bounds,
        effort="fast",
        deadline_s=PAGE_S,
        clock=known.clock,
        cache=known.relaxations,
    )
    late = is_late_after(2.0 * PAGE_S, known.clock)
    causes = known.causes.of(bounds, solution.relaxed, solution.minimal_proven, late)
    for c, told in enumerate(evaluate(policy.controls, bounds, solution, value, causes)):
        if told is None or told.kind == "block":  # what blocks give way to, `defeats` tells
            continue
        records[c].in_force = True
        records[c].could_bind |= breakable(bounds, c)
        if by := int(solution.relaxed[c]):
            where = _page(query.placement, query.region, outlet)
            records[c].amiss[where] = _problem(policy.controls[c].control, told, by)
            records[c].short.append((by, where, _words(told, query.slots)))


def breakable(bounds: PageConstraints, c: int) -> bool:
    """Whether some page of these candidates would break control `c`: if none, the control never binds here.

    With `m` members and `n` others, the first k slots hold from max(0, k - n) to min(k, m) members.
    """
    if (bounds.pin_control == c).any():
        return True
    k = np.arange(1, bounds.slots + 1)
    for row in np.flatnonzero(bounds.row_control == c):
        members = int(bounds.member[row].sum())
        fewest, most = np.maximum(k - (len(bounds) - members), 0), np.minimum(k, members)
        if (fewest < bounds.lower[row]).any() or (most > bounds.upper[row]).any():
            return True
    for s in np.flatnonzero(bounds.space_control == c):
        codes = bounds.code[s][bounds.code[s] >= 0]
        if len(codes) and np.bincount(codes).max() > bounds.at_most[s] and bounds.slots > bounds.at_most[s]:
            return True
    return False


def _page(page: Placement, region: str, outlet: str) -> Message:
    """Name a page in a message about a policy of `outlet`."""
    if page.outlet == outlet:
        return message("page_in_region", screen=page.screen, surface=page.surface, region=region)
    return message("page_of_outlet", screen=page.screen, surface=page.surface, outlet=page.outlet, region=region)


def _cannot(record: _Record, other: SourcedControl | None) -> Message:
    """The place where most is missing, in full; then the others. `other` is a control of another policy."""
    worst = max(record.short, key=lambda short: short[0])
    others = [where for _, where, _ in record.short if where != worst[1]]
    more = len(others) - PLACES_MAX
    nor = message(
        "nor_on_pages",
        pages=[message("page_amiss", page=where, amiss=record.amiss[where]) for where in others[:PLACES_MAX]],
        more=message("and_more_pages", count=more) if more > 0 else None,
    )
    return message(
        "control_infeasible",
        control=other and message("about_control", control=other.named("")),
        page=worst[1],
        reason=worst[2],
        others=nor if others else None,
    )


def _words(told: ControlOutcome, slots: int) -> Message:
    """What is there and what is needed, where that is the cause; else what left no room."""
    if told.at_least and told.shortfall and told.shortfall == told.at_least - told.supply:
        lacks = {"supply": told.supply, "missing": told.shortfall}
        return message("floor_short_of_items", minimum=told.at_least, slots=slots, **lacks)
    if told.kind == "quota" and (told.at_least or 0) > slots:
        return message("floor_above_slots", minimum=told.at_least, slots=slots)
    return told.reason()


def _problem(control: Control, told: ControlOutcome, by: int) -> Message:
    """By how much, and in which direction, a control of this kind gives way.

    >>> pin = Pin(id="a", action="pin", item="i", slot=1)
    >>> str(_problem(pin, ControlOutcome("pin", 12, 0, 0, 1, True), 1))
    'the item cannot be placed there'
    """
    if isinstance(control, Pin):
        return message("pin_not_possible")
    if isinstance(control, Spacing):
        return message("items_excess_nearby", count=by, attribute=control.attribute)
    if isinstance(control, Cap):
        return message("items_excess_of_value", count=by, attribute=control.attribute)
    most = getattr(control, "at_most", None)
    both = most is not None and getattr(control, "at_least", None) is not None
    too_many = told.at_most is not None and told.achieved > told.at_most if both else most is not None
    return message("items_excess", count=by) if too_many else message("items_missing", count=by)


@dataclass(frozen=True)
class _Contexts:
    """Where a policy is rehearsed: its own outlet in `regions`, outlets below in their own region and those `named`."""

    outlet: str
    outlets: tuple[str, ...]  # the own one first
    named: tuple[str, ...]  # regions that controls speak of
    regions: tuple[str, ...]

    @classmethod
    def of(cls, outlet: str, policy: CompiledPolicy, catalog: Catalog) -> _Contexts:
        scopes = [origin.control.on for origin in policy.controls]
        below = [name for scope in scopes for name in scope.outlets if within(name, outlet)]
        named = dict.fromkeys(region for scope in scopes for region in scope.regions)
        return cls(
            outlet,
            tuple(dict.fromkeys([outlet, *below])),
            tuple(named),
            tuple(dict.fromkeys([outlet, *named, *_provinces(outlet, policy, catalog)])),
        )

    def all(self) -> Iterator[tuple[str, str]]:
        """Outlet and region of the pages that are tried."""
        for outlet in self.outlets[:OUTLETS_MAX]:
            here = self.regions if outlet == self.outlet else dict.fromkeys([outlet, *self.named])
            yield from ((outlet, region) for region in list(here)[:REGIONS_MAX])

    def untried(self) -> Iterator[Finding]:
        """What is too much to try."""
        if (total := len(self.regions)) > REGIONS_MAX:
            left = _first(self.regions[REGIONS_MAX:])
            some = message("dry_run_regions_truncated", tried=REGIONS_MAX, total=total, left=left)
            yield Finding("controls", some, "hint")
        if (total := len(self.outlets)) > OUTLETS_MAX:
            left = _first(self.outlets[OUTLETS_MAX:])
            some = message("dry_run_outlets_truncated", tried=OUTLETS_MAX, total=total, left=left)
            yield Finding("controls", some, "hint")

    def reach(self, control: Control) -> bool:
        """Whether the control is meant for any page that the policy rules."""
        named = control.on.outlets
        return not named or any(within(name, self.outlet) or within(self.outlet, name) for name in named)


def _first(names: Sequence[str]) -> list[str]:
    """As many names as one finding has room for."""
    return [*names[:PLACES_MAX], "..."] if len(names) > PLACES_MAX else list(names)


def _provinces(outlet: str, policy: CompiledPolicy, catalog: Catalog) -> list[str]:
    """Provinces below the outlet that items are about, where the viewer's own can make a difference to a page."""
    conditions = (getattr(origin.control, "where", None) for origin in policy.controls)
    local = any(condition is not None and condition.about_viewer for condition in conditions)
    if not local and not any(window.regions for item in catalog.items for window in item.rights):
        return []
    return sorted({province(name) for name in catalog.regions.names if name.startswith(outlet + ".")})


def _queries(places: _Contexts, policy: CompiledPolicy, now: float) -> Iterator[Query]:
    """Every combination of screen, surface, place and moment in which other controls may be in force."""
    surfaces = {Surface.HOME, *(surface for origin in policy.controls for surface in origin.control.on.surfaces)}
    moments = {now, *(at for o in policy.controls if (at := o.control.active.next(now)) is not None)}
    for at in sorted(moments):
        for screen in Screen:
            for surface in sorted(surfaces):
                slots = default_slots(screen, surface)
                for outlet, region in places.all():
                    yield Query("lint", "lint", Placement(outlet, screen, surface), region, at, slots, age=99)


def _showable(policy: CompiledPolicy, catalog: Catalog, query: Query) -> I32:
    rows = np.arange(len(catalog), dtype=np.int32)
    keep, _ = first_match(ineligible(catalog, rows, query, None))
    return rows[keep & ~policy.blocked(rows, query, keep)]
