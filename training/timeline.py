"""The event log in time order and its temporal splits: a model for some point in time uses only earlier events."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter

from tqdm import tqdm

from features.events.schema import ViewerEvent, actions_of, counts_for_items, is_engine_impression
from features.history.event_log import EventLog
from recsys.domain.catalog import Catalog
from recsys.domain.decay import TTL_S
from recsys.domain.errors import InvalidInput


@dataclass(frozen=True)
class Timeline:
    """Events sorted by server time, without duplicates; the first occurrence of an event is the one that counts."""

    events: tuple[ViewerEvent, ...]
    ttl_s: float = TTL_S  # idle time after which a viewer's state expires

    @classmethod
    def of(cls, events: Iterable[ViewerEvent], ttl_s: float = TTL_S) -> Timeline:
        """Sort the events (stably) and drop repeated ids of the same viewer."""
        first: dict[tuple[str, str], ViewerEvent] = {}
        for event in sorted(events, key=attrgetter("at")):
            first.setdefault((event.viewer_id, event.id), event)
        return cls(tuple(first.values()), ttl_s)

    def index(self, at: float) -> int:
        """Return the number of events strictly before unix second `at`."""
        return bisect_left(self.events, at, key=attrgetter("at"))

    def before(self, at: float) -> tuple[ViewerEvent, ...]:
        """Return the events strictly before unix second `at`."""
        return self.events[: self.index(at)]

    def since(self, at: float) -> tuple[ViewerEvent, ...]:
        """Return the events from unix second `at` on."""
        return self.events[self.index(at) :]

    @property
    def end(self) -> float:
        """A time after all events, in unix seconds. Raises InvalidInput when there are none."""
        if not self.events:
            raise InvalidInput("the event log is empty: there is nothing to train on")
        return self.events[-1].at + 1.0

    def cut(self, share: float) -> float:
        """Return the unix second that splits off about the newest `share` of all actions; `share` is in (0, 1).

        Raises InvalidInput when the log is too small to be split there.
        """
        times = [event.at for event in self.events if actions_of(event)]
        if not times:
            raise InvalidInput("there is nothing to train on yet: the event log holds no action of a viewer")
        first = int(len(times) * (1.0 - share))
        if first >= len(times) or times[first] == times[0]:
            raise InvalidInput(f"an event log of {len(times)} actions cannot be split at its newest {share:.0%}")
        return times[first]


def read_timeline(log: EventLog, until: float | None = None, progress: bool = False, ttl_s: float = TTL_S) -> Timeline:
    """Read the events before unix second `until` from the log.

    `ttl_s` is the idle time after which a viewer's state expires, as in the worker and in serving. Raises Unavailable
    when the log cannot be read.
    """
    events = log.replay() if until is None else log.replay(until=until)
    events_read = tqdm(events, "event log", unit="event", leave=False, disable=not progress)
    return Timeline.of((logged.event for logged in events_read), ttl_s)


def count_for_items(events: Iterable[ViewerEvent]) -> Iterator[bool]:
    """Yield for each event, in time order, whether it counts: models must not learn from invented viewers."""
    served: set[str] = set()
    for event in events:
        if is_engine_impression(event):
            served.add(event.viewer_id)
        yield counts_for_items(event, event.viewer_id in served)


def positive_row(event: ViewerEvent, catalog: Catalog) -> int | None:
    """Return the catalog row of the item of an action; None for other events and for items missing from the catalog."""
    return catalog.row_of.get(event.item_id) if event.item_id is not None and actions_of(event) else None
