"""Supply for one request: the candidates that the policy needs, and more of them if they do not suffice."""

from __future__ import annotations

import numpy as np

from recsys.candidates.context import RequestContext, utility_hint
from recsys.domain.types import I32
from recsys.pacing.on_page import target_needs
from recsys.supply.stratify import lacks_supply, strata, stratified_top, top_per_stratum, value_limits

EXPANDED_MAX = 1_500
"""Maximum number of rows that `expand_supply` returns.

The best items of every stratum come first. If there are more strata than this, a control may still be relaxed for lack
of candidates.
"""

_NONE: I32 = np.zeros(0, np.int32)


def supply(context: RequestContext) -> I32:
    """Return rows for the policy's pins, minimum quotas and exposure targets.

    The rows cover several topics and stay within caps and spacings as far as possible, highest utility hint first.
    """
    query, catalog = context.query, context.catalog
    if not query.guided:
        return _NONE
    rows, limits = [context.policy.pinned_rows(query)], value_limits(context.policy, query)
    for need in (*context.policy.needs(query, query.slots), *target_needs(context.policy, query, context.prices)):
        members = np.flatnonzero(need.member & context.eligible).astype(np.int32)
        members = members[~context.policy.blocked(members, query, None, need.control_id)]
        rows.append(stratified_top(members, utility_hint(context, members), catalog.topic[members], need.count, limits))
    return np.concatenate(rows).astype(np.int32)


def expand_supply(context: RequestContext) -> I32:
    """Return the best rows of every stratum of the catalog, with all pinned rows.

    Items of one stratum are the same to every active control. The pipeline calls this at most once per page, when a
    control would otherwise be relaxed for lack of candidates; it is not a source.
    """
    query = context.query
    required = np.zeros(len(context.catalog), np.bool_)
    for need in context.policy.needs(query, query.slots):
        required |= need.member
    rows = np.flatnonzero(context.eligible & (context.selectable | required)).astype(np.int32)
    required = required[rows]
    stratum = strata(context.policy, rows, query)
    best = rows[top_per_stratum(stratum, utility_hint(context, rows), required, query.slots, EXPANDED_MAX)]
    return np.concatenate([context.policy.pinned_rows(query), best]).astype(np.int32)


def needs_expansion(context: RequestContext, rows: I32) -> bool:
    """Return whether catalog rows [N] are too few, or too similar, to fill the page under any one limit."""
    query = context.query
    return query.guided and lacks_supply(rows, query.slots, value_limits(context.policy, query))
