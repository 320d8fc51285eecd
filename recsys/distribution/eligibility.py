"""May it be shown here, now, to this viewer? Before everything else; no pin, boost or target brings an item past it."""

from __future__ import annotations

import numpy as np

from recsys.catalog import FORMATS, KINDS, STATUSES, Catalog, Window, within
from recsys.distribution.screens import layout
from recsys.state import ViewerState
from recsys.types import I32, Bool, Drop, Query, Screen

PUBLISHED = STATUSES.index("published")
LIVE = KINDS.index("live")

UNKNOWN_AGE = 17
"""A viewer of unknown age is shown nothing rated 18 or above."""


def playable(catalog: Catalog, screen: Screen) -> Bool:
    """[catalogue] items that have a format this screen can show."""
    formats = [FORMATS.index(name) for name in layout(screen).formats]
    return np.asarray(catalog.format[:, formats].any(axis=1))


def barred(catalog: Catalog, rows: I32, query: Query, viewer: ViewerState | None) -> dict[Drop, Bool]:
    """[N] masks of the rows that may not be shown, by reason. Rights are judged by `query.now`, the server's clock.

    An item barred for several reasons stands in several masks; `first_reasons` counts each item once.
    """
    age = UNKNOWN_AGE if query.age is None else query.age
    reasons = {
        Drop.UNPUBLISHED: (catalog.status[rows] != PUBLISHED) | (catalog.published_at[rows] > query.now),
        Drop.RIGHTS: (catalog.start[rows] > query.now) | (catalog.until[rows] <= query.now),
        Drop.TERRITORY: np.zeros(len(rows), np.bool_),
        Drop.SCREEN: ~playable(catalog, query.placement.screen)[rows],
        Drop.AGE: catalog.age_rating[rows] > age,
        Drop.SEEN: _among(catalog, rows, query.shown),
        Drop.HIDDEN: _among(catalog, rows, viewer.hidden if viewer else ()),
    }
    if catalog.windows:
        for n, row in enumerate(rows.tolist()):
            if row in catalog.windows:
                reasons[Drop.TERRITORY][n] = not any(_open(w, query) for w in catalog.windows[row])
    if viewer is not None:
        # who liked a live channel has not finished it: tomorrow it shows something else
        reasons[Drop.SEEN] |= _among(catalog, rows, viewer.done) & (catalog.kind[rows] != LIVE)
    return reasons


def first_reasons(reasons: dict[Drop, Bool]) -> tuple[Bool, dict[Drop, int]]:
    """What may stay, and how many left for which reason, each item counted at its first one."""
    size = len(next(iter(reasons.values())))
    gone = np.zeros(size, np.bool_)
    counts: dict[Drop, int] = {}
    for reason, mask in reasons.items():
        fresh = int((mask & ~gone).sum())
        if fresh:
            counts[reason] = fresh
        gone |= mask
    return ~gone, counts


def _open(window: Window, query: Query) -> bool:
    """Whether this window allows the item at the query's time, region and screen."""
    return (
        (window.start is None or window.start.timestamp() <= query.now)
        and (window.until is None or query.now < window.until.timestamp())
        and (not window.regions or any(within(query.region, region) for region in window.regions))
        and (not window.screens or query.placement.screen in window.screens)
    )


def _among(catalog: Catalog, rows: I32, item_ids: object) -> Bool:
    """[N] whether each row is one of these items."""
    banned = catalog.rows(item_ids)  # type: ignore[arg-type]
    return np.isin(rows, banned) if len(banned) else np.zeros(len(rows), np.bool_)
