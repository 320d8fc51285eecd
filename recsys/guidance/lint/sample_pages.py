"""Sample pages of a policy: kinds of pages by screen, surface, outlet, region and time, and the items they may show.

Lint solves these pages, and publishing checks the work that they take.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from recsys.distribution.eligibility import first_match, ineligible
from recsys.distribution.layouts import default_slots
from recsys.domain.catalog import Catalog
from recsys.domain.errors import Finding
from recsys.domain.placement import Placement, Screen, Surface
from recsys.domain.query import Query
from recsys.domain.regions import province, within
from recsys.domain.types import I32
from recsys.guidance.compilation.compile import CompiledPolicy
from recsys.guidance.policy.controls import Control
from recsys.messages import Message, message

REGIONS_MAX = 12
"""Maximum number of regions: the outlet's own, those in scopes of controls, and provinces that items are about."""

OUTLETS_MAX = 12
"""Maximum number of outlets: the policy's own, and those below it in scopes of controls."""

NAMES_MAX = 4
"""Maximum number of regions or outlets in a finding."""


@dataclass(frozen=True)
class PageContexts:
    """The outlets and regions of the test pages.

    The policy's own outlet is tested in all `regions`; lower outlets in their own region and those `named`.
    """

    outlet: str
    outlets: tuple[str, ...]  # the policy's own outlet first
    named: tuple[str, ...]  # regions in scopes of controls
    regions: tuple[str, ...]

    @classmethod
    def of(cls, outlet: str, policy: CompiledPolicy, catalog: Catalog) -> PageContexts:
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
    """Return the names, truncated to NAMES_MAX."""
    return [*names[:NAMES_MAX], "..."] if len(names) > NAMES_MAX else list(names)


def _provinces(outlet: str, policy: CompiledPolicy, catalog: Catalog) -> list[str]:
    """Return provinces below the outlet that items are about, if the viewer's province can affect a page."""
    conditions = (getattr(origin.control, "where", None) for origin in policy.controls)
    local = any(condition is not None and condition.about_viewer for condition in conditions)
    if not local and not any(window.regions for item in catalog.items for window in item.rights):
        return []
    return sorted({province(name) for name in catalog.regions.names if name.startswith(outlet + ".")})


def sample_queries(contexts: PageContexts, policy: CompiledPolicy, now: float) -> Iterator[Query]:
    """Yield every combination of screen, surface, outlet, region and time that may change the controls in force."""
    surfaces = {Surface.HOME, *(surface for origin in policy.controls for surface in origin.control.on.surfaces)}
    moments = {now, *(at for o in policy.controls if (at := o.control.active.next(now)) is not None)}
    for at in sorted(moments):
        for screen in Screen:
            for surface in sorted(surfaces):
                slots = default_slots(screen, surface)
                for outlet, region in contexts.all():
                    yield Query("lint", "lint", Placement(outlet, screen, surface), region, at, slots, age=99)


def showable_rows(policy: CompiledPolicy, catalog: Catalog, query: Query) -> I32:
    rows = np.arange(len(catalog), dtype=np.int32)
    keep, _ = first_match(ineligible(catalog, rows, query, None))
    return rows[keep & ~policy.blocked(rows, query, keep)]


def page_name(page: Placement, region: str, outlet: str) -> Message:
    """Return the name of a page for a message about a policy of `outlet`."""
    if page.outlet == outlet:
        return message("page_in_region", screen=page.screen, surface=page.surface, region=region)
    return message("page_of_outlet", screen=page.screen, surface=page.surface, outlet=page.outlet, region=region)
