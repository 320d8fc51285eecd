"""Replay the event log: at any point of it, the state that serving would have had, computed by the same folds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from features.events.schema import ViewerEvent
from features.state.item_columns import ItemColumns
from features.state.viewer_fold import ViewerFold
from features.state.votes import LoggedEvent, WeightedEvent
from recsys.domain.catalog import Catalog
from recsys.domain.item_statistics import ItemStats
from recsys.domain.types import I32
from recsys.domain.viewer import ViewerState, unexpired
from training.timeline import Timeline, positive_row


class StateReplay:
    """A cursor over the timeline that only moves forward.

    The weight of an event for its item depends on the viewer's state (`features.state.votes`), so every viewer is
    folded, as in the worker.
    """

    def __init__(self, timeline: Timeline, catalog: Catalog) -> None:
        self._events, self._catalog, self._next, self._ttl_s = timeline.events, catalog, 0, timeline.ttl_s
        self._stats = ItemColumns(catalog)
        self._folds: dict[str, ViewerFold] = {}
        self._acted: dict[str, set[int]] = defaultdict(set)

    def advance(self, index: int) -> None:
        """Fold all events before position `index` of the timeline."""
        for offset in range(self._next, index):
            if (weighted := self._fold_viewer(self._events[offset], offset)) is not None:
                self._stats.add(weighted)
        self._next = max(self._next, index)

    def register(self, event: ViewerEvent, offset: int) -> None:
        """Fold an event into the viewer's own state, without counting it for items."""
        self._fold_viewer(event, offset)

    def viewer(self, viewer_id: str, now: float) -> ViewerState | None:
        """Return the viewer's state at unix second `now`; None for a new viewer or one whose state has expired."""
        fold = self._folds.get(viewer_id)
        return None if fold is None else unexpired(fold.state(), now, self._ttl_s)

    def _fold_viewer(self, event: ViewerEvent, offset: int) -> WeightedEvent | None:
        if (row := positive_row(event, self._catalog)) is not None:
            self._acted[event.viewer_id].add(row)
        fold = self._folds.get(event.viewer_id)
        if fold is None:
            fold = self._folds[event.viewer_id] = ViewerFold(ViewerState(event.viewer_id), self._ttl_s)
        return fold.apply(LoggedEvent("replay", offset, event))

    def acted(self, viewer_id: str) -> I32:
        """Return the catalog rows [M] that the viewer has ever acted on; a state holds only the latest."""
        return np.array(sorted(self._acted.get(viewer_id, ())), np.int32)

    def stats(self, now: float) -> ItemStats:
        """Return the item statistics, decayed to unix second `now`."""
        return self._stats.at(now)


def replay_events(replay: StateReplay, events: Iterable[ViewerEvent], offset: int) -> None:
    """Fold events into the viewers' own states, with offsets from `offset` on, without counting them for items."""
    for event_offset, event in enumerate(events, start=offset):
        replay.register(event, event_offset)
