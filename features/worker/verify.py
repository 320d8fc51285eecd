"""Compare the online store with a replay of the event log and report each difference by key.

A running worker causes differences of its own: verify while no worker runs, or after all messages have been folded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from features.checksum import unseal
from features.history.event_log import EventLog
from features.state.codec import StateError, decode_item, decode_viewer, unframe
from features.state.exposure_counts import decode_count, decode_traffic
from features.state.fold import FOREVER
from features.state.keys import (
    COUNTS,
    ERASURES,
    ITEMS,
    LOG_EPOCHS,
    PACING,
    QUARANTINE,
    REBUILD_STARTED,
    TRAFFIC,
    VIEWERS,
)
from features.state.online.memory import MemoryStore
from features.state.online.port import OnlineStore
from features.worker.rebuild import STATE_PREFIXES, expire_idle, from_log, is_idle, refold
from features.worker.worker import Worker
from recsys.domain.errors import DamagedData

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
    """Fold the whole log into `into`, the in-memory store that `worker` writes to; return the number of events.

    States that have been idle for longer than their TTL at unix second `now` are removed afterwards.
    report  receives the number of events so far
    """
    events = refold(worker, from_log(log), report)
    expire_idle(into, now, ttl_s, item_ttl_s)
    return events


def find_differences(
    online: OnlineStore, replay: OnlineStore, now: float, ttl_s: float, item_ttl_s: float = FOREVER
) -> Iterator[tuple[str, str]]:
    """Yield (key, difference) for all state derived from events.

    An idle state that has expired at unix second `now` may be in the online store or missing from it.
    """
    for prefix in STATE_PREFIXES:
        missing = dict(replay.scan(prefix))
        for key, raw in online.scan(prefix):
            expected = missing.pop(key, None)
            if raw == expected:
                continue
            if expected is not None:
                yield key, _difference(prefix, raw, expected)
            elif not is_idle(prefix, raw, now, ttl_s, item_ttl_s):
                yield key, "is not in the replay"
        for key in sorted(missing):
            yield key, "is missing online"


def find_damaged_values(online: OnlineStore) -> Iterator[tuple[str, str]]:
    """Yield (key, fault) for the damaged values that are not derived from events, so that no replay shows them."""
    checks: dict[str, Callable[[bytes], object]] = dict.fromkeys((PACING, QUARANTINE), unframe)
    checks |= dict.fromkeys((ERASURES, LOG_EPOCHS, REBUILD_STARTED), unseal)
    for prefix, check in checks.items():
        for key, raw in online.scan(prefix):
            try:
                check(raw)
            except DamagedData as error:
                yield key, str(error)


def _difference(prefix: str, raw: bytes, expected: bytes) -> str:
    """Return the names of the fields that differ, or the error if a state cannot be decoded."""
    decode: Callable[[bytes], Any] = _DECODE[prefix]
    try:
        actual_fields, expected_fields = (msgspec.structs.asdict(decode(state)) for state in (raw, expected))
    except StateError as error:
        return str(error)
    fields = [name for name in actual_fields if actual_fields[name] != expected_fields[name]]
    return "differs in " + ", ".join(fields) if fields else "is the same state with a different encoding"
