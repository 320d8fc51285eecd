"""Policies put to the test before they are published: pages of all that may be shown, by screen and region.

Every item is worth the same here, so a control gives way only when no page at all could keep it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from recsys.catalog import Catalog
from recsys.distribution.eligibility import barred, first_reasons
from recsys.distribution.screens import default_slots
from recsys.errors import Finding
from recsys.guidance.bounds import Bounds
from recsys.guidance.compile import CompiledPolicy, compile_policy
from recsys.guidance.conditions import province
from recsys.guidance.policy import Policy
from recsys.guidance.solver import solve
from recsys.guidance.telling import tell
from recsys.types import I32, Placement, Query, Screen, Surface

REGIONS_MAX = 12
"""Regions rehearsed at most: the outlet's own, those the controls name, and provinces that items are about."""


def rehearse(line: Sequence[Policy], catalog: Catalog, now: float) -> Iterator[Finding]:
    """One finding for each control that cannot be kept somewhere, naming the first place and what is missing."""
    policy = compile_policy(line, catalog)
    place_of = {control.id: f"controls[{place}]" for place, control in enumerate(line[-1].controls)}
    told: set[str] = set()
    done: set[tuple[bytes, int, bytes]] = set()
    for query in _queries(line, policy, catalog, now):
        rows = _showable(policy, catalog, query)
        bounds = policy.bounds(query, rows, query.slots, np.zeros(0, np.int32))
        same = (bounds.active.tobytes(), query.slots, bounds.member.tobytes() + rows.tobytes())
        if same in done or not bounds.active.any() or not len(rows):
            continue
        done.add(same)
        for control_id, origin, message in _given_way(policy, bounds):
            if control_id in told:
                continue
            told.add(control_id)
            where = f"on {query.placement.screen} {query.placement.surface} in {query.region}"
            whose = "" if control_id in place_of else f"{control_id!r} of {origin}: "
            yield Finding(place_of.get(control_id, "controls"), f"{whose}cannot be kept {where}: {message}")


def _queries(line: Sequence[Policy], policy: CompiledPolicy, catalog: Catalog, now: float) -> Iterator[Query]:
    """Every combination of screen, surface, region and moment in which other controls may be in force."""
    outlet = line[-1].outlet
    scopes = [origin.control.on for origin in policy.controls]
    surfaces = {Surface.HOME, *(surface for scope in scopes for surface in scope.surfaces)}
    named = [outlet, *(region for scope in scopes for region in scope.regions)]
    near = {province(name) for name in catalog.regions.names if name.startswith(outlet + ".")}
    regions = list(dict.fromkeys([*named, *sorted(near)]))[:REGIONS_MAX]
    moments = {now, *(at for o in policy.controls if (at := o.control.active.next(now)) is not None)}
    for at in sorted(moments):
        for screen in Screen:
            for surface in sorted(surfaces):
                slots = default_slots(screen, surface)
                for region in regions:
                    yield Query("lint", "lint", Placement(outlet, screen, surface), region, at, slots, age=99)


def _showable(policy: CompiledPolicy, catalog: Catalog, query: Query) -> I32:
    rows = np.arange(len(catalog), dtype=np.int32)
    keep, _ = first_reasons(barred(catalog, rows, query, None))
    return rows[keep & ~policy.blocked(rows, query)]


def _given_way(policy: CompiledPolicy, bounds: Bounds) -> Iterator[tuple[str, str, str]]:
    """Id, origin and what is missing, for each control that the best page cannot keep."""
    value = np.zeros(len(bounds))
    solution = solve(value, np.ones(bounds.slots), bounds, effort="fast")
    for c, line in enumerate(tell(bounds, solution, value)):
        if line is not None and solution.relaxed[c]:
            origin = policy.controls[c]
            status = "impossible" if line.missing else "relaxed"
            yield origin.control.id, origin.outlet, line.reason(status, int(solution.relaxed[c]))
