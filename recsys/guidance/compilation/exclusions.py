"""Selection of the items that blocks keep off a page.

A block is relaxed only for minimums and pins of stricter enforcement, so a legal block is never relaxed. It is relaxed
if it leaves such a minimum fewer items than required, or removes the item of such a pin; these items then become
candidates. The solver decides how many of them are shown: it treats the block as a maximum of 0, first within its
enforcement, and relaxes it by as few slots as possible. If supply is still short, the minimum is relaxed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from recsys.domain.catalog import Catalog
from recsys.domain.query import Query
from recsys.domain.types import I32, Bool
from recsys.guidance.policy.conditions import Where
from recsys.guidance.policy.controls import Block, Enforcement, Pin, Quota
from recsys.guidance.policy.inheritance import SourcedControl
from recsys.guidance.policy.quotas import min_counts


class Membership(Protocol):
    """The part of a compiled policy that blocks need: the items that meet a condition."""

    @property
    def catalog(self) -> Catalog:
        """Return the catalog over which the masks are computed."""

    def member(self, where: Where, region: str) -> Bool:
        """Return the [catalog] mask of the items that meet the condition for viewers in a region."""


Hit = tuple[SourcedControl, Bool]
"""A block and the mask of the rows that it matches."""


def excluded(
    policy: Membership,
    active: Sequence[SourcedControl],
    rows: I32,
    query: Query,
    showable: Bool | None,
    need: str | None,
    catalog_showable: Callable[[], Bool] | None,
) -> Bool:
    """Return the [N] mask of excluded rows, as `CompiledPolicy.blocked` does.

    If the remaining items do not fill the page, only the missing number of blocked items is readmitted, in catalog
    order, because every readmitted item would be shown.

    active  the controls in force, the most important first
    """
    blocks = _hits(policy, active, rows, query)
    blocked = _any([hit for _, hit in blocks], len(rows))
    if not blocked.any():
        return blocked
    allowed = np.ones(len(rows), np.bool_) if showable is None else showable
    unblocked, readmitted = allowed & ~blocked, np.zeros(len(rows), np.bool_)
    page_underfilled = need is None and unblocked.sum() < query.slots
    firmly_blocked: dict[Enforcement, Bool] = {}  # rows that blocks keep from controls of this enforcement
    unblocked_catalog: Bool | None = None
    for origin in active:
        if need not in (None, origin.control.id) or not isinstance(origin.control, Quota | Pin):
            continue
        level = origin.control.enforcement
        if level not in firmly_blocked:
            firmly_blocked[level] = _any([hit for block, hit in blocks if not origin.outranks(block)], len(rows))
        members, required = required_count(policy, origin, rows, query)
        eligible = allowed & members & blocked & ~firmly_blocked[level]
        missing = required - int((members & (unblocked | readmitted if page_underfilled else unblocked)).sum())
        if missing <= 0 or not eligible.any():
            continue
        if catalog_showable is not None:
            if unblocked_catalog is None:
                unblocked_catalog = catalog_showable() & ~_blocked_catalog(policy, active, query)
            if not _shortfall(policy, origin, unblocked_catalog, query):
                continue
        readmitted |= _first(eligible & ~readmitted, missing) if page_underfilled else eligible
    return blocked & ~readmitted


def required_count(policy: Membership, origin: SourcedControl, rows: I32, query: Query) -> tuple[Bool, int]:
    """Return the [N] mask of the rows that a minimum or pin concerns, and how many of them it requires on this page."""
    control = origin.control
    if isinstance(control, Quota) and control.at_least is not None:
        member, shown = policy.member(control.where, query.region), query.shown_rows(policy.catalog)
        minimums = min_counts(control, min(query.slots, len(rows)), len(shown), int(member[shown].sum()))
        return member[rows], int(minimums.max(initial=0))
    if isinstance(control, Pin) and 0 < control.slot - query.n_shown <= query.slots:
        return rows == policy.catalog.row_of.get(control.item, -1), 1
    return np.zeros(len(rows), np.bool_), 0


def _shortfall(policy: Membership, origin: SourcedControl, available: Bool, query: Query) -> bool:
    """Return whether fewer items of the whole catalog are available than a minimum or pin requires."""
    members, required = required_count(policy, origin, np.arange(len(policy.catalog), dtype=np.int32), query)
    return bool((available & members).sum() < required)


def _blocked_catalog(policy: Membership, active: Sequence[SourcedControl], query: Query) -> Bool:
    """Return the [catalog] mask of the items that any block matches."""
    rows = np.arange(len(policy.catalog), dtype=np.int32)
    return _any([hit for _, hit in _hits(policy, active, rows, query)], len(rows))


def _hits(policy: Membership, active: Sequence[SourcedControl], rows: I32, query: Query) -> list[Hit]:
    return [
        (origin, policy.member(origin.control.where, query.region)[rows])
        for origin in active
        if isinstance(origin.control, Block)
    ]


def _first(mask: Bool, count: int) -> Bool:
    """Return the mask limited to its first `count` rows."""
    return mask & (np.cumsum(mask) <= count)


def _any(masks: list[Bool], size: int) -> Bool:
    """Return the [size] union of the masks."""
    return np.logical_or.reduce(masks) if masks else np.zeros(size, np.bool_)
