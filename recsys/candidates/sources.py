"""The sources: each proposes catalogue rows for one request, best first.

To add one, write a function `Ask -> rows` and name it in SOURCES; its bit in `Candidates.source` is its place there. A
source that raises is a line in the trace, never a failed page.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from recsys.candidates.content_based import content_similarity
from recsys.candidates.context import RequestContext
from recsys.domain.item_statistics import ItemStats
from recsys.domain.types import F32, I32
from recsys.supply.expand import supply

PERSONAL, CONTENT, SEGMENT, POPULAR, NEWEST = 300, 60, 100, 200, 60
"""How many rows each source proposes at most."""

SEGMENT_PLAYS = 5.0
"""A region is a segment once its most played item has this many decayed plays."""


def personal(ask: RequestContext) -> I32:
    """What is nearest to what the viewer did lately."""
    if ask.model is None or ask.vector is None:
        return _NONE
    allowed = ask.index.searchable[ask.query.placement.screen]
    return ask.index.row_of_position[ask.model.retriever.nearest(ask.vector, PERSONAL, allowed)]


def resume(ask: RequestContext) -> I32:
    """What the viewer began and did not finish, latest first."""
    if ask.viewer is None:
        return _NONE
    begun = [(p.at, item_id) for item_id, p in ask.viewer.positions.items() if not p.finished and p.position_s > 0]
    return ask.catalog.rows(item_id for _, item_id in sorted(begun, reverse=True))


def content(ask: RequestContext) -> I32:
    """Of what was published lately, what is most like in content to what the viewer liked: plays are not needed.

    Older items are reached through what viewers did with them.
    """
    if ask.content_profile is None:
        return _NONE
    order = ask.index.newest[ask.query.placement.screen]
    rows = order[ask.catalog.published_at[order] <= ask.query.now]
    return rows[_top_rows(content_similarity(rows, ask.content_profile, ask.catalog), CONTENT)]


def segment(ask: RequestContext) -> I32:
    """What is played most where the viewer is."""
    plays = local_plays(ask.stats, ask.query.region)
    return _NONE if plays is None else _top_rows(plays, SEGMENT)


def popular(ask: RequestContext) -> I32:
    """What is played most on the whole."""
    return ask.index.popular[ask.query.placement.screen][:POPULAR]


def newest(ask: RequestContext) -> I32:
    """What was published last."""
    order = ask.index.newest[ask.query.placement.screen][: 4 * NEWEST]  # some of them may not be out yet
    return order[ask.catalog.published_at[order] <= ask.query.now][:NEWEST]


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
    """[N] plays of the smallest region around the viewer's in which enough was played; None when there is none."""
    while region:
        plays = stats.by_region.get(region)
        if plays is not None and len(plays) and plays.max() >= SEGMENT_PLAYS:
            return plays
        region = region.rpartition(".")[0]
    return None


def _top_rows(worth: F32, count: int) -> I32:
    """Rows of the `count` largest positive entries, best first, ties by row."""
    count = min(count, len(worth))
    best = np.argpartition(-worth, count - 1)[:count] if count else _NONE
    best = best[worth[best] > 0]
    return best[np.lexsort((best, -worth[best]))].astype(np.int32)
