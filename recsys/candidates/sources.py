"""The sources: each returns catalog rows for one request, best first.

The maximum of a source counts selectable items only, so that a long session or a block does not exhaust it. Sources
that read a list return the items in between as well, and eligibility records why it drops them.

To add a source, write a function from a `RequestContext` to rows and add it to SOURCES; its index there is its bit in
`Candidates.source`. If a source raises, the trace records the error and the page is made without that source.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from recsys.candidates.content_based import content_similarity
from recsys.candidates.context import RequestContext
from recsys.domain.item_statistics import ItemStats
from recsys.domain.regions import roll_up
from recsys.domain.types import F32, I32
from recsys.supply.expand import supply

PERSONAL, CONTENT, SEGMENT, POPULAR, NEWEST = 300, 60, 100, 200, 60
"""Maximum number of selectable rows that each source returns."""

CONTENT_DEPTH = 2_000
"""Number of the newest selectable items that `content` compares with the viewer's profile."""

SEGMENT_PLAYS = 5.0
"""A region is a segment if its most played item has at least this many decayed plays."""


def personal(context: RequestContext) -> I32:
    """Return the items nearest to the viewer's recent actions."""
    if context.model is None or context.vector is None:
        return _NONE
    allowed = (
        context.index.searchable[context.query.placement.screen] & context.selectable[context.index.row_of_position]
    )
    return context.index.row_of_position[context.model.retriever.nearest(context.vector, PERSONAL, allowed)]


def resume(context: RequestContext) -> I32:
    """Return the items that the viewer started but did not finish, latest first."""
    if context.viewer is None:
        return _NONE
    unfinished = [
        (p.at, item_id) for item_id, p in context.viewer.positions.items() if not p.finished and p.position_s > 0
    ]
    return context.catalog.rows(item_id for _, item_id in sorted(unfinished, reverse=True))


def content(context: RequestContext) -> I32:
    """Return the newest items whose content is most similar to what the viewer liked.

    This source needs no plays. Older items are found through the actions of viewers.
    """
    if context.content_profile is None:
        return _NONE
    order = context.index.newest[context.query.placement.screen]
    rows = order[context.selectable[order]][:CONTENT_DEPTH]
    return rows[_top_rows(content_similarity(rows, context.content_profile, context.catalog), CONTENT)]


def segment(context: RequestContext) -> I32:
    """Return the most played items of the viewer's region."""
    plays = local_plays(context.stats, context.query.region)
    return _NONE if plays is None else _top_rows(np.where(context.selectable, plays, np.float32(0.0)), SEGMENT)


def popular(context: RequestContext) -> I32:
    """Return the most played items."""
    return _with_selectable(context, context.index.popular[context.query.placement.screen], POPULAR)


def newest(context: RequestContext) -> I32:
    """Return the items that were published last."""
    return _with_selectable(context, context.index.newest[context.query.placement.screen], NEWEST)


SOURCES: dict[str, Callable[[RequestContext], I32]] = {
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
    """Return [N] plays in the smallest region around the viewer with at least SEGMENT_PLAYS; None if there is none."""
    for enclosing in roll_up(region):
        plays = stats.by_region.get(enclosing)
        if plays is not None and len(plays) and plays.max() >= SEGMENT_PLAYS:
            return plays
    return None


def _with_selectable(context: RequestContext, order: I32, count: int) -> I32:
    """Return the shortest beginning of an order that has `count` selectable rows; all of it if it has fewer."""
    selected = np.flatnonzero(context.selectable[order])
    return order if len(selected) < count else order[: selected[count - 1] + 1]


def _top_rows(score: F32, count: int) -> I32:
    """Return the rows of the `count` largest positive scores, best first; ties are in order of row."""
    count = min(count, len(score))
    best = np.argpartition(-score, count - 1)[:count] if count else _NONE
    best = best[score[best] > 0]
    return best[np.lexsort((best, -score[best]))].astype(np.int32)
