"""Test pages, solved under a policy before it is published, from all items that may be shown, per screen and region.

All items have the same utility here, so a control is relaxed only if no page can meet it. Controls that no page could
violate are reported as well, because they have no effect.
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
"""Maximum number of regions: the outlet's own, those in scopes of controls, and provinces that items are about."""

OUTLETS_MAX = 12
"""Maximum number of outlets: the policy's own, and those below it in scopes of controls."""

PLACES_MAX = 4
"""Maximum number of pages, regions or outlets in a finding."""


PAGE_S, ALL_S = 0.05, 10.0
"""Time limits per page and for the whole dry run, in seconds; they need a clock."""


@dataclass
class _SharedState:
    """The clock and the caches that all pages of a dry run share."""

    clock: Callable[[], float] | None
    relaxations: RelaxationCache = field(default_factory=RelaxationCache)
    causes: ConflictCache = field(default_factory=ConflictCache)


@dataclass
class _Record:
    """The results for a control: the pages on which it was relaxed, and whether any page could violate it."""

    short: list[tuple[int, Message, Message]] = field(default_factory=list)  # by how much, page, reason
    amiss: dict[Message, Message] = field(default_factory=dict)  # page -> by how much, in words
    in_force: bool = False
    could_bind: bool = False


def dry_run(
    line: Sequence[Policy], catalog: Catalog, now: float, clock: Callable[[], float] | None = None
) -> Iterator[Finding]:
    """Yield findings about controls that some page cannot meet, and about controls that have no effect.

    clock  returns seconds, for the time limits `PAGE_S` and `ALL_S`; without a clock, all pages are solved to proof
    """
    policy = compile_policy(line, catalog)
    own_index = {control.id: index for index, control in enumerate(line[-1].controls)}
    records, shared = [_Record() for _ in policy.controls], _SharedState(clock)
    is_late = is_late_after(ALL_S, clock)
    done: set[tuple[bytes, int, bytes]] = set()
    contexts = _Contexts.of(line[-1].outlet, policy, catalog)
    yield from contexts.untried()
    for query in _queries(contexts, policy, now):
        rows = _showable(policy, catalog, query)
        constraints = policy.bounds(query, rows, query.slots, np.zeros(0, np.int32))
        key = (constraints.active.tobytes(), query.slots, constraints.member.tobytes() + rows.tobytes())
        if key in done or not constraints.active.any() or not len(rows):
            continue
        if is_late():
            yield Finding("controls", message("dry_run_pages_truncated", tried=len(done)), "hint")
            break
        done.add(key)
        _try_page(policy, constraints, query, records, line[-1].outlet, shared)
    for origin, record in zip(policy.controls, records, strict=True):
        index = own_index.get(origin.control.id) if origin.outlet == line[-1].outlet else None
        if index is not None and not contexts.reach(origin.control):
            yield Finding(f"controls[{index}].on.outlets", message("outlets_out_of_reach", outlet=line[-1].outlet))
        field = "controls" if index is None else f"controls[{index}]"
        if record.short:
            yield Finding(field, _cannot(record, None if index is not None else origin))
        elif record.in_force and not record.could_bind and index is not None:
            yield Finding(field, message("control_never_binds"), "hint")


def _try_page(
    policy: CompiledPolicy,
    constraints: PageConstraints,
    query: Query,
    records: list[_Record],
    outlet: str,
    shared: _SharedState,
) -> None:
    value = np.zeros(len(constraints))
    solution = solve(
        value,
        np.ones(constraints.slots),
        constraints,
        effort="fast",
        deadline_s=PAGE_S,
        clock=shared.clock,
        cache=shared.relaxations,
    )
    is_late = is_late_after(2.0 * PAGE_S, shared.clock)
    causes = shared.causes.of(constraints, solution.relaxed, solution.minimal_proven, is_late)
    for c, outcome in enumerate(evaluate(policy.controls, constraints, solution, value, causes)):
        if outcome is None or outcome.kind == "block":  # `blocked_floors` reports relaxed blocks
            continue
        records[c].in_force = True
        records[c].could_bind |= breakable(constraints, c)
        if slack := int(solution.relaxed[c]):
            page = _page(query.placement, query.region, outlet)
            records[c].amiss[page] = _problem(policy.controls[c].control, outcome, slack)
            records[c].short.append((slack, page, _words(outcome, query.slots)))


def breakable(constraints: PageConstraints, c: int) -> bool:
    """Return whether some page of these candidates would violate control `c`; if not, it has no effect here.

    With `m` members and `n` others, the first k slots hold from max(0, k - n) to min(k, m) members.
    """
    if (constraints.pin_control == c).any():
        return True
    k = np.arange(1, constraints.slots + 1)
    for row in np.flatnonzero(constraints.row_control == c):
        members = int(constraints.member[row].sum())
        minimum, maximum = np.maximum(k - (len(constraints) - members), 0), np.minimum(k, members)
        if (minimum < constraints.lower[row]).any() or (maximum > constraints.upper[row]).any():
            return True
    for s in np.flatnonzero(constraints.spacing_control == c):
        codes = constraints.code[s][constraints.code[s] >= 0]
        if (
            len(codes)
            and np.bincount(codes).max() > constraints.at_most[s]
            and constraints.slots > constraints.at_most[s]
        ):
            return True
    return False


def _page(page: Placement, region: str, outlet: str) -> Message:
    """Return the name of a page for a message about a policy of `outlet`."""
    if page.outlet == outlet:
        return message("page_in_region", screen=page.screen, surface=page.surface, region=region)
    return message("page_of_outlet", screen=page.screen, surface=page.surface, outlet=page.outlet, region=region)


def _cannot(record: _Record, source: SourcedControl | None) -> Message:
    """Describe the page with the largest deviation in full, then list the other pages.

    source  the control, if it belongs to another policy
    """
    worst = max(record.short, key=lambda short: short[0])
    pages = [page for _, page, _ in record.short if page != worst[1]]
    n_omitted = len(pages) - PLACES_MAX
    further_pages = message(
        "nor_on_pages",
        pages=[message("page_amiss", page=page, amiss=record.amiss[page]) for page in pages[:PLACES_MAX]],
        more=message("and_more_pages", count=n_omitted) if n_omitted > 0 else None,
    )
    return message(
        "control_infeasible",
        control=source and message("about_control", control=source.named("")),
        page=worst[1],
        reason=worst[2],
        others=further_pages if pages else None,
    )


def _words(outcome: ControlOutcome, slots: int) -> Message:
    """Return the cause of a relaxation: too little supply or too few slots; else the conflicting controls."""
    if outcome.at_least and outcome.shortfall and outcome.shortfall == outcome.at_least - outcome.supply:
        params = {"supply": outcome.supply, "missing": outcome.shortfall}
        return message("minimum_short_of_items", minimum=outcome.at_least, slots=slots, **params)
    if outcome.kind == "quota" and (outcome.at_least or 0) > slots:
        return message("minimum_above_slots", minimum=outcome.at_least, slots=slots)
    return outcome.reason()


def _problem(control: Control, outcome: ControlOutcome, count: int) -> Message:
    """Return by how much, and in which direction, the control deviates.

    >>> pin = Pin(id="a", action="pin", item="i", slot=1)
    >>> str(_problem(pin, ControlOutcome("pin", 12, 0, 0, 1, True), 1))
    'the item cannot be placed there'
    """
    if isinstance(control, Pin):
        return message("pin_not_possible")
    if isinstance(control, Spacing):
        return message("items_excess_nearby", count=count, attribute=control.attribute)
    if isinstance(control, Cap):
        return message("items_excess_of_value", count=count, attribute=control.attribute)
    maximum = getattr(control, "at_most", None)
    both = maximum is not None and getattr(control, "at_least", None) is not None
    too_many = outcome.at_most is not None and outcome.achieved > outcome.at_most if both else maximum is not None
    return message("items_excess", count=count) if too_many else message("items_missing", count=count)


@dataclass(frozen=True)
class _Contexts:
    """The outlets and regions of the test pages.

    The policy's own outlet is tested in all `regions`; lower outlets in their own region and those `named`.
    """

    outlet: str
    outlets: tuple[str, ...]  # the policy's own outlet first
    named: tuple[str, ...]  # regions in scopes of controls
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
        """Yield outlet and region of the test pages."""
        for outlet in self.outlets[:OUTLETS_MAX]:
            regions = self.regions if outlet == self.outlet else dict.fromkeys([outlet, *self.named])
            yield from ((outlet, region) for region in list(regions)[:REGIONS_MAX])

    def untried(self) -> Iterator[Finding]:
        """Yield hints about regions and outlets above the limits."""
        if (total := len(self.regions)) > REGIONS_MAX:
            omitted = _first(self.regions[REGIONS_MAX:])
            text = message("dry_run_regions_truncated", tried=REGIONS_MAX, total=total, left=omitted)
            yield Finding("controls", text, "hint")
        if (total := len(self.outlets)) > OUTLETS_MAX:
            omitted = _first(self.outlets[OUTLETS_MAX:])
            text = message("dry_run_outlets_truncated", tried=OUTLETS_MAX, total=total, left=omitted)
            yield Finding("controls", text, "hint")

    def reach(self, control: Control) -> bool:
        """Return whether the outlets in the control's scope include any page under this policy."""
        named = control.on.outlets
        return not named or any(within(name, self.outlet) or within(self.outlet, name) for name in named)


def _first(names: Sequence[str]) -> list[str]:
    """Return the names, truncated to PLACES_MAX."""
    return [*names[:PLACES_MAX], "..."] if len(names) > PLACES_MAX else list(names)


def _provinces(outlet: str, policy: CompiledPolicy, catalog: Catalog) -> list[str]:
    """Return provinces below the outlet that items are about, if the viewer's province can affect a page."""
    conditions = (getattr(origin.control, "where", None) for origin in policy.controls)
    local = any(condition is not None and condition.about_viewer for condition in conditions)
    if not local and not any(window.regions for item in catalog.items for window in item.rights):
        return []
    return sorted({province(name) for name in catalog.regions.names if name.startswith(outlet + ".")})


def _queries(contexts: _Contexts, policy: CompiledPolicy, now: float) -> Iterator[Query]:
    """Yield every combination of screen, surface, outlet, region and time that may change the controls in force."""
    surfaces = {Surface.HOME, *(surface for origin in policy.controls for surface in origin.control.on.surfaces)}
    moments = {now, *(at for o in policy.controls if (at := o.control.active.next(now)) is not None)}
    for at in sorted(moments):
        for screen in Screen:
            for surface in sorted(surfaces):
                slots = default_slots(screen, surface)
                for outlet, region in contexts.all():
                    yield Query("lint", "lint", Placement(outlet, screen, surface), region, at, slots, age=99)


def _showable(policy: CompiledPolicy, catalog: Catalog, query: Query) -> I32:
    rows = np.arange(len(catalog), dtype=np.int32)
    keep, _ = first_match(ineligible(catalog, rows, query, None))
    return rows[keep & ~policy.blocked(rows, query, keep)]
