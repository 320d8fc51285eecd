"""The sources: each proposes catalogue rows for one request, best first.

To add one, write a function `Ask -> rows` and name it in SOURCES; its bit in `Candidates.source` is its place there. A
source that raises is a line in the trace, never a failed page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from recsys.candidates.index import Index
from recsys.candidates.similar import match
from recsys.candidates.spread import Limits, kinds, limits, some_of_each, spread
from recsys.catalog import Catalog
from recsys.distribution.eligibility import barred, first_reasons
from recsys.guidance.compile import CompiledPolicy
from recsys.guidance.targets.onpage import NOT_STEERED, Steered, target_needs
from recsys.model import Model
from recsys.state import ItemStats, ViewerState
from recsys.types import F32, I32, Query

PERSONAL, CONTENT, SEGMENT, POPULAR, NEWEST = 300, 60, 100, 200, 60
"""How many rows each source proposes at most."""

WIDE = 1_500
"""How many rows retrieval proposes at most when it is asked for more, so that no control gives way.

The best of every kind come first; where there are more kinds than this, a control may still give way for want of them.
"""

SEGMENT_PLAYS = 5.0
"""A region is a segment once its most played item has this many decayed plays."""


@dataclass(frozen=True)
class Ask:
    """What a source may look at.

    vector  [F] the viewer folded into the model's factors; None for who is unknown to it
    taste   [D] what the viewer liked, as a text vector (`recsys.candidates.similar`); None where there is none
    """

    query: Query
    viewer: ViewerState | None
    catalog: Catalog
    stats: ItemStats
    model: Model | None
    policy: CompiledPolicy
    index: Index
    vector: F32 | None
    steered: Steered = NOT_STEERED
    taste: F32 | None = None

    @cached_property
    def limits(self) -> Limits:
        """What the controls in force leave of one value on this page."""
        return limits(self.policy, self.query)


def personal(ask: Ask) -> I32:
    """What is nearest to what the viewer did lately."""
    if ask.model is None or ask.vector is None:
        return _NONE
    allowed = ask.index.searchable[ask.query.placement.screen]
    return ask.index.row_of_position[ask.model.retriever.nearest(ask.vector, PERSONAL, allowed)]


def resume(ask: Ask) -> I32:
    """What the viewer began and did not finish, latest first."""
    if ask.viewer is None:
        return _NONE
    begun = [(p.at, item_id) for item_id, p in ask.viewer.positions.items() if not p.finished and p.position_s > 0]
    return ask.catalog.rows(item_id for _, item_id in sorted(begun, reverse=True))


def content(ask: Ask) -> I32:
    """Of what was published lately, what is most like in content to what the viewer liked: plays are not needed.

    Older items are reached through what viewers did with them.
    """
    if ask.taste is None:
        return _NONE
    order = ask.index.newest[ask.query.placement.screen]
    rows = order[ask.catalog.published_at[order] <= ask.query.now]
    return rows[_top(match(rows, ask.taste, ask.catalog), CONTENT)]


def segment(ask: Ask) -> I32:
    """What is played most where the viewer is."""
    plays = local_plays(ask.stats, ask.query.region)
    return _NONE if plays is None else _top(plays, SEGMENT)


def popular(ask: Ask) -> I32:
    """What is played most on the whole."""
    return ask.index.popular[ask.query.placement.screen][:POPULAR]


def newest(ask: Ask) -> I32:
    """What was published last."""
    order = ask.index.newest[ask.query.placement.screen][: 4 * NEWEST]  # some of them may not be out yet
    return order[ask.catalog.published_at[order] <= ask.query.now][:NEWEST]


def supply(ask: Ask) -> I32:
    """What the policy's pins, floors and pushed targets need: several times each floor, over several topics and over
    what is capped or spaced, likeliest wanted first."""
    query, catalog = ask.query, ask.catalog
    if not query.guided:
        return _NONE
    rows = [ask.policy.pinned_rows(query)]
    for need in (*ask.policy.needs(query, query.slots), *target_needs(ask.policy, query, ask.steered)):
        members = np.flatnonzero(need.member & ask.index.shows[query.placement.screen]).astype(np.int32)
        allowed, _ = first_reasons(barred(catalog, members, query, ask.viewer))
        members = members[allowed & ~ask.policy.blocked(members, query, allowed, need.control_id)]
        rows.append(spread(members, _hint(ask, members), catalog.topic[members], need.count, ask.limits))
    return np.concatenate(rows).astype(np.int32)


def wider(ask: Ask) -> I32:
    """The best of every kind of item there is to the controls in force, looked for in the whole catalogue.

    No source: it is asked once, where a control would otherwise give way for want of candidates.
    """
    query, catalog = ask.query, ask.catalog
    rows = np.flatnonzero(ask.index.shows[query.placement.screen]).astype(np.int32)
    allowed, _ = first_reasons(barred(catalog, rows, query, ask.viewer))
    rows = rows[allowed]
    wanted = np.zeros(len(rows), np.bool_)
    for need in ask.policy.needs(query, query.slots):
        wanted |= need.member[rows]
    kind = kinds(ask.policy, rows, query)
    best = rows[some_of_each(kind, _hint(ask, rows), wanted, query.slots, WIDE)]
    return np.concatenate([ask.policy.pinned_rows(query), best]).astype(np.int32)


SOURCES: dict[str, Callable[[Ask], I32]] = {
    "personal": personal,
    "resume": resume,
    "content": content,
    "segment": segment,
    "popular": popular,
    "newest": newest,
    "supply": supply,
}

_NONE: I32 = np.zeros(0, np.int32)


def local_plays(stats: ItemStats, region: str) -> F32 | None:
    """[N] plays of the smallest region around the viewer's in which enough was played; None when there is none."""
    while region:
        plays = stats.by_region.get(region)
        if plays is not None and len(plays) and plays.max() >= SEGMENT_PLAYS:
            return plays
        region = region.rpartition(".")[0]
    return None


def _hint(ask: Ask, rows: I32) -> F32:
    """[N] a cheap guess of utility: match with the viewer where known, plus a little popularity and youth."""
    age_d = np.maximum(ask.query.now - ask.catalog.published_at[rows], 0.0) / 86_400.0
    hint: F32 = (ask.index.renown[rows] + np.exp2(-age_d / 7.0)).astype(np.float32)
    if ask.model is not None and ask.vector is not None:
        position = ask.index.position_of_row[rows]
        known = position >= 0
        hint[known] += ask.model.retriever.vectors[position[known]] @ ask.vector
    return hint


def _top(worth: F32, count: int) -> I32:
    """Rows of the `count` largest positive entries, best first, ties by row."""
    count = min(count, len(worth))
    best = np.argpartition(-worth, count - 1)[:count] if count else _NONE
    best = best[worth[best] > 0]
    return best[np.lexsort((best, -worth[best]))].astype(np.int32)
