"""Stratified candidates: they vary in the limited attributes, so that no control is relaxed for lack of candidates.

A page needs two properties of its candidates. They need enough distinct values of every capped or spaced attribute to
fill the slots. And they need the best items of every stratum: items of a stratum are the same to every control, so for
each stratum as many items as the page has slots represent the whole catalog.
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
"""Minimum number of topics in the supply for a quota, if the catalog has as many."""

_KEY_MAX = 2**62


class ValueLimit(NamedTuple):
    """A limit on the number of items with one value of an attribute; `code` [catalog] is -1 for no value.

    A soft limit belongs to a control with enforcement `preferred`.
    """

    code: I32 | I16
    maximum: int
    soft: bool = False


class ValueLimits(NamedTuple):
    """The maximum counts of a page.

    values  the limits of caps and spacings, by attribute
    quotas  (members [catalog], maximum count) of each quota with a maximum; `preferred` quotas are left out
    """

    values: tuple[ValueLimit, ...] = ()
    quotas: tuple[tuple[Bool, int], ...] = ()


NO_LIMITS = ValueLimits()


def value_limits(policy: CompiledPolicy, query: Query) -> ValueLimits:
    """Return the limits of the active controls on a page of the query, ignoring earlier pages of the session."""
    lowest: dict[tuple[Attribute, bool], int] = {}
    quotas = []
    for control in _active_controls(policy, query):
        soft = control.enforcement == "preferred"
        if isinstance(control, Cap | Spacing):
            limit, key = _max_of_value(control, query.slots), (control.attribute, soft)
            lowest[key] = min(limit, lowest.get(key, limit))
        elif isinstance(control, Quota) and control.at_most is not None and not soft:
            quotas.append((policy.member(control.where, query.region), int(max_counts(control, query.slots)[-1])))
    values = (ValueLimit(attribute(policy.catalog, name), limit, soft) for (name, soft), limit in lowest.items())
    return ValueLimits(tuple(values), tuple(quotas))


def stratified_top(rows: I32, hint: F32, topic: I32, count: int, limits: ValueLimits = NO_LIMITS) -> I32:
    """Return the `count` rows with the highest hints, from at least TOPICS topics and within the limits if possible.

    The best row of each of the best TOPICS topics comes first, then the best rows within all limits, then the best of
    the remaining rows.

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
    group = np.ones(len(order), np.int64)
    for limit in limits.values:
        code = limit.code[rows[order]]
        group[(code >= 0) & (rank_among_ties(code) >= limit.maximum)] = 2
    group[np.sort(first)[:TOPICS]] = 0
    chosen: I32 = rows[order[np.argsort(group, kind="stable")[:count]]]
    return chosen


def lacks_supply(rows: I32, slots: int, limits: ValueLimits) -> bool:
    """Return whether catalog rows [N] are too few, or too similar, to fill a page under any one limit.

    Soft limits are ignored.
    """
    if len(rows) < slots:
        return True
    for code, maximum, soft in limits.values:
        size = np.bincount(code[rows] + 1, minlength=1)
        if not soft and size[0] + np.minimum(size[1:], maximum).sum() < slots:
            return True
    return any(len(rows) - int(member[rows].sum()) + maximum < slots for member, maximum in limits.quotas)


def strata(policy: CompiledPolicy, rows: I32, query: Query) -> npt.NDArray[np.int64]:
    """Return [N] the stratum of each catalog row: rows of one stratum are the same to every active control.

    Pins are ignored, since pinned rows are candidates anyway.
    """
    key, width = np.zeros(len(rows), np.int64), 1
    names: set[str] = set()
    for control in _active_controls(policy, query):
        column: npt.NDArray[np.int64]
        if isinstance(control, Cap | Spacing):
            name: str = control.attribute
            column = attribute(policy.catalog, control.attribute)[rows].astype(np.int64) + 1
        elif isinstance(control, Quota | Block | ExposureTarget):
            name = control.where.key()
            column = policy.member(control.where, query.region)[rows].astype(np.int64)
        else:
            continue
        if name in names:
            continue
        names.add(name)
        values = int(column.max(initial=0)) + 1
        if width * values > _KEY_MAX:
            distinct, key = np.unique(key, return_inverse=True)
            width = len(distinct)
        key, width = key * values + column, width * values
    return key


def top_per_stratum(stratum: npt.NDArray[np.int64], hint: F32, required: Bool, count: int, limit: int) -> I32:
    """Return [<= limit] indices of the `count` best rows of every stratum, the best rows of all strata first.

    stratum   [N]  stratum of each row
    hint      [N]  estimate of utility
    required  [N]  rows that a quota requires; they precede other rows of the same rank in their strata

    >>> top_per_stratum(np.array([7, 7, 7, 8]), np.array([1.0, 3, 2, 0]), np.zeros(4, bool), 2, 3).tolist()
    [1, 3, 2]
    """
    order = np.argsort(-hint, kind="stable")
    rank = rank_among_ties(stratum[order])
    order, rank = order[rank < count], rank[rank < count]
    chosen: I32 = order[np.lexsort((~required[order], rank))[:limit]].astype(np.int32)
    return chosen


def rank_among_ties(values: npt.NDArray[np.int64] | I32 | I16) -> npt.NDArray[np.int64]:
    """Return [N] the number of equal values that precede each value.

    >>> rank_among_ties(np.array([4, 2, 4, 4, 2])).tolist()
    [0, 0, 1, 2, 1]
    """
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    start = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(values) else np.zeros(0, np.int64)
    rank = np.empty(len(values), np.int64)
    rank[order] = np.arange(len(values)) - np.repeat(start, np.diff(np.r_[start, len(values)]))
    return rank


def _active_controls(policy: CompiledPolicy, query: Query) -> Iterator[Control]:
    return (origin.control for origin in policy.controls if query.guided and origin.control.holds(query))


def _max_of_value(control: Cap | Spacing, slots: int) -> int:
    """Return the maximum number of items with one value on a page."""
    if isinstance(control, Spacing):
        windows, remainder = divmod(slots, control.within)
        return windows * control.at_most + min(remainder, control.at_most)
    limit = control.at_most
    return min(limit, slots) if isinstance(limit, int) else int(np.floor(limit * slots + 1e-9))
