"""Item counts as columns: summed from the online store while serving, counted event by event in a replay."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from features.codec import ITEMS, decode_item
from features.events import ViewerEvent, actions_of
from features.fold import roll_up
from features.online import OnlineStore
from recsys.catalog import Catalog
from recsys.state import ItemState, ItemStats, forward_weight
from recsys.types import ACTIONS, F64

_COLUMN = {action: column for column, action in enumerate(ACTIONS)}


class StatsColumns:
    """Running forward-decayed counts over the rows of one catalogue; items it does not know are left out.

    Adding needs no clock and no order; `at` divides by the weight of the moment asked for (`recsys.state`).
    """

    def __init__(self, catalog: Catalog) -> None:
        self._row_of = catalog.row_of
        self._count = np.zeros((len(catalog), len(ACTIONS)))
        self._impressions = np.zeros(len(catalog))
        self._by_region: dict[str, F64] = {}

    def add(self, event: ViewerEvent) -> None:
        """Count one event; the caller has left out duplicates."""
        weight = forward_weight(event.at)
        for item_id in event.items:
            if (row := self._row_of.get(item_id)) is not None:
                self._impressions[row] += weight
        actions = actions_of(event)
        row = self._row_of.get(event.item_id) if event.item_id is not None and actions else None
        if row is None:
            return
        for action in actions:
            self._count[row, _COLUMN[action]] += weight
        if "play" in actions:
            for region in roll_up(event.region):
                self._plays_from(region)[row] += weight

    def merge(self, states: Iterable[ItemState]) -> None:
        """Count what item states have counted already; numbers are gathered first and added as columns."""
        seen, acted = _Sums(), _Sums()
        played: dict[str, _Sums] = defaultdict(_Sums)
        for state in states:
            row = self._row_of.get(state.item_id)
            if row is None:
                continue
            if state.impressions:
                seen.add(row, state.impressions)
            first = row * len(ACTIONS)
            for action, worth in state.counts.items():
                acted.add(first + _COLUMN[action], worth)
            for region, worth in state.regions.items():
                played[region].add(row, worth)
        seen.into(self._impressions)
        acted.into(self._count.reshape(-1))  # a view: the same numbers as one line
        for region, plays in played.items():
            plays.into(self._plays_from(region))

    def at(self, now: float) -> ItemStats:
        """The counts as they weigh at `now` (unix seconds)."""
        weight = forward_weight(now)
        scale = 1.0 / weight if weight > np.finfo(np.float64).tiny else 0.0  # before 1987 all counts are zero
        return ItemStats(
            count=(self._count * scale).astype(np.float32),
            impressions=(self._impressions * scale).astype(np.float32),
            by_region={region: (plays * scale).astype(np.float32) for region, plays in self._by_region.items()},
        )

    def _plays_from(self, region: str) -> F64:
        plays = self._by_region.get(region)
        if plays is None:
            plays = self._by_region[region] = np.zeros(len(self._impressions))
        return plays


class _Sums:
    """Numbers on their way into a column: plain arrays, as a tuple for each would keep the garbage collector busy."""

    def __init__(self) -> None:
        self._places, self._worth = array("q"), array("d")

    def add(self, place: int, worth: float) -> None:
        self._places.append(place)
        self._worth.append(worth)

    def into(self, column: F64) -> None:
        """column[place] += worth for each; a place may come several times."""
        np.add.at(column, np.frombuffer(self._places, np.int64), np.frombuffer(self._worth))


def read_stats(store: OnlineStore, catalog: Catalog, now: float) -> ItemStats:
    """The counts of all items in the online store, their shards summed. Raises Unavailable, StateError."""
    columns = StatsColumns(catalog)
    columns.merge(decode_item(raw) for _, raw in store.scan(ITEMS))
    return columns.at(now)
