"""The data of one viewer: export on request, and permanent erasure.

An erasure has the following steps. Each step can be interrupted and repeated.

1. The erasure is recorded, by hash, in the log and in the online store (`features.history.erasures`). From then on no
   reader of the log returns the viewer's earlier events, and no worker and no rebuild folds or appends them.
2. The viewer's state and quarantined states are deleted from the online store. A worker that was folding the viewer
   notices the erasure after its write, deletes the state and refolds its batch (`features.worker.worker`).
3. Every file of the log that contains events of the viewer is rewritten without them. Damaged files cannot be searched;
   the report names them, so that they can be deleted.
4. The viewer's messages are deleted from the stream, with their dead letters, where the stream supports it (SQLite) and
   as far as every consumer group has processed them. A message about the viewer under another key is found by its dead
   letter. A message that is not folded yet leaves no dead letter when it is processed.

The following data remain:

* Item counts, which name no viewer, include the viewer's contributions until they decay or the store is rebuilt.
* A broker keeps the messages until their retention ends, and the SQLite stream keeps unprocessed messages until then
  (`--stream-days`). Nothing reads them.
* For the same time, the stream keeps a dead letter whose message did not name its viewer, and a message under another
  key that is not folded yet or whose dead letter has expired.
* The files of the spool keep delivered messages for a day.

Training sets are built from the log each time and not stored. A model bundle holds item factors and sample features,
but no viewer ids. A Redis with an append-only file removes deleted data from it at the next rewrite (`BGREWRITEAOF`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from features.events.dead_letters import delete_dead_letters, read_dead_letters, viewer_of_dead_letter
from features.events.decode import encode
from features.events.identity import DIGEST_BYTES
from features.events.stream.port import Stream
from features.history.arrow_schema import logged_events, with_all_columns
from features.history.compaction import purge
from features.history.erasures import viewer_hash
from features.history.event_log import EventLog
from features.state.codec import StateError, viewer_at, viewer_key
from features.state.online.port import OnlineStore
from features.state.quarantine import discard, quarantined
from features.state.vote_history import RECORD_BYTES

_VIEWER_EVENTS = """
    SELECT * FROM log WHERE viewer_id = $viewer
    QUALIFY row_number() OVER (PARTITION BY source, "offset") = 1 ORDER BY "at", source, "offset"
"""


@dataclass(frozen=True)
class ErasureReport:
    """The result of an erasure.

    had_state      whether the online store had a state
    events         number of events in the log
    files          number of files of the log that were rewritten
    messages_left  number of messages left in the stream; None if the stream keeps all until their retention ends
    damaged_files  damaged files of the log, in quarantine, that could not be searched and may hold events of the viewer
    """

    had_state: bool
    events: int
    files: int
    messages_left: int | None = None
    damaged_files: tuple[str, ...] = ()


def export_viewer(
    log: EventLog, online: OnlineStore, viewer_id: str, *, stream: Stream | None = None, topic: str = ""
) -> Iterator[bytes]:
    """Yield the data of a viewer as JSON objects, one per line. Raises Unavailable.

    {"state": ...}          the viewer's state, null if there is none
    {"corrupt_state": ...}  bytes of a corrupt state, in base64, with the cause
    {"dead_letter": ...}    a dead letter of the viewer in this topic, if the stream is given
    {"event": ...}          an event of the log as a CloudEvent, with its `source` and `offset`
    {"damaged_file": ...}   the name of a damaged file of the log, whose events are missing here
    """
    key = viewer_key(viewer_id)
    raw = online.get([key])[0]
    state, corrupt = (
        None,
        [{"cause": entry.cause, "at": entry.at, "raw": entry.raw} for entry in quarantined(online, key)],
    )
    try:
        state = None if raw is None else msgspec.structs.asdict(viewer_at(key, raw))
    except StateError as error:
        corrupt.append({"cause": str(error), "raw": raw})
    if state is not None:
        for field in ("seen_ids", "seen_event_ring"):
            state[field] = len(state[field]) // DIGEST_BYTES  # the number of digests; the events follow
        state["vote_history"] = len(state["vote_history"]) // RECORD_BYTES  # the number of records of the same events
    dead_letters = (
        []
        if stream is None
        else [entry for entry in read_dead_letters(stream, topic) if viewer_of_dead_letter(entry) == viewer_id]
    )
    yield msgspec.json.encode({"state": state}) + b"\n"
    yield from (msgspec.json.encode({"corrupt_state": entry}) + b"\n" for entry in corrupt)
    yield from (msgspec.json.encode({"dead_letter": entry}) + b"\n" for entry in dead_letters)
    for entry in logged_events(with_all_columns(log.query(_VIEWER_EVENTS, {"viewer": viewer_id}))):
        event = msgspec.Raw(encode(entry.event, checked=True))  # accepted once, so not validated against today's rules
        yield msgspec.json.encode({"event": event, "source": entry.source, "offset": entry.offset}) + b"\n"
    yield from (msgspec.json.encode({"damaged_file": path.name}) + b"\n" for path in log.damaged.quarantined())


def erase_viewer(
    log: EventLog,
    online: OnlineStore,
    viewer_id: str,
    now: float,
    *,
    stream: Stream | None = None,
    topic: str = "",
    group: str = "",
) -> ErasureReport:
    """Erase the viewer's data up to unix second `now`, including the messages of this topic if the stream is given.

    `group` is the consumer group of the workers. Raises Unavailable, in which case the call must be repeated.
    """
    key = viewer_key(viewer_id)
    was_online = online.get([key])[0] is not None
    table = log.query('SELECT count(*) AS n FROM log WHERE viewer_id = $viewer AND "at" <= $now',
                      {"viewer": viewer_id, "now": now})  # fmt: skip
    events = int(table["n"][0].as_py())
    log.erasures.add(viewer_hash(viewer_id), now, had_data=was_online or events > 0)
    log.erasures.sync_with(online)
    online.delete([key])
    discard(online, [key])
    files, messages_left = purge(log, viewer_id), None
    if files and not (was_online or events):  # events that were folded since the check above
        log.erasures.add(viewer_hash(viewer_id), now)
    if stream is not None and (retention := stream.retention) is not None:
        messages_left = retention.delete_key(topic, viewer_id, [group])
        messages_left += delete_dead_letters(stream, retention, topic, viewer_id, [group])
    damaged_files = tuple(path.name for path in log.damaged.quarantined())
    return ErasureReport(was_online, events, files, messages_left, damaged_files)
