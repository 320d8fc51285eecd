"""Candidates spread over what the policy caps and spaces, so that no control gives way for want of retrieval.

Two things a page needs of its candidates: *room*, enough values of every capped attribute to fill the slots, and
*kinds*, the best items of every combination of what the controls look at. Items of one kind are one and the same to
every control, so as many of each kind as the page has slots stand for the whole catalogue.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from recsys.domain.query import Query
from recsys.domain.types import F32, I16, I32, Bool
from recsys.guidance.compilation.compile import CompiledPolicy, attribute
from recsys.guidance.policy.controls import Attribute, Block, Cap, Control, ExposureTarget, Quota, Spacing
from recsys.guidance.policy.quotas import max_counts

TOPICS = 3
"""Supply for a floor comes from at least this many topics where there are so many."""

_KEY_MAX = 2**62


class ValueLimit(NamedTuple):
    """An attribute that is capped or spaced here: [catalogue] codes, -1 = none; at most so many of one on the page."""

    code: I32 | I16
    most: int
    soft: bool = False


class ValueLimits(NamedTuple):
    """values  what caps and spacings leave of one value, for each attribute
    shares  what shares leave of their [catalogue] members on the page; soft ones are left out
    """

    values: tuple[ValueLimit, ...] = ()
    shares: tuple[tuple[Bool, int], ...] = ()


NO_LIMITS = ValueLimits()


def value_limits(policy: CompiledPolicy, query: Query) -> ValueLimits:
    """What the controls in force leave on a page of the query; earlier pages of the session are not looked at."""
    most: dict[tuple[Attribute, bool], int] = {}
    shares = []
    for control in _in_force(policy, query):
        soft = control.enforcement == "preferred"
        if isinstance(control, Cap | Spacing):
            mine = _max_of_value(control, query.slots)
            most[control.attribute, soft] = min(mine, most.get((control.attribute, soft), mine))
        elif isinstance(control, Quota) and control.at_most is not None and not soft:
            shares.append((policy.member(control.where, query.region), int(max_counts(control, query.slots)[-1])))
    values = (ValueLimit(attribute(policy.catalog, name), allowed, soft) for (name, soft), allowed in most.items())
    return ValueLimits(tuple(values), tuple(shares))


def stratified_top(rows: I32, hint: F32, topic: I32, count: int, limits: ValueLimits = NO_LIMITS) -> I32:
    """The `count` rows with the largest hints, no more of one value than a page may hold as long as there are others,
    and at least as many topics among them as TOPICS, where there are any.

    First the best row of each topic, best topics first, up to TOPICS of them; then the best that all limits leave room
    for beside better ones; then the best of the rest.

    >>> stratified_top(np.arange(4), np.array([9.0, 8, 7, 1]), np.array([0, 0, 0, 1]), 2)
    array([0, 3])
    >>> limits = ValueLimits((ValueLimit(np.array([5, 5, 5, 6]), 1),))
    >>> stratified_top(np.arange(4), np.array([9.0, 8, 7, 1]), np.zeros(4), 2, limits)
    array([0, 3])
    """
    order = np.argsort(-hint, kind="stable")
    if len(order) <= count:
        return rows[order]
    _, first = np.unique(topic[order], return_index=True)
    later = np.ones(len(order), np.int64)
    for limit in limits.values:
        code = limit.code[rows[order]]
        later[(code >= 0) & (rank_among_ties(code) >= limit.most)] = 2
    later[np.sort(first)[:TOPICS]] = 0
    chosen: I32 = rows[order[np.argsort(later, kind="stable")[:count]]]
    return chosen


def lacks_supply(rows: I32, slots: int, limits: ValueLimits) -> bool:
    """Whether candidates (catalogue rows [N]) are too few or too much alike to fill a page, by one limit alone.

    Wishes (`soft`) are not looked at.
    """
    if len(rows) < slots:
        return True
    for code, most, soft in limits.values:
        size = np.bincount(code[rows] + 1, minlength=1)
        if not soft and size[0] + np.minimum(size[1:], most).sum() < slots:
            return True
    return any(len(rows) - int(member[rows].sum()) + most < slots for member, most in limits.shares)


def strata(policy: CompiledPolicy, rows: I32, query: Query) -> npt.NDArray[np.int64]:
    """[N] catalogue rows with one number are alike to every control, target and block in force here.

    Pinned items are like no other, and left to pins.
    """
    key, width = np.zeros(len(rows), np.int64), 1
    seen: set[str] = set()
    for control in _in_force(policy, query):
        column: npt.NDArray[np.int64]
        if isinstance(control, Cap | Spacing):
            name: str = control.attribute
            column = attribute(policy.catalog, control.attribute)[rows].astype(np.int64) + 1
        elif isinstance(control, Quota | Block | ExposureTarget):
            name = control.where.key()
            column = policy.member(control.where, query.region)[rows].astype(np.int64)
        else:
            continue
        if name in seen:
            continue
        seen.add(name)
        values = int(column.max(initial=0)) + 1
        if width * values > _KEY_MAX:
            known, key = np.unique(key, return_inverse=True)
            width = len(known)
        key, width = key * values + column, width * values
    return key


def top_per_stratum(kind: npt.NDArray[np.int64], hint: F32, wanted: Bool, each: int, most: int) -> I32:
    """[<= most] places of the `each` best of every kind; where that is too many, the best of all kinds come first.

    kind [N], hint [N], wanted [N] those that a floor asks for: before others of their place within their kind

    >>> top_per_stratum(np.array([7, 7, 7, 8]), np.array([1.0, 3, 2, 0]), np.zeros(4, bool), 2, 3).tolist()
    [1, 3, 2]
    """
    order = np.argsort(-hint, kind="stable")
    place = rank_among_ties(kind[order])
    order, place = order[place < each], place[place < each]
    chosen: I32 = order[np.lexsort((~wanted[order], place))[:most]].astype(np.int32)
    return chosen


def rank_among_ties(values: npt.NDArray[np.int64] | I32 | I16) -> npt.NDArray[np.int64]:
    """[N] how many equal values stand before each one.

    >>> rank_among_ties(np.array([4, 2, 4, 4, 2])).tolist()
    [0, 0, 1, 2, 1]
    """
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    begins = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(values) else np.zeros(0, np.int64)
    place = np.empty(len(values), np.int64)
    place[order] = np.arange(len(values)) - np.repeat(begins, np.diff(np.r_[begins, len(values)]))
    return place


def _in_force(policy: CompiledPolicy, query: Query) -> Iterator[Control]:
    return (origin.control for origin in policy.controls if query.guided and origin.control.holds(query))


def _max_of_value(control: Cap | Spacing, slots: int) -> int:
    """So many items of one value fit on a page."""
    if isinstance(control, Spacing):
        runs, rest = divmod(slots, control.within)
        return runs * control.at_most + min(rest, control.at_most)
    amount = control.at_most
    return min(amount, slots) if isinstance(amount, int) else int(np.floor(amount * slots + 1e-9))
