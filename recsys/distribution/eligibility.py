"""Eligibility: whether an item may be shown to this viewer, at this time, in this place.

Eligibility comes first: no pin, boost or exposure target overrides it.
"""

from __future__ import annotations

import numpy as np

from recsys.distribution.layouts import screen_layout
from recsys.domain.catalog import Catalog
from recsys.domain.item import FORMATS, KINDS, STATUSES
from recsys.domain.placement import Screen
from recsys.domain.query import Query
from recsys.domain.trace import DropReason
from recsys.domain.types import I32, Bool
from recsys.domain.viewer import ViewerState

PUBLISHED = STATUSES.index("published")
LIVE = KINDS.index("live")

UNKNOWN_AGE = 17
"""The assumed age of a viewer of unknown age, who therefore sees nothing rated 18."""


def playable(catalog: Catalog, screen: Screen) -> Bool:
    """Return [catalog] whether an item has a format that the screen can show."""
    formats = [catalog.format[:, FORMATS.index(name)] for name in screen_layout(screen).formats]
    return np.asarray(np.logical_or.reduce(formats))


def ineligible(catalog: Catalog, rows: I32 | slice, query: Query, viewer: ViewerState | None) -> dict[DropReason, Bool]:
    """Return masks [N] of the catalog rows that may not be shown, by reason.

    Rights windows are compared with `query.now`, the server's clock. An item can be in several masks; `first_match`
    counts it once.
    """
    size, placement = len(catalog), query.placement
    age = UNKNOWN_AGE if query.age is None else query.age
    reasons = {
        DropReason.UNPUBLISHED: (catalog.status[rows] != PUBLISHED) | (catalog.published_at[rows] > query.now),
        DropReason.RIGHTS: (catalog.start[rows] > query.now) | (catalog.until[rows] <= query.now),
        DropReason.TERRITORY: catalog.rights.closed(size, query.now, query.region, placement.screen)[rows],
        DropReason.SCREEN: ~playable(catalog, placement.screen)[rows],
        DropReason.AGE: catalog.age_rating[rows] > age,
        DropReason.SEEN: _mask(size, query.shown_rows(catalog))[rows],
        DropReason.HIDDEN: _mask(size, catalog.rows(viewer.hidden if viewer else ()))[rows],
    }
    if viewer is not None:
        # a live channel is never finished: tomorrow it shows another programme
        finished = _mask(size, catalog.rows(viewer.finished_at)) & (catalog.kind != LIVE)
        reasons[DropReason.SEEN] |= finished[rows]
    return reasons


def first_match(reasons: dict[DropReason, Bool]) -> tuple[Bool, dict[DropReason, int]]:
    """Return the rows without any reason [N], and the number of rows by their first reason."""
    size = len(next(iter(reasons.values())))
    dropped = np.zeros(size, np.bool_)
    counts: dict[DropReason, int] = {}
    for reason, mask in reasons.items():
        count = int((mask & ~dropped).sum())
        if count:
            counts[reason] = count
        dropped |= mask
    return ~dropped, counts


def _mask(size: int, rows: I32) -> Bool:
    mask = np.zeros(size, np.bool_)
    mask[rows] = True
    return mask
