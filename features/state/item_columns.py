"""Item counts as columns: summed from the online store while serving, counted event by event in a replay."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable, Mapping
from heapq import nlargest
from itertools import count, pairwise, repeat

import numpy as np
from scipy.sparse import csr_matrix  # type: ignore[import-untyped]

from features.state.codec import item_at
from features.state.corrupt_state import CorruptStateCounter
from features.state.item_fold import screen_of, update_fast_decay
from features.state.keys import ITEMS
from features.state.online.port import OnlineStore
from features.state.votes import IMPRESSION, VISIT, WeightedEvent
from recsys.domain.catalog import Catalog
from recsys.domain.decay import FAST_HALF_LIFE_S, forward_weight
from recsys.domain.item_statistics import ItemState, ItemStats
from recsys.domain.region_counts import RegionCounts
from recsys.domain.regions import roll_up
from recsys.domain.types import ACTIONS, F64, I64

REGIONS_MAX = 8192
"""Regions that are told apart in the statistics of all items, those with the most visits: anybody may name a region."""

FLUSH_EVERY = 1 << 20
"""Counts by region are summed whenever at least so many wait for it."""

_noted = CorruptStateCounter()
_COLUMN = {action: column for column, action in enumerate(ACTIONS)}


class ItemColumns:
    """Running forward-decayed counts over the rows of one catalogue; items it does not know are left out.

    Adding needs no clock and no order; `at` divides by the weight of the moment asked for (`recsys.domain.viewer`).
    """

    def __init__(self, catalog: Catalog) -> None:
        size = len(catalog)
        self._row_of = catalog.row_of
        self._count = np.zeros((size, len(ACTIONS)))
        self._impressions, self._visits, self._hides = np.zeros(size), np.zeros(size), np.zeros(size)
        self._lately, self._lately_at = np.zeros(size), np.zeros(size)
        self._offsets: dict[str, I64] = {}
        self._by_region = _Regions(size)
        self._by_screen: dict[str, F64] = {}

    def add(self, one: WeightedEvent) -> None:
        """Count the votes of one event that `features.state.fold.sift` (or a `ViewerFold`) let through."""
        event, weight = one.event, forward_weight(one.event.at)
        for item_id, action, worth in one.votes:
            row = self._row_of.get(item_id)
            if row is None:
                continue
            if action == VISIT:
                self._visits[row] += worth * weight
                self._update_fast_decay(row, worth, event.at)
                self._by_region.add(row, dict.fromkeys(roll_up(event.region), worth * weight))
                if screen := screen_of(event.screen, event.placement):
                    self._at(self._by_screen, screen)[row] += worth * weight
            elif action == IMPRESSION:
                self._impressions[row] += worth * weight
            elif action == "hide":
                self._hides[row] += worth * weight
            elif action in _COLUMN:
                self._count[row, _COLUMN[action]] += worth * weight

    def merge(self, states: Iterable[ItemState]) -> None:
        """Count what item states have counted already; numbers are gathered first and added as columns."""
        seen, visited, hidden, acted = _Accumulator(), _Accumulator(), _Accumulator(), _Accumulator()
        by_screen: dict[str, _Accumulator] = defaultdict(_Accumulator)
        for state in states:
            row = self._row_of.get(state.item_id)
            if row is None:
                continue
            for source, offset in state.offsets.items():
                self._until_offset(source)[row] = offset
            if state.impressions:
                seen.add(row, state.impressions)
            if state.visits:
                visited.add(row, state.visits)
            if state.recent_counts:
                self._update_fast_decay(row, state.recent_counts, state.recent_at)
            for action, worth in state.counts.items():
                if action in _COLUMN:
                    acted.add(row * len(ACTIONS) + _COLUMN[action], worth)
                elif action == "hide":
                    hidden.add(row, worth)
            self._by_region.add(row, state.regions)
            for screen, worth in state.screens.items():
                by_screen[screen].add(row, worth)
        seen.into(self._impressions)
        visited.into(self._visits)
        hidden.into(self._hides)
        acted.into(self._count.reshape(-1))  # a view: the same numbers as one line
        for screen, visits in by_screen.items():
            visits.into(self._at(self._by_screen, screen))

    def at(self, now: float) -> ItemStats:
        """The counts as they weigh at `now` (unix seconds)."""
        weight = forward_weight(now)
        scale = 1.0 / weight if weight > np.finfo(np.float64).tiny else 0.0  # before 1987 all counts are zero
        faded = np.exp2(-np.maximum(now - self._lately_at, 0.0) / FAST_HALF_LIFE_S)
        return ItemStats(
            count=(self._count * scale).astype(np.float32),
            impressions=(self._impressions * scale).astype(np.float32),
            by_region=self._by_region.times(scale),
            by_screen={screen: (visits * scale).astype(np.float32) for screen, visits in self._by_screen.items()},
            visits=(self._visits * scale).astype(np.float32),
            hides=(self._hides * scale).astype(np.float32),
            recent=(self._lately * faded).astype(np.float32),
            offsets={source: upto.copy() for source, upto in self._offsets.items()},
            at=now,
        )

    def _until_offset(self, source: str) -> I64:
        offsets = self._offsets.get(source)
        if offsets is None:
            offsets = self._offsets[source] = np.full(len(self._impressions), -1, np.int64)
        return offsets

    def _update_fast_decay(self, row: int, worth: float, at: float) -> None:
        lately, lately_at = self._lately, self._lately_at
        lately[row], lately_at[row] = update_fast_decay(float(lately[row]), float(lately_at[row]), worth, at)

    def _at(self, columns: dict[str, F64], name: str) -> F64:
        column = columns.get(name)
        if column is None:
            column = columns[name] = np.zeros(len(self._impressions))
        return column


class _Accumulator:
    """Numbers on their way into a column: plain arrays, as a tuple for each would keep the garbage collector busy."""

    def __init__(self) -> None:
        self._places, self._worth = array("q"), array("d")

    def add(self, place: int, worth: float) -> None:
        self._places.append(place)
        self._worth.append(worth)

    def into(self, column: F64) -> None:
        """column[place] += worth for each; a place may come several times."""
        np.add.at(column, np.frombuffer(self._places, np.int64), np.frombuffer(self._worth))


class _Regions:
    """Visits by region and row: what is added waits as plain numbers and is summed in one go, to one for each pair.

    So nothing is as large as regions x rows, and much is read fast.
    """

    def __init__(self, rows: int) -> None:
        self._rows, self._code = rows, defaultdict[str, int](count().__next__)
        self._reset()
        self._sum = csr_matrix((0, rows))

    def _reset(self) -> None:
        self._region, self._row, self._visits = array("i"), array("i"), array("d")

    def add(self, row: int, visits: Mapping[str, float]) -> None:
        """Add region -> visits to a row."""
        self._region.extend(map(self._code.__getitem__, visits))
        self._visits.extend(visits.values())
        self._row.extend(repeat(row, len(visits)))
        if len(self._row) >= FLUSH_EVERY + self._sum.nnz:
            self._flush()

    def _flush(self) -> None:
        shape, row = (len(self._code), self._rows), np.frombuffer(self._row, np.int32)
        self._sum.resize(shape)
        if len(row):
            place = np.frombuffer(self._region, np.int32), row
            self._sum = self._sum + csr_matrix((np.frombuffer(self._visits), place), shape)  # sums what comes twice
            self._reset()

    def times(self, scale: float) -> RegionCounts:
        """All of it by now, times `scale`; of more than REGIONS_MAX regions those with the most visits."""
        self._flush()
        names, visits = list(self._code), self._sum
        if len(names) > REGIONS_MAX:
            weight = np.asarray(visits.sum(axis=1)).ravel().tolist()
            kept = nlargest(REGIONS_MAX, range(len(names)), key=lambda code: (weight[code], names[code]))
            names, visits = [names[code] for code in kept], visits[kept]
        span = dict(zip(names, pairwise(visits.indptr.tolist()), strict=True))
        return RegionCounts(self._rows, span, visits.indices, (visits.data * scale).astype(np.float32))


def read_stats(store: OnlineStore, catalog: Catalog, now: float, unreadable: CorruptStateCounter = _noted) -> ItemStats:
    """The counts of all items in the online store, their shards summed; those that cannot be read are left out. Raises
    Unavailable."""
    columns = ItemColumns(catalog)
    read = (unreadable.decode(key, raw, item_at) for key, raw in store.scan(ITEMS))
    columns.merge(state for state in read if state is not None)
    return columns.at(now)
