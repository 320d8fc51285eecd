"""A check for blocks that remove items of firm minimums and pins; it reports which of the two is relaxed.

A block is relaxed for controls of stricter enforcement, by as few items as they need (see `exclusions`); other controls
are relaxed instead of the block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

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


def blocks_starving_minimums(
    line: Sequence[Policy], catalog: Catalog, stopped: Callable[[], bool] = lambda: False
) -> Iterator[Finding]:
    """Yield a finding for each block of the last policy that leaves a firm minimum or pin short of items.

    The minimum or pin may belong to any policy of the line. If both belong to the last policy and the block prevails,
    `contradictions` reports it instead. No further findings follow once `stopped` returns True.
    """
    policy = compile_policy(line, catalog)
    index_of = {control.id: index for index, control in enumerate(line[-1].controls)}
    for origin in policy.controls:
        if stopped():
            return
        if isinstance(origin.control, Block) and origin.outlet == line[-1].outlet:
            field = f"controls[{index_of[origin.control.id]}].where"
            for required in policy.controls:
                reported_here = required.outranks(origin) or required.outlet != origin.outlet
                if required.is_hard and reported_here and overlap(required.control, origin.control):
                    yield from (Finding(field, text) for text in _blocked_items(policy, origin, required))


def _blocked_items(policy: CompiledPolicy, block: SourcedControl, required: SourcedControl) -> Iterator[Message]:
    control, blocking = required.control, block.control
    is_stricter, common = (
        required.outranks(block),
        {"control": required.named(block.outlet), "enforcement": control.enforcement},
    )
    assert isinstance(blocking, Block)
    blocked = policy.member(blocking.where, block.outlet)
    if isinstance(control, Pin):
        row = policy.catalog.row_of.get(control.item)
        if row is not None and blocked[row]:
            pinned = {"item": control.item, **common}
            yield message("block_relaxed_for_pin", **pinned) if is_stricter else message("block_defeats_pin", **pinned)
    if isinstance(control, Quota) and control.at_least is not None:
        members = policy.member(control.where, block.outlet)
        for page, slots in _pages(control, blocking):
            minimum, remaining = int(min_counts(control, slots).max(initial=0)), int((members & ~blocked).sum())
            if (members & blocked).any() and remaining < minimum:
                params = {"left": remaining, "total": int(members.sum()), "minimum": minimum, "page": page, **common}
                yield (
                    message("block_relaxed_for_minimum", by=minimum - remaining, **params)
                    if is_stricter
                    else message("block_defeats_minimum", **params)
                )
                return


def _pages(*controls: Quota | Block) -> Iterator[tuple[Message, int]]:
    """Yield name and slots of the pages on which all controls may be in force, judged by screens and surfaces."""
    for screen in Screen:
        for surface in sorted({s for control in controls for s in control.on.surfaces} or {Surface.HOME}):
            if all(
                (not c.on.screens or screen in c.on.screens) and (not c.on.surfaces or surface in c.on.surfaces)
                for c in controls
            ):
                yield message("page", screen=screen, surface=surface), default_slots(screen, surface)
