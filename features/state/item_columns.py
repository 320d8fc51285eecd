"""Item counts as columns: summed from the online store in serving, counted event by event in a replay."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from heapq import nlargest
from itertools import count, pairwise, repeat

import numpy as np
from scipy.sparse import csr_matrix  # type: ignore[import-untyped]

from features.state.codec import item_at, item_of_key
from features.state.frozen_items import freeze_rows
from features.state.item_fold import event_screen, update_fast_decay
from features.state.keys import ITEMS
from features.state.online.port import OnlineStore
from features.state.quarantine import CorruptStateCounter
from features.state.votes import IMPRESSION, VISIT, WeightedEvent
from recsys.domain.catalog import Catalog
from recsys.domain.decay import FAST_HALF_LIFE_S, forward_weight
from recsys.domain.item_statistics import ItemState, ItemStats
from recsys.domain.region_counts import RegionCounts
from recsys.domain.regions import roll_up
from recsys.domain.types import ACTIONS, F64, I64

REGIONS_MAX = 8192
"""Maximum number of regions in the statistics of all items; those with the most visits stay. Clients send
arbitrary regions, so their number needs a limit."""

FLUSH_EVERY = 1 << 20
"""Pending counts by region are summed when at least this many are waiting."""

_corrupt_states = CorruptStateCounter()
_COLUMN = {action: column for column, action in enumerate(ACTIONS)}


class ItemColumns:
    """Running forward-decayed counts over the rows of one catalog; items outside the catalog are left out.

    Adding needs no clock and no order; `at` divides by the weight of the requested time (`recsys.domain.viewer`).
    """

    def __init__(self, catalog: Catalog) -> None:
        size = len(catalog)
        self._row_of = catalog.row_of
        self._count = np.zeros((size, len(ACTIONS)))
        self._impressions, self._visits, self._hides = np.zeros(size), np.zeros(size), np.zeros(size)
        self._recent, self._recent_at = np.zeros(size), np.zeros(size)
        self._offsets: dict[str, I64] = {}
        self._by_region = _Regions(size)
        self._by_screen: dict[str, F64] = {}

    def add(self, event: WeightedEvent) -> None:
        """Count the votes of one event that `deduplicate_and_fold` or `ViewerFold.apply` returned."""
        viewer_event, weight = event.event, forward_weight(event.event.at)
        for item_id, action, value in event.votes:
            row = self._row_of.get(item_id)
            if row is None:
                continue
            if action == VISIT:
                self._visits[row] += value * weight
                self._update_fast_decay(row, value, viewer_event.at)
                self._by_region.add(row, dict.fromkeys(roll_up(viewer_event.region), value * weight))
                if screen := event_screen(viewer_event.screen, viewer_event.placement):
                    self._at(self._by_screen, screen)[row] += value * weight
            elif action == IMPRESSION:
                self._impressions[row] += value * weight
            elif action == "hide":
                self._hides[row] += value * weight
            elif action in _COLUMN:
                self._count[row, _COLUMN[action]] += value * weight

    def merge(self, states: Iterable[ItemState]) -> None:
        """Add the counts of item states. Numbers are collected first and added as whole columns."""
        impressions, visits_, hides, actions = _Accumulator(), _Accumulator(), _Accumulator(), _Accumulator()
        by_screen: dict[str, _Accumulator] = defaultdict(_Accumulator)
        for state in states:
            row = self._row_of.get(state.item_id)
            if row is None:
                continue
            for source, offset in state.offsets.items():
                self._until_offset(source)[row] = offset
            if state.impressions:
                impressions.add(row, state.impressions)
            if state.visits:
                visits_.add(row, state.visits)
            if state.recent_counts:
                self._update_fast_decay(row, state.recent_counts, state.recent_at)
            for action, value in state.counts.items():
                if action in _COLUMN:
                    actions.add(row * len(ACTIONS) + _COLUMN[action], value)
                elif action == "hide":
                    hides.add(row, value)
            self._by_region.add(row, state.regions)
            for screen, value in state.screens.items():
                by_screen[screen].add(row, value)
        impressions.add_to(self._impressions)
        visits_.add_to(self._visits)
        hides.add_to(self._hides)
        actions.add_to(self._count.reshape(-1))  # a flat view of the same memory
        for screen, visits in by_screen.items():
            visits.add_to(self._at(self._by_screen, screen))

    def at(self, now: float) -> ItemStats:
        """Return the counts decayed to `now` (unix seconds)."""
        weight = forward_weight(now)
        scale = 1.0 / weight if weight > np.finfo(np.float64).tiny else 0.0  # before 1987 all counts are zero
        fast_scale = np.exp2(-np.maximum(now - self._recent_at, 0.0) / FAST_HALF_LIFE_S)
        return ItemStats(
            count=(self._count * scale).astype(np.float32),
            impressions=(self._impressions * scale).astype(np.float32),
            by_region=self._by_region.times(scale),
            by_screen={screen: (visits * scale).astype(np.float32) for screen, visits in self._by_screen.items()},
            visits=(self._visits * scale).astype(np.float32),
            hides=(self._hides * scale).astype(np.float32),
            recent=(self._recent * fast_scale).astype(np.float32),
            offsets={source: offsets.copy() for source, offsets in self._offsets.items()},
            at=now,
        )

    def _until_offset(self, source: str) -> I64:
        offsets = self._offsets.get(source)
        if offsets is None:
            offsets = self._offsets[source] = np.full(len(self._impressions), -1, np.int64)
        return offsets

    def _update_fast_decay(self, row: int, value: float, at: float) -> None:
        recent, recent_at = self._recent, self._recent_at
        recent[row], recent_at[row] = update_fast_decay(float(recent[row]), float(recent_at[row]), value, at)

    def _at(self, columns: dict[str, F64], name: str) -> F64:
        column = columns.get(name)
        if column is None:
            column = columns[name] = np.zeros(len(self._impressions))
        return column


class _Accumulator:
    """A buffer of numbers for one column. Plain arrays, since a tuple per number would burden the garbage collector."""

    def __init__(self) -> None:
        self._indices, self._amounts = array("q"), array("d")

    def add(self, index: int, amount: float) -> None:
        self._indices.append(index)
        self._amounts.append(amount)

    def add_to(self, column: F64) -> None:
        """Add each amount to the column at its index; an index may occur several times."""
        np.add.at(column, np.frombuffer(self._indices, np.int64), np.frombuffer(self._amounts))


class _Regions:
    """Visits by region and row. New visits wait in plain arrays and are summed in batches, one number per pair.

    So no array has the size regions x rows, and many states are read fast.
    """

    def __init__(self, rows: int) -> None:
        self._rows, self._code = rows, defaultdict[str, int](count().__next__)
        self._reset()
        self._sum = csr_matrix((0, rows))

    def _reset(self) -> None:
        self._region, self._row, self._visits = array("i"), array("i"), array("d")

    def add(self, row: int, visits: Mapping[str, float]) -> None:
        """Add the visits of each region to a row."""
        self._region.extend(map(self._code.__getitem__, visits))
        self._visits.extend(visits.values())
        self._row.extend(repeat(row, len(visits)))
        if len(self._row) >= FLUSH_EVERY + self._sum.nnz:
            self._flush()

    def _flush(self) -> None:
        shape, row = (len(self._code), self._rows), np.frombuffer(self._row, np.int32)
        self._sum.resize(shape)
        if len(row):
            coordinates = np.frombuffer(self._region, np.int32), row
            pending = csr_matrix((np.frombuffer(self._visits), coordinates), shape)  # sums duplicate coordinates
            self._sum = self._sum + pending
            self._reset()

    def times(self, scale: float) -> RegionCounts:
        """Return all visits so far times `scale`, for at most REGIONS_MAX regions: those with the most visits."""
        self._flush()
        names, visits = list(self._code), self._sum
        if len(names) > REGIONS_MAX:
            weight = np.asarray(visits.sum(axis=1)).ravel().tolist()
            top = nlargest(REGIONS_MAX, range(len(names)), key=lambda code: (weight[code], names[code]))
            names, visits = [names[code] for code in top], visits[top]
        span = dict(zip(names, pairwise(visits.indptr.tolist()), strict=True))
        return RegionCounts(self._rows, span, visits.indices, (visits.data * scale).astype(np.float32))


def read_stats(
    store: OnlineStore,
    catalog: Catalog,
    now: float,
    corrupt_states: CorruptStateCounter = _corrupt_states,
    previous: ItemStats | None = None,
) -> ItemStats:
    """Return the counts of all items in the online store, summed over shards. Raises Unavailable.

    Corrupt states are counted. Their items keep the counts of `previous`, the last result for this catalog or for one
    with fewer rows; without it, the corrupt shards are left out.
    """
    columns, corrupt_keys = ItemColumns(catalog), list[str]()

    def decoded() -> Iterator[ItemState]:
        for key, raw in store.scan(ITEMS):
            if (state := corrupt_states.decode(key, raw, item_at)) is not None:
                yield state
            else:
                corrupt_keys.append(key)

    columns.merge(decoded())
    stats = columns.at(now)
    rows = (catalog.row_of.get(item_of_key(key)) for key in corrupt_keys)
    frozen = [row for row in rows if row is not None]
    return stats if previous is None or not frozen else freeze_rows(stats, previous, frozen)
