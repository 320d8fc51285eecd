"""The log played again: at any point of it, what serving would have remembered then, by the same folds."""

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
    """A cursor that only moves forward. What an event counts for its item is decided from its viewer's state
    (`features.state.votes`), so every viewer is folded, as the worker does."""

    def __init__(self, timeline: Timeline, catalog: Catalog) -> None:
        self._events, self._catalog, self._next, self._ttl_s = timeline.events, catalog, 0, timeline.ttl_s
        self._stats = ItemColumns(catalog)
        self._folds: dict[str, ViewerFold] = {}
        self._acted: dict[str, set[int]] = defaultdict(set)

    def advance(self, index: int) -> None:
        """Remember every event before position `index` of the timeline, and nothing from it on."""
        for offset in range(self._next, index):
            if (fresh := self._take(self._events[offset], offset)) is not None:
                self._stats.add(fresh)
        self._next = max(self._next, index)

    def register(self, event: ViewerEvent, offset: int) -> None:
        """Let the viewer's own state, but no item's, go on by one event."""
        self._take(event, offset)

    def viewer(self, viewer_id: str, now: float) -> ViewerState | None:
        """The viewer's state at `now`; None for who has not come before, or not for so long as to be forgotten."""
        fold = self._folds.get(viewer_id)
        return None if fold is None else unexpired(fold.state(), now, self._ttl_s)

    def _take(self, event: ViewerEvent, offset: int) -> WeightedEvent | None:
        if (row := positive_row(event, self._catalog)) is not None:
            self._acted[event.viewer_id].add(row)
        fold = self._folds.get(event.viewer_id)
        if fold is None:
            fold = self._folds[event.viewer_id] = ViewerFold(ViewerState(event.viewer_id), self._ttl_s)
        return fold.apply(LoggedEvent("replay", offset, event))

    def acted(self, viewer_id: str) -> I32:
        """[M] catalogue rows the viewer has acted on, ever: a state remembers only the latest."""
        return np.array(sorted(self._acted.get(viewer_id, ())), np.int32)

    def stats(self, now: float) -> ItemStats:
        """Item counts as they weigh at `now`."""
        return self._stats.at(now)


def replay_events(replay: StateReplay, events: Iterable[ViewerEvent], offset: int) -> None:
    """Let the viewers' own states go on by these events, placed from `offset` on; item counts stay as they are."""
    for place, event in enumerate(events, start=offset):
        replay.register(event, place)
