"""Item statistics while a shard of an item is corrupt: its row is frozen at the last values that were read.

Without this, one damaged byte would change the popularity of an item, and with it the pages of all viewers, until a
worker has repaired the shard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from recsys.domain.decay import FAST_HALF_LIFE_S, HALF_LIFE_S
from recsys.domain.item_statistics import ItemStats
from recsys.domain.region_counts import RegionCounts
from recsys.domain.types import F32, I32, I64

_Columns = Mapping[str, F32]


def freeze_rows(stats: ItemStats, previous: ItemStats, rows: Sequence[int]) -> ItemStats:
    """Return `stats` with these rows taken from `previous`, decayed to the time of `stats`.

    Rows that `previous` does not have yet stay as they are.
    """
    frozen = np.array([row for row in dict.fromkeys(rows) if row < len(previous.impressions)], np.int32)
    if not len(frozen):
        return stats
    age_s = max(stats.at - previous.at, 0.0)
    decay, fast_decay = np.float32(0.5 ** (age_s / HALF_LIFE_S)), np.float32(0.5 ** (age_s / FAST_HALF_LIFE_S))
    return replace(
        stats,
        count=_freeze(stats.count, previous.count, frozen, decay),
        impressions=_freeze(stats.impressions, previous.impressions, frozen, decay),
        by_region=_freeze_regions(stats.by_region, previous.by_region, frozen, decay, len(stats.impressions)),
        by_screen={
            screen: _freeze(_column(stats.by_screen, screen, stats), previous.by_screen.get(screen), frozen, decay)
            for screen in {**previous.by_screen, **stats.by_screen}
        },
        visits=None if stats.visits is None else _freeze(stats.visits, previous.visits, frozen, decay),
        hides=None if stats.hides is None else _freeze(stats.hides, previous.hides, frozen, decay),
        recent=None if stats.recent is None else _freeze(stats.recent, previous.recent, frozen, fast_decay),
        offsets={
            source: _freeze_offsets(
                stats.offsets.get(source), previous.offsets.get(source), frozen, len(stats.impressions)
            )
            for source in {**previous.offsets, **stats.offsets}
        },
    )


def _freeze(column: F32, previous: F32 | None, frozen: I32, decay: np.float32) -> F32:
    """Return the column [N] or [N, A] with the frozen rows of the previous one, or zero if there was none."""
    column = column.copy()
    column[frozen] = 0.0 if previous is None else previous[frozen] * decay
    return column


def _freeze_offsets(offsets: I64 | None, previous: I64 | None, frozen: I32, size: int) -> I64:
    """Return the offsets [N] of a source with the frozen rows of the previous ones; -1 for none."""
    offsets = np.full(size, -1, np.int64) if offsets is None else offsets.copy()
    offsets[frozen] = -1 if previous is None else previous[frozen]
    return offsets


def _column(columns: _Columns, name: str, stats: ItemStats) -> F32:
    column = columns.get(name)
    return np.zeros(len(stats.impressions), np.float32) if column is None else column


def _freeze_regions(now: _Columns, previous: _Columns, frozen: I32, decay: np.float32, size: int) -> RegionCounts:
    """Return the counts by region with the frozen rows of the previous ones; region by region, to save memory."""
    span, row_parts, count_parts, end = dict[str, tuple[int, int]](), list[I32](), list[F32](), 0
    for region in {**previous, **now}:
        column = now[region].copy() if region in now else np.zeros(size, np.float32)
        column[frozen] = previous[region][frozen] * decay if region in previous else 0.0
        rows = np.flatnonzero(column).astype(np.int32)
        if len(rows):
            span[region] = end, end + len(rows)
            row_parts.append(rows)
            count_parts.append(column[rows])
            end += len(rows)
    return RegionCounts(
        size,
        span,
        np.concatenate([np.zeros(0, np.int32), *row_parts]),
        np.concatenate([np.zeros(0, np.float32), *count_parts]),
    )
