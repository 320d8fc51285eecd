"""The event log in time order, and where it is cut. Whatever is learned for a moment comes from before that moment."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter

from tqdm import tqdm

from features.events.schema import ViewerEvent, actions_of
from features.history.event_log import EventLog
from recsys.domain.catalog import Catalog
from recsys.domain.decay import TTL_S
from recsys.domain.errors import InvalidInput


@dataclass(frozen=True)
class Timeline:
    """Events in the order of their server time; an event that was sent twice stands here once, where it came first."""

    events: tuple[ViewerEvent, ...]
    ttl_s: float = TTL_S  # a viewer who was idle for longer had been forgotten

    @classmethod
    def of(cls, events: Iterable[ViewerEvent], ttl_s: float = TTL_S) -> Timeline:
        """Sorts (stably) and leaves out repeated ids of one viewer."""
        first: dict[tuple[str, str], ViewerEvent] = {}
        for event in sorted(events, key=attrgetter("at")):
            first.setdefault((event.viewer_id, event.id), event)
        return cls(tuple(first.values()), ttl_s)

    def index(self, at: float) -> int:
        """How many events lie strictly before unix second `at`."""
        return bisect_left(self.events, at, key=attrgetter("at"))

    def before(self, at: float) -> tuple[ViewerEvent, ...]:
        """The events strictly before `at`."""
        return self.events[: self.index(at)]

    def since(self, at: float) -> tuple[ViewerEvent, ...]:
        """The events from `at` on."""
        return self.events[self.index(at) :]

    @property
    def end(self) -> float:
        """The first moment after all events; raises InvalidInput when there are none."""
        if not self.events:
            raise InvalidInput("the event log is empty: there is nothing to train on")
        return self.events[-1].at + 1.0

    def cut(self, share: float) -> float:
        """The time from which on about the newest `share` of all actions happened; in (0, 1).

        Raises InvalidInput when the log is too small to be cut there.
        """
        times = [event.at for event in self.events if actions_of(event)]
        if not times:
            raise InvalidInput("nothing to learn from yet: no viewer has done anything in the event log")
        place = int(len(times) * (1.0 - share))
        if place >= len(times) or times[place] == times[0]:
            raise InvalidInput(f"an event log of {len(times)} actions cannot be split at its newest {share:.0%}")
        return times[place]


def read_timeline(log: EventLog, until: float | None = None, progress: bool = False, ttl_s: float = TTL_S) -> Timeline:
    """The log as of unix second `until`: what came later, or at that moment, might as well not have happened.

    `ttl_s`: after this long without an event a viewer is forgotten, as the worker and the pages do.

    Raises Unavailable when the log cannot be read.
    """
    placed = log.replay() if until is None else log.replay(until=until)
    seen = tqdm(placed, "event log", unit="event", leave=False, disable=not progress)
    return Timeline.of((one.event for one in seen), ttl_s)


def positive_row(event: ViewerEvent, catalog: Catalog) -> int | None:
    """Catalogue row of the item that was acted on; None for other events and for items the catalogue does not know."""
    return catalog.row_of.get(event.item_id) if event.item_id is not None and actions_of(event) else None
