"""The online store against a replay of the log: each difference by name.

A worker that runs meanwhile makes differences of its own: verify when none does, or when all is folded.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import msgspec

from features.codec import ITEMS, VIEWERS, StateError, decode_item, decode_viewer
from features.exposure import TRAFFIC, outdated
from features.offline.log import EventLog
from features.online import OnlineStore
from features.online.memory import MemoryStore
from features.worker.rebuild import BATCH, HELD, forget_idle, from_log
from features.worker.worker import Worker
from recsys.state import forgotten


def replayed(log: EventLog, worker: Worker, into: MemoryStore, now: float, ttl_s: float) -> int:
    """Fold the whole log by a worker that writes into a store in memory; how many events there were."""
    events = 0
    for source in from_log(log):
        while batch := list(islice(source, BATCH)):
            worker.refold(batch)
            events += len(batch)
    forget_idle(into, now, ttl_s)
    return events


def differences(online: OnlineStore, replay: OnlineStore, now: float, ttl_s: float) -> Iterator[tuple[str, str]]:
    """(key, what differs) for all that is made from events; viewers who are forgotten at `now` count as missing."""
    for prefix in HELD:
        expected = dict(replay.scan(prefix))
        for key, raw in online.scan(prefix):
            wanted = expected.pop(key, None)
            if raw == wanted:
                continue
            if wanted is not None:
                yield key, _differs(prefix, raw, wanted)
            elif not ((prefix == VIEWERS and _idle(raw, now, ttl_s)) or (prefix == TRAFFIC and outdated(raw, now))):
                yield key, "is not in the replay"
        for key in sorted(expected):
            yield key, "is missing online"


def _idle(raw: bytes, now: float, ttl_s: float) -> bool:
    try:
        return forgotten(decode_viewer(raw).at, now, ttl_s)
    except StateError:
        return False


def _differs(prefix: str, raw: bytes, wanted: bytes) -> str:
    """The fields that differ, of states that can be read."""
    decode = {VIEWERS: decode_viewer, ITEMS: decode_item}.get(prefix)
    if decode is None:
        return "differs"
    try:
        one, other = msgspec.structs.asdict(decode(raw)), msgspec.structs.asdict(decode(wanted))
    except StateError as error:
        return str(error)
    fields = [name for name in one if one[name] != other[name]]
    return "differs in " + ", ".join(fields) if fields else "is the same state in other bytes"
