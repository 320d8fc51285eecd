"""The online store against a replay of the log: each difference by name.

A worker that runs meanwhile makes differences of its own: verify when none does, or when all is folded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from features.history.event_log import EventLog
from features.state.codec import StateError, decode_item, decode_viewer
from features.state.exposure_counts import decode_count, decode_traffic
from features.state.fold import FOREVER
from features.state.keys import COUNTS, ITEMS, TRAFFIC, VIEWERS
from features.state.online.memory import MemoryStore
from features.state.online.port import OnlineStore
from features.worker.rebuild import STATE_PREFIXES, expire_idle, from_log, is_idle, refold
from features.worker.worker import Worker

_DECODE = {VIEWERS: decode_viewer, ITEMS: decode_item, COUNTS: decode_count, TRAFFIC: decode_traffic}


def replay_log(
    log: EventLog,
    worker: Worker,
    into: MemoryStore,
    now: float,
    ttl_s: float,
    item_ttl_s: float = FOREVER,
    report: Callable[[int], None] = lambda events: None,
) -> int:
    """Fold the whole log with a worker that writes into a store in memory, and return the number of events.

    report  receives the number of events so far
    """
    events = refold(worker, from_log(log), report)
    expire_idle(into, now, ttl_s, item_ttl_s)
    return events


def find_differences(
    online: OnlineStore, replay: OnlineStore, now: float, ttl_s: float, item_ttl_s: float = FOREVER
) -> Iterator[tuple[str, str]]:
    """(key, what differs) for all that is made from events; viewers and items that are forgotten at `now` count as
    missing."""
    for prefix in STATE_PREFIXES:
        expected = dict(replay.scan(prefix))
        for key, raw in online.scan(prefix):
            wanted = expected.pop(key, None)
            if raw == wanted:
                continue
            if wanted is not None:
                yield key, _differs(prefix, raw, wanted)
            elif not _is_expired(prefix, raw, now, ttl_s, item_ttl_s):
                yield key, "is not in the replay"
        for key in sorted(expected):
            yield key, "is missing online"


def _is_expired(prefix: str, raw: bytes, now: float, ttl_s: float, item_ttl_s: float) -> bool:
    try:
        return is_idle(prefix, raw, now, ttl_s, item_ttl_s)
    except StateError:
        return False


def _differs(prefix: str, raw: bytes, wanted: bytes) -> str:
    """The fields that differ, of states that can be read."""
    decode: Callable[[bytes], Any] = _DECODE[prefix]
    try:
        one, other = msgspec.structs.asdict(decode(raw)), msgspec.structs.asdict(decode(wanted))
    except StateError as error:
        return str(error)
    fields = [name for name in one if one[name] != other[name]]
    return "differs in " + ", ".join(fields) if fields else "is the same state in other bytes"
