"""Item counts: the statistics from which `features.columns` computes features.

Serving reads them from the live statistics of the catalog (`ItemCounts.of`). Point-in-time queries read them from the
event log (`features.point_in_time.query`). The feature code is the same for both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys.domain.decay import FAST_HALF_LIFE_S, HALF_LIFE_S
from recsys.domain.item_statistics import ItemStats
from recsys.domain.types import ACTIONS, F64, I32

MEASURES = (*ACTIONS, "impressions", "visits", "hides")
"""The counts of each item, in the order of every `total[M]`."""


@dataclass(frozen=True)
class ItemCounts:
    """Decayed counts of N items, each as of the time of its row, and their sums over the catalog.

    count      [N, M]          counts in the order of `MEASURES`
    recent     [N]             visits, decayed with `recsys.domain.viewer.FAST_HALF_LIFE_S`
    local      [N]             visits from the region of the page
    on_screen  [N]             visits on the screen of the page
    total      [M] or [N, M]   sums over the catalog
    items                      number of items in the catalog
    """

    count: F64
    recent: F64
    local: F64
    on_screen: F64
    total: F64
    items: int

    @classmethod
    def of(cls, stats: ItemStats, rows: I32, region: str, screen: str) -> ItemCounts:
        """Return the counts of the items at `rows` for a page in this region and on this screen."""
        zeros = np.zeros(len(rows))
        visits = stats.count[:, ACTIONS.index("play")] if stats.visits is None else stats.visits
        expected = visits[rows] * np.float32(FAST_HALF_LIFE_S / HALF_LIFE_S)
        count = np.column_stack(
            [
                stats.count[rows],
                stats.impressions[rows],
                visits[rows],
                zeros if stats.hides is None else stats.hides[rows],
            ]
        ).astype(np.float64)
        return cls(
            count,
            (expected if stats.recent is None else stats.recent[rows]).astype(np.float64),
            _rows_of(stats.by_region.get(region), rows),
            _rows_of(stats.by_screen.get(screen), rows),
            stats.totals,
            len(visits),
        )


def _rows_of(column: np.ndarray[tuple[int], np.dtype[np.float32]] | None, rows: I32) -> F64:
    return np.zeros(len(rows)) if column is None else column[rows].astype(np.float64)
