"""Supply of one request: what the policy needs from the start, and more of it where that is not enough.

It computes what the controls in force leave of one value on the page (`stratify.limits`); the request context does not.
"""

from __future__ import annotations

import numpy as np

from recsys.candidates.context import RequestContext, utility_hint
from recsys.distribution.eligibility import first_match, ineligible
from recsys.domain.types import I32
from recsys.pacing.on_page import target_needs
from recsys.supply.stratify import lacks_supply, strata, stratified_top, top_per_stratum
from recsys.supply.stratify import value_limits as page_limits

EXPANDED_MAX = 1_500
"""How many rows `expand_supply` returns at most.

The best of every kind come first; where there are more kinds than this, a control may still give way for want of them.
"""

_NONE: I32 = np.zeros(0, np.int32)


def supply(ask: RequestContext) -> I32:
    """What the policy's pins, floors and pushed targets need: several times each floor, over several topics and over
    what is capped or spaced, likeliest wanted first."""
    query, catalog = ask.query, ask.catalog
    if not query.guided:
        return _NONE
    rows, limits = [ask.policy.pinned_rows(query)], page_limits(ask.policy, query)
    for need in (*ask.policy.needs(query, query.slots), *target_needs(ask.policy, query, ask.prices)):
        members = np.flatnonzero(need.member & ask.index.playable_on[query.placement.screen]).astype(np.int32)
        allowed, _ = first_match(ineligible(catalog, members, query, ask.viewer))
        members = members[allowed & ~ask.policy.blocked(members, query, allowed, need.control_id)]
        rows.append(stratified_top(members, utility_hint(ask, members), catalog.topic[members], need.count, limits))
    return np.concatenate(rows).astype(np.int32)


def expand_supply(ask: RequestContext) -> I32:
    """Return the best rows of every kind of item that the controls in force distinguish, from the whole catalogue.

    This is no source: it is called once, where a control would otherwise give way for want of candidates.
    """
    query, catalog = ask.query, ask.catalog
    rows = np.flatnonzero(ask.index.playable_on[query.placement.screen]).astype(np.int32)
    allowed, _ = first_match(ineligible(catalog, rows, query, ask.viewer))
    rows = rows[allowed]
    wanted = np.zeros(len(rows), np.bool_)
    for need in ask.policy.needs(query, query.slots):
        wanted |= need.member[rows]
    kind = strata(ask.policy, rows, query)
    best = rows[top_per_stratum(kind, utility_hint(ask, rows), wanted, query.slots, EXPANDED_MAX)]
    return np.concatenate([ask.policy.pinned_rows(query), best]).astype(np.int32)


def needs_expansion(ask: RequestContext, rows: I32) -> bool:
    """Whether candidates (catalogue rows [N]) are too few or too much alike to fill the page, by one limit alone."""
    query = ask.query
    return query.guided and lacks_supply(rows, query.slots, page_limits(ask.policy, query))
