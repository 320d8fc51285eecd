"""Rebuild the online store from the event log or from the stream itself.

The worker's own fold does the work, in log order and guarded by the same offsets, so the result equals the original
store byte for byte. A marker stays in the store until the rebuild has finished: running workers wait for it
(`features.worker.rebuild_fence`), and no worker starts on a partially rebuilt store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice

from features.events.dead_letters import DeadLetter
from features.events.stream.port import Message, Stream
from features.history.event_log import EventLog
from features.state.codec import StateError, decode_item, decode_viewer
from features.state.exposure_counts import is_stale
from features.state.fold import FOREVER
from features.state.keys import COUNTS, ITEMS, REBUILD_IN_PROGRESS, TRAFFIC, VIEWERS
from features.state.online.port import OnlineStore
from features.state.quarantine import discard
from features.state.votes import LoggedEvent
from features.worker.rebuild_fence import mark_rebuilt
from features.worker.worker import Worker, decode_messages
from recsys.domain.decay import is_expired

STATE_PREFIXES = (VIEWERS, ITEMS, COUNTS, TRAFFIC)
"""Prefixes of the keys whose values are derived from events."""

BATCH = 20_000
_DELETE_BATCH = 2_000


def rebuild(
    worker: Worker,
    online: OnlineStore,
    sources: Iterable[Iterator[LoggedEvent]],
    now: float,
    ttl_s: float,
    report: Callable[[int], None] = lambda events: None,
    item_ttl_s: float = FOREVER,
) -> int:
    """Wipe the store, fold the sources into it, each in offset order, and return the number of events.

    This repairs quarantined states and clears the quarantine. As online, viewers who have been idle for longer than
    `ttl_s` at unix second `now` are removed, and items that have been idle for longer than `item_ttl_s`. `report` is
    called with the number of events folded so far. Raises Unavailable; the rebuild must then be run again.
    """
    online.put({REBUILD_IN_PROGRESS: b"1"})
    clear_store(online)
    events = refold(worker, sources, report)
    expire_idle(online, now, ttl_s, item_ttl_s)
    discard(online)
    mark_rebuilt(online, now)
    return events


def refold(
    worker: Worker, sources: Iterable[Iterator[LoggedEvent]], report: Callable[[int], None] = lambda events: None
) -> int:
    """Fold all sources, each in offset order, and return the number of events."""
    events = 0
    for source in sources:
        while batch := list(islice(source, BATCH)):
            worker.refold(batch)
            report(events := events + len(batch))
    return events


def from_log(log: EventLog) -> Iterator[Iterator[LoggedEvent]]:
    """Yield the sources of an event log.

    Sources are listed when the first is requested: that is after the rebuild marker was set, so a source that a
    running worker has just begun is included. Raises Unavailable.
    """
    for source in log.sources():
        yield log.by_offset(source)


def from_stream(
    stream: Stream,
    log: EventLog,
    topic: str,
    on_dead_letter: Callable[[DeadLetter], None],
    name: str | None = None,
) -> Iterator[Iterator[LoggedEvent]]:
    """Yield the partitions of a stream, each from its first message to its current end.

    Unreadable messages go to `on_dead_letter`, and events that the event log lacks are appended to it. `name` is the
    result of `Worker.log_name`; the default is the topic.
    """
    partitions = range(stream.partitions(topic))
    return (_read_partition(stream, log, topic, number, on_dead_letter, name or topic) for number in partitions)


def _read_partition(
    stream: Stream, log: EventLog, topic: str, number: int, on_dead_letter: Callable[[DeadLetter], None], name: str
) -> Iterator[LoggedEvent]:
    offset = 0
    while messages := stream.read(topic, number, offset, BATCH):
        offset = messages[-1].offset + 1
        yield from _decode_and_append(messages, log, on_dead_letter, name)
        if len(messages) < BATCH:  # the end of the partition: another read would wait for the broker to return nothing
            break


def _decode_and_append(
    messages: list[Message], log: EventLog, on_dead_letter: Callable[[DeadLetter], None], name: str
) -> list[LoggedEvent]:
    events, dead_letters = decode_messages(messages, name)
    for dead_letter in dead_letters:
        on_dead_letter(dead_letter)
    if events:
        log.append(events[0].source, messages[0].offset, messages[-1].offset, events)
    return log.erasures.without_erased(events)


def clear_store(online: OnlineStore) -> None:
    """Delete all state derived from events. Raises Unavailable."""
    for prefix in STATE_PREFIXES:
        _delete(online, (key for key, _ in online.scan(prefix)))


def expire_idle(online: OnlineStore, now: float, ttl_s: float, item_ttl_s: float = FOREVER) -> None:
    """Delete viewers and items that have expired at unix second `now`, and traffic too old to forecast from.

    Raises Unavailable.
    """
    for prefix in (VIEWERS, ITEMS, TRAFFIC):
        _delete(online, (key for key, raw in online.scan(prefix) if is_idle(prefix, raw, now, ttl_s, item_ttl_s)))


def is_idle(prefix: str, raw: bytes, now: float, ttl_s: float, item_ttl_s: float) -> bool:
    """Return whether the online store may have dropped this state by unix second `now`; False for a corrupt state."""
    with suppress(StateError):
        if prefix == VIEWERS:
            return is_expired(decode_viewer(raw).at, now, ttl_s)
        if prefix == ITEMS:
            return is_expired(decode_item(raw).at, now, item_ttl_s)
        return prefix == TRAFFIC and is_stale(raw, now)
    return False


def _delete(online: OnlineStore, keys: Iterator[str]) -> None:
    while batch := list(islice(keys, _DELETE_BATCH)):
        online.delete(batch)
