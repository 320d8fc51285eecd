"""The log played again: at any point of it, what serving would have remembered then, by the same folds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from features.events import ViewerEvent
from features.fold import Placed, fold_viewer
from features.stats import StatsColumns
from recsys.catalog import Catalog
from recsys.state import ItemStats, ViewerState
from recsys.types import I32
from training.dataset import Timeline, acted_row


class Replay:
    """A cursor that only moves forward. Viewers are folded when asked for: most are never looked at."""

    def __init__(self, timeline: Timeline, catalog: Catalog) -> None:
        self._events, self._catalog, self._next = timeline.events, catalog, 0
        self._stats = StatsColumns(catalog)
        self._states: dict[str, ViewerState] = {}
        self._waiting: dict[str, list[Placed]] = defaultdict(list)
        self._acted: dict[str, set[int]] = defaultdict(set)

    def advance(self, index: int) -> None:
        """Remember every event before position `index` of the timeline, and nothing from it on."""
        for offset in range(self._next, index):
            event = self._events[offset]
            self._stats.add(event)
            self.remember(event, offset)
        self._next = max(self._next, index)

    def remember(self, event: ViewerEvent, offset: int) -> None:
        """Let the viewer's own state, but no item's, go on by one event."""
        self._waiting[event.viewer_id].append(Placed("replay", offset, event))
        if (row := acted_row(event, self._catalog)) is not None:
            self._acted[event.viewer_id].add(row)

    def viewer(self, viewer_id: str) -> ViewerState | None:
        """The viewer's state; None for who has not come before."""
        if waiting := self._waiting.pop(viewer_id, None):
            before = self._states.get(viewer_id) or ViewerState(viewer_id)
            self._states[viewer_id] = fold_viewer(before, waiting)
        return self._states.get(viewer_id)

    def acted(self, viewer_id: str) -> I32:
        """[M] catalogue rows the viewer has acted on, ever: a state remembers only the latest."""
        return np.array(sorted(self._acted.get(viewer_id, ())), np.int32)

    def stats(self, now: float) -> ItemStats:
        """Item counts as they weigh at `now`."""
        return self._stats.at(now)


def follow(replay: Replay, events: Iterable[ViewerEvent], offset: int) -> None:
    """Let the viewers' own states go on by these events, placed from `offset` on; item counts stay as they are."""
    for place, event in enumerate(events, start=offset):
        replay.remember(event, place)
