"""Which items blocks keep off a page, and which they must let in.

A block yields to floors and pins that are harder than itself, and to nothing else: a legal one to nothing at all. It
yields where, by count, it leaves such a floor fewer items than it asks for, or takes such a pin's item; then those
items may be candidates. How many of them stand on the page the solver decides: to it the block is a cap of 0 that comes
first within its enforcement and gives way, as all do, by the least number of slots. What a floor cannot get so it
lacks, and it gives way itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from recsys.domain.catalog import Catalog
from recsys.domain.query import Query
from recsys.domain.types import I32, Bool
from recsys.guidance.policy.conditions import Where
from recsys.guidance.policy.controls import Block, Pin, Quota
from recsys.guidance.policy.inheritance import SourcedControl
from recsys.guidance.policy.quotas import min_counts


class Membership(Protocol):
    """Which items a condition is about: what blocking needs of a compiled policy."""

    @property
    def catalog(self) -> Catalog:
        """The catalogue that the masks are over."""

    def member(self, where: Where, region: str) -> Bool:
        """Return the [catalogue] mask of the items that meet the condition, for a viewer in this region."""


Hit = tuple[SourcedControl, Bool]
"""A block, and the rows that it is about."""


def excluded(
    policy: Membership,
    active: Sequence[SourcedControl],
    rows: I32,
    query: Query,
    showable: Bool | None,
    need: str | None,
    elsewhere: Callable[[], Bool] | None,
) -> Bool:
    """[N] as `CompiledPolicy.blocked`; `active`: the controls in force, the most important first.

    Where what is left does not fill the page, only as many items are let in as are missing (catalogue order), since all
    that is let in would stand there.
    """
    blocks = _hits(policy, active, rows, query)
    off = _any([hit for _, hit in blocks], len(rows))
    if not off.any():
        return off
    here = np.ones(len(rows), np.bool_) if showable is None else showable
    free, let = here & ~off, np.zeros(len(rows), np.bool_)
    few = need is None and free.sum() < query.slots
    for origin in active:
        if need not in (None, origin.control.id):
            continue
        held = _any([hit for block, hit in blocks if not origin.outranks(block)], len(rows))
        mine, least = required_count(policy, origin, rows, query)
        may = here & mine & off & ~held
        missing = least - int((mine & (free | let if few else free)).sum())
        if (
            missing <= 0
            or not may.any()
            or (elsewhere is not None and not _shortfall(policy, active, origin, elsewhere(), query))
        ):
            continue
        let |= _first(may & ~let, missing) if few else may
    return off & ~let


def required_count(policy: Membership, origin: SourcedControl, rows: I32, query: Query) -> tuple[Bool, int]:
    """[N] the rows that a floor or pin is about, and how many of them it asks for on this page."""
    control = origin.control
    if isinstance(control, Quota) and control.at_least is not None:
        member, shown = policy.member(control.where, query.region), policy.catalog.rows(query.shown)
        least = min_counts(control, min(query.slots, len(rows)), len(shown), int(member[shown].sum()))
        return member[rows], int(least.max(initial=0))
    if isinstance(control, Pin) and 0 < control.slot - len(query.shown) <= query.slots:
        return rows == policy.catalog.row_of.get(control.item, -1), 1
    return np.zeros(len(rows), np.bool_), 0


def _shortfall(
    policy: Membership, active: Sequence[SourcedControl], origin: SourcedControl, showable: Bool, query: Query
) -> bool:
    """Whether blocks leave fewer items of the whole catalogue than a floor or pin asks for."""
    rows = np.arange(len(policy.catalog), dtype=np.int32)
    off = _any([hit for _, hit in _hits(policy, active, rows, query)], len(rows))
    mine, least = required_count(policy, origin, rows, query)
    return bool((showable & mine & ~off).sum() < least)


def _hits(policy: Membership, active: Sequence[SourcedControl], rows: I32, query: Query) -> list[Hit]:
    return [
        (origin, policy.member(origin.control.where, query.region)[rows])
        for origin in active
        if isinstance(origin.control, Block)
    ]


def _first(mask: Bool, count: int) -> Bool:
    """The mask's first `count`."""
    return mask & (np.cumsum(mask) <= count)


def _any(masks: list[Bool], size: int) -> Bool:
    """[size] whether any of the masks holds."""
    return np.logical_or.reduce(masks) if masks else np.zeros(size, np.bool_)
