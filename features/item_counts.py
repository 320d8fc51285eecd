"""What is counted of some items, and of the whole catalogue beside them: all that feature columns read of statistics.

While serving they come from the statistics of the whole catalogue (`Figures.of`), for a point in time from the offline
log (`features.point_in_time.query`); `features.columns` does not know which.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys.domain.decay import FAST_HALF_LIFE_S, HALF_LIFE_S
from recsys.domain.item_statistics import ItemStats
from recsys.domain.types import ACTIONS, F64, I32

MEASURES = (*ACTIONS, "impressions", "visits", "hides")
"""What is counted of each item, in the order of every `total[M]`."""


@dataclass(frozen=True)
class ItemCounts:
    """Decayed counts of N items, each as of the moment of its row, and the same of all items of the catalogue.

    count      [N, M]          of `MEASURES`
    lately     [N]             visits that decay with `recsys.domain.decay.FAST_HALF_LIFE_S`
    local      [N]             visits from the region of the page
    on_screen  [N]             visits on the screen of the page
    total      [M] or [N, M]   sums over the catalogue
    items                      how many the catalogue has
    """

    count: F64
    recent: F64
    local: F64
    on_screen: F64
    total: F64
    items: int

    @classmethod
    def of(cls, stats: ItemStats, rows: I32, region: str, screen: str) -> ItemCounts:
        """Of the items at `rows`, for a page in this region and on this screen."""
        nothing = np.zeros(len(rows))
        visits = stats.count[:, ACTIONS.index("play")] if stats.visits is None else stats.visits
        steady = visits[rows] * np.float32(FAST_HALF_LIFE_S / HALF_LIFE_S)
        count = np.column_stack(
            [
                stats.count[rows],
                stats.impressions[rows],
                visits[rows],
                nothing if stats.hides is None else stats.hides[rows],
            ]
        ).astype(np.float64)
        return cls(
            count,
            (steady if stats.recent is None else stats.recent[rows]).astype(np.float64),
            _of(stats.by_region.get(region), rows),
            _of(stats.by_screen.get(screen), rows),
            stats.totals,
            len(visits),
        )


def _of(column: np.ndarray[tuple[int], np.dtype[np.float32]] | None, rows: I32) -> F64:
    return np.zeros(len(rows)) if column is None else column[rows].astype(np.float64)
