"""Blocks that take away what firm floors and pins ask for: one of both gives way there, and editors should know which.

A block yields to what is harder than itself, by as few items as that needs (`blocking`); what is not harder gives way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from recsys.distribution.layouts import default_slots
from recsys.domain.catalog import Catalog
from recsys.domain.errors import Finding
from recsys.domain.placement import Screen, Surface
from recsys.guidance.compilation.compile import CompiledPolicy, compile_policy
from recsys.guidance.lint.contradictions import overlap
from recsys.guidance.policy.controls import Block, Pin, Quota
from recsys.guidance.policy.inheritance import SourcedControl
from recsys.guidance.policy.policy import Policy
from recsys.guidance.policy.quotas import min_counts
from recsys.messages import Message, message


def blocks_starving_minimums(line: Sequence[Policy], catalog: Catalog) -> Iterator[Finding]:
    """A finding at each block of the last policy that would leave a firm floor or pin, of whatever policy of the line,
    without its items; a floor or pin of this policy that a block of this policy defeats, `contradictions` tells."""
    policy = compile_policy(line, catalog)
    place_of = {control.id: place for place, control in enumerate(line[-1].controls)}
    for origin in policy.controls:
        if isinstance(origin.control, Block) and origin.outlet == line[-1].outlet:
            where = f"controls[{place_of[origin.control.id]}].where"
            for other in policy.controls:
                told = other.outranks(origin) or other.outlet != origin.outlet
                if other.is_hard and told and overlap(other.control, origin.control):
                    yield from (Finding(where, taken) for taken in _blocked_items(policy, origin, other))


def _blocked_items(policy: CompiledPolicy, block: SourcedControl, other: SourcedControl) -> Iterator[Message]:
    control, said = other.control, block.control
    harder, named = other.outranks(block), {"control": other.named(block.outlet), "enforcement": control.enforcement}
    assert isinstance(said, Block)
    gone = policy.member(said.where, block.outlet)
    if isinstance(control, Pin):
        row = policy.catalog.row_of.get(control.item)
        if row is not None and gone[row]:
            pinned = {"item": control.item, **named}
            yield message("block_relaxed_for_pin", **pinned) if harder else message("block_defeats_pin", **pinned)
    if isinstance(control, Quota) and control.at_least is not None:
        asked = policy.member(control.where, block.outlet)
        for page, slots in _pages(control, said):
            least, left = int(min_counts(control, slots).max(initial=0)), int((asked & ~gone).sum())
            if (asked & gone).any() and left < least:
                floor = {"left": left, "total": int(asked.sum()), "minimum": least, "page": page, **named}
                yield (
                    message("block_relaxed_for_floor", by=least - left, **floor)
                    if harder
                    else message("block_defeats_floor", **floor)
                )
                return


def _pages(*controls: Quota | Block) -> Iterator[tuple[Message, int]]:
    """Name and slots of the pages on which all the controls speak, as far as screens and surfaces tell."""
    for screen in Screen:
        for surface in sorted({s for control in controls for s in control.on.surfaces} or {Surface.HOME}):
            if all(
                (not c.on.screens or screen in c.on.screens) and (not c.on.surfaces or surface in c.on.surfaces)
                for c in controls
            ):
                yield message("page", screen=screen, surface=surface), default_slots(screen, surface)
