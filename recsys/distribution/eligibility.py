"""Eligibility: whether an item may be shown to this viewer, at this time, in this place.

Eligibility comes first: no pin, boost or exposure target overrides it.
"""

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
"""The assumed age of a viewer of unknown age, who therefore sees nothing rated 18."""


def playable(catalog: Catalog, screen: Screen) -> Bool:
    """Return [catalog] whether an item has a format that the screen can show."""
    formats = [FORMATS.index(name) for name in screen_layout(screen).formats]
    return np.asarray(catalog.format[:, formats].any(axis=1))


def ineligible(catalog: Catalog, rows: I32, query: Query, viewer: ViewerState | None) -> dict[DropReason, Bool]:
    """Return masks [N] of the rows that may not be shown, by reason.

    Rights windows are compared with `query.now`, the server's clock. An item can be in several masks; `first_match`
    counts it once.
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
        # a live channel is never finished: tomorrow it shows another programme
        reasons[DropReason.SEEN] |= _is_in(catalog, rows, viewer.finished_at) & (catalog.kind[rows] != LIVE)
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


def _window_allows(window: Window, query: Query) -> bool:
    """Return whether this window allows the item at the query's time, region and screen."""
    return (
        (window.start is None or window.start.timestamp() <= query.now)
        and (window.until is None or query.now < window.until.timestamp())
        and (not window.regions or any(within(query.region, region) for region in window.regions))
        and (not window.screens or query.placement.screen in window.screens)
    )


def _is_in(catalog: Catalog, rows: I32, item_ids: object) -> Bool:
    """Return [N] whether each row is one of these items."""
    excluded = catalog.rows(item_ids)  # type: ignore[arg-type]
    return np.isin(rows, excluded) if len(excluded) else np.zeros(len(rows), np.bool_)
