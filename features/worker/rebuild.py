"""The online store made anew from what is remembered: from the event log, or from the stream itself.

The worker's own fold does it, in the order of the log and guarded by the same offsets, so the store is what it was,
byte for byte. A mark stands in the store until it is done: workers that run wait (`features.worker.rebuild_fence`), and
none starts on a store that was rebuilt by half.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from features.events.dead_letters import DeadLetter
from features.events.stream.port import Message, Stream
from features.history.event_log import EventLog
from features.state.codec import decode_item, decode_viewer
from features.state.exposure_counts import is_stale
from features.state.fold import FOREVER
from features.state.keys import COUNTS, ITEMS, REBUILD_IN_PROGRESS, REBUILD_STARTED, TRAFFIC, VIEWERS
from features.state.online.port import OnlineStore
from features.state.quarantine import discard
from features.state.votes import LoggedEvent
from features.worker.worker import Worker, read
from recsys.domain.decay import is_expired

STATE_PREFIXES = (VIEWERS, ITEMS, COUNTS, TRAFFIC)
"""Prefixes of the keys that are made from events."""

BATCH = 20_000
_AT_ONCE = 2_000


def rebuild(
    worker: Worker,
    online: OnlineStore,
    sources: Iterable[Iterator[LoggedEvent]],
    now: float,
    ttl_s: float,
    report: Callable[[int], None] = lambda events: None,
    item_ttl_s: float = FOREVER,
) -> int:
    """Wipe the store and fold these sources into it, each in offset order; returns how many events there were.

    Damaged states that were set aside are mended by that, and forgotten with it. Viewers who are idle for longer than
    `ttl_s` at unix second `now` are not remembered, as online, nor items for longer than `item_ttl_s`. `report` is told
    how many events are done. Raises Unavailable; then it must be done again.
    """
    online.put({REBUILD_IN_PROGRESS: b"1"})
    clear_store(online)
    events = refold(worker, sources, report)
    expire_idle(online, now, ttl_s, item_ttl_s)
    discard(online)
    online.put({REBUILD_STARTED: repr(now).encode()})
    online.delete([REBUILD_IN_PROGRESS])
    return events


def refold(
    worker: Worker, sources: Iterable[Iterator[LoggedEvent]], report: Callable[[int], None] = lambda events: None
) -> int:
    """Fold all of these sources, each in offset order; returns how many events there were."""
    events = 0
    for source in sources:
        while batch := list(islice(source, BATCH)):
            worker.refold(batch)
            report(events := events + len(batch))
    return events


def from_log(log: EventLog) -> Iterator[Iterator[LoggedEvent]]:
    """The sources of an event log, listed when the first is asked for: after the mark, or one that a worker began
    meanwhile would be missing. Raises Unavailable."""
    for source in log.sources():
        yield log.by_offset(source)


def from_stream(
    stream: Stream, log: EventLog, topic: str, dead: Callable[[DeadLetter], None], name: str | None = None
) -> Iterator[Iterator[LoggedEvent]]:
    """The partitions of a stream, from their first message to the last there is now; what cannot be read goes to
    `dead`, and what the log has lost is appended to it. `name` as `Worker.log_name` says it, else the
    topic's."""
    partitions = range(stream.partitions(topic))
    return (_partition(stream, log, topic, number, dead, name or topic) for number in partitions)


def _partition(
    stream: Stream, log: EventLog, topic: str, number: int, dead: Callable[[DeadLetter], None], name: str
) -> Iterator[LoggedEvent]:
    offset = 0
    while messages := stream.read(topic, number, offset, BATCH):
        offset = messages[-1].offset + 1
        yield from _read(messages, log, dead, name)
        if len(messages) < BATCH:  # its end: a broker would be waited for once more, to say that nothing came
            break


def _read(messages: list[Message], log: EventLog, dead: Callable[[DeadLetter], None], name: str) -> list[LoggedEvent]:
    placed, letters = read(messages, name)
    for one in letters:
        dead(one)
    if placed:
        log.append(placed[0].source, messages[0].offset, messages[-1].offset, placed)
    return log.erasures.without_erased(placed)


def clear_store(online: OnlineStore) -> None:
    """Forget all that is made from events. Raises Unavailable."""
    for prefix in STATE_PREFIXES:
        _delete(online, (key for key, _ in online.scan(prefix)))


def expire_idle(online: OnlineStore, now: float, ttl_s: float, item_ttl_s: float = FOREVER) -> None:
    """Let go of viewers whom a page at unix second `now` would not remember, of items likewise, and of traffic that is
    too old for a forecast. Raises Unavailable, StateError."""
    for prefix in (VIEWERS, ITEMS, TRAFFIC):
        _delete(online, (key for key, raw in online.scan(prefix) if is_idle(prefix, raw, now, ttl_s, item_ttl_s)))


def is_idle(prefix: str, raw: bytes, now: float, ttl_s: float, item_ttl_s: float) -> bool:
    """Whether the online store may have let go of a state of this kind by unix second `now`. Raises StateError."""
    if prefix == VIEWERS:
        return is_expired(decode_viewer(raw).at, now, ttl_s)
    if prefix == ITEMS:
        return is_expired(decode_item(raw).at, now, item_ttl_s)
    return prefix == TRAFFIC and is_stale(raw, now)


def _delete(online: OnlineStore, keys: Iterator[str]) -> None:
    for some in iter(lambda: list(islice(keys, _AT_ONCE)), []):
        online.delete(some)
