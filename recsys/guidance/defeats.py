"""Blocks that take away what a policy above holds firm: they give way there, and their editors should know."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from recsys.catalog import Catalog
from recsys.distribution.screens import default_slots
from recsys.errors import Finding
from recsys.guidance.amounts import floors
from recsys.guidance.compile import CompiledPolicy, compile_policy
from recsys.guidance.conflicts import overlap
from recsys.guidance.inherit import Origin
from recsys.guidance.policy import Block, Pin, Policy, Share
from recsys.types import Screen, Surface


def defeats(line: Sequence[Policy], catalog: Catalog) -> Iterator[Finding]:
    """A finding at each block of the last policy that would leave a parent's firm floor or pin without its items."""
    policy = compile_policy(line, catalog)
    place_of = {control.id: place for place, control in enumerate(line[-1].controls)}
    for origin in policy.controls:
        if isinstance(origin.control, Block) and origin.outlet == line[-1].outlet:
            where = f"controls[{place_of[origin.control.id]}].where"
            for above in policy.controls:
                if above.firm and above.depth < origin.depth and overlap(above.control, origin.control):
                    yield from (Finding(where, words) for words in _taken(policy, origin.control, above, origin.outlet))


def _taken(policy: CompiledPolicy, block: Block, above: Origin, region: str) -> Iterator[str]:
    control, named = above.control, f"{above.control.id!r} of {above.outlet} ({above.control.hardness})"
    gone = policy.member(block.where, region)
    way = "the block gives way" + (
        ", and as it is legal the editorial page answers" if block.hardness == "legal" else ""
    )
    if isinstance(control, Pin):
        row = policy.catalog.row_of.get(control.item)
        if row is not None and gone[row]:
            yield f"takes away {control.item}, which {named} pins: there {way}"
    if isinstance(control, Share) and control.at_least is not None:
        asked = policy.member(control.where, region)
        for page, slots in _pages(control, block):
            least, left = int(floors(control, slots).max(initial=0)), int((asked & ~gone).sum())
            if (asked & gone).any() and left < least:
                yield (f"leaves {left} of the {asked.sum()} items of which {named} asks {least} on {page}: there {way}")
                return


def _pages(*controls: Share | Block) -> Iterator[tuple[str, int]]:
    """Name and slots of the pages on which all the controls speak, as far as screens and surfaces tell."""
    for screen in Screen:
        for surface in sorted({s for control in controls for s in control.on.surfaces} or {Surface.HOME}):
            if all(
                (not c.on.screens or screen in c.on.screens) and (not c.on.surfaces or surface in c.on.surfaces)
                for c in controls
            ):
                yield f"{screen} {surface}", default_slots(screen, surface)
