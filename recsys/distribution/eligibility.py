"""May it be shown here, now, to this viewer? Before everything else; no pin, boost or target brings an item past it."""

from __future__ import annotations

import numpy as np

from recsys.distribution.layouts import screen_layout
from recsys.domain.catalog import Catalog
from recsys.domain.item import FORMATS, KINDS, STATUSES, Window
from recsys.domain.placement import Screen
from recsys.domain.query import Query
from recsys.domain.regions import within
from recsys.domain.trace import DropReason
from recsys.domain.types import I32, Bool
from recsys.domain.viewer import ViewerState

PUBLISHED = STATUSES.index("published")
LIVE = KINDS.index("live")

UNKNOWN_AGE = 17
"""A viewer of unknown age is shown nothing rated 18 or above."""


def playable(catalog: Catalog, screen: Screen) -> Bool:
    """[catalogue] items that have a format this screen can show."""
    formats = [FORMATS.index(name) for name in screen_layout(screen).formats]
    return np.asarray(catalog.format[:, formats].any(axis=1))


def ineligible(catalog: Catalog, rows: I32, query: Query, viewer: ViewerState | None) -> dict[DropReason, Bool]:
    """[N] masks of the rows that may not be shown, by reason. Rights are judged by `query.now`, the server's clock.

    An item barred for several reasons stands in several masks; `first_reasons` counts each item once.
    """
    age = UNKNOWN_AGE if query.age is None else query.age
    reasons = {
        DropReason.UNPUBLISHED: (catalog.status[rows] != PUBLISHED) | (catalog.published_at[rows] > query.now),
        DropReason.RIGHTS: (catalog.start[rows] > query.now) | (catalog.until[rows] <= query.now),
        DropReason.TERRITORY: np.zeros(len(rows), np.bool_),
        DropReason.SCREEN: ~playable(catalog, query.placement.screen)[rows],
        DropReason.AGE: catalog.age_rating[rows] > age,
        DropReason.SEEN: _is_in(catalog, rows, query.shown),
        DropReason.HIDDEN: _is_in(catalog, rows, viewer.hidden if viewer else ()),
    }
    if catalog.windows:
        for n, row in enumerate(rows.tolist()):
            if row in catalog.windows:
                reasons[DropReason.TERRITORY][n] = not any(_window_allows(w, query) for w in catalog.windows[row])
    if viewer is not None:
        # who liked a live channel has not finished it: tomorrow it shows something else
        reasons[DropReason.SEEN] |= _is_in(catalog, rows, viewer.finished_at) & (catalog.kind[rows] != LIVE)
    return reasons


def first_match(reasons: dict[DropReason, Bool]) -> tuple[Bool, dict[DropReason, int]]:
    """What may stay, and how many left for which reason, each item counted at its first one."""
    size = len(next(iter(reasons.values())))
    gone = np.zeros(size, np.bool_)
    counts: dict[DropReason, int] = {}
    for reason, mask in reasons.items():
        fresh = int((mask & ~gone).sum())
        if fresh:
            counts[reason] = fresh
        gone |= mask
    return ~gone, counts


def _window_allows(window: Window, query: Query) -> bool:
    """Whether this window allows the item at the query's time, region and screen."""
    return (
        (window.start is None or window.start.timestamp() <= query.now)
        and (window.until is None or query.now < window.until.timestamp())
        and (not window.regions or any(within(query.region, region) for region in window.regions))
        and (not window.screens or query.placement.screen in window.screens)
    )


def _is_in(catalog: Catalog, rows: I32, item_ids: object) -> Bool:
    """[N] whether each row is one of these items."""
    banned = catalog.rows(item_ids)  # type: ignore[arg-type]
    return np.isin(rows, banned) if len(banned) else np.zeros(len(rows), np.bool_)
