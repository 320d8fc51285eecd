"""All that is held of one viewer: written out for whoever asks, and erased for good.

Erasing, step by step, each of which may be interrupted and done again:

1. the erasure is remembered, by hash, in the log and in the online store (`features.history.erasures`): from now on no
   reader of the log shows the viewer, no worker folds or appends what the viewer did before, nor does a rebuild;
2. the viewer's state leaves the online store, and whatever damaged state of the viewer was set aside there. A worker
   that had it in hand sees after writing it that the viewer was erased meanwhile, takes it away and folds its batch
   again (`features.worker.worker`);
3. every file of the log that names the viewer is written anew without those events.

4. the viewer's messages leave the stream and its dead letters, where the stream can (the SQLite one), as far as every
   group is done with them. A message that names the viewer and bears another's key is found by its dead letter; what
   was not folded yet leaves no letter when its turn comes.

What is left: in counts of items, which name nobody, what the viewer added, until it has decayed or the store is
rebuilt; in a broker, and of what was not folded yet in the SQLite stream, the messages themselves, until their
retention ends (`--stream-days`), read by nobody; so long a dead letter whose message did not say whose it was, and a
message under another's key that was not folded yet or whose letter has left; and in the spool's files, for a day, what
it has delivered.
Training sets are made from the log each time and are not kept; a bundle holds factors of items and a probe of features,
and no ids of viewers. A Redis that writes an append-only file forgets in it at its next rewrite (`BGREWRITEAOF`).
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
from features.history.erasures import hashed
from features.history.event_log import EventLog
from features.state.codec import StateError, viewer_at, viewer_key
from features.state.online.port import OnlineStore
from features.state.quarantine import discard, quarantined
from features.state.vote_history import RECORD

_STATE_PREFIXES = """
    SELECT * FROM log WHERE viewer_id = $viewer
    QUALIFY row_number() OVER (PARTITION BY source, "offset") = 1 ORDER BY "at", source, "offset"
"""


@dataclass(frozen=True)
class ErasureReport:
    """What an erasure did: whether there was a state online, events in the log, files that were written anew, and
    messages left in the stream (None: the stream keeps all until its retention ends)."""

    state: bool
    events: int
    files: int
    left: int | None = None


def export_viewer(
    log: EventLog, online: OnlineStore, viewer_id: str, *, stream: Stream | None = None, topic: str = ""
) -> Iterator[bytes]:
    """JSON objects, one a line: the state (`{"state": ...}`, null when there is none), what is held in its place
    though nobody can read it (`{"damaged": ...}`, its bytes in base64), messages of the viewer that were set aside
    (`{"dead": ...}`; of this topic, if the stream is given), then each event of the log (`{"event": ...}`, a
    CloudEvent, with its `source` and `offset`). Raises Unavailable."""
    key = viewer_key(viewer_id)
    raw = online.get([key])[0]
    state, unread = None, [{"cause": one.cause, "at": one.at, "raw": one.raw} for one in quarantined(online, key)]
    try:
        state = None if raw is None else msgspec.structs.asdict(viewer_at(key, raw))
    except StateError as error:
        unread.append({"cause": str(error), "raw": raw})
    if state is not None:
        for ids in ("seen_ids", "passed_ids"):
            state[ids] = len(state[ids]) // DIGEST_BYTES  # hashes of ids of events that follow
        state["voted"] = len(state["voted"]) // RECORD  # days and items of the same events
    dead = (
        []
        if stream is None
        else [one for one in read_dead_letters(stream, topic) if viewer_of_dead_letter(one) == viewer_id]
    )
    yield msgspec.json.encode({"state": state}) + b"\n"
    yield from (msgspec.json.encode({"damaged": one}) + b"\n" for one in unread)
    yield from (msgspec.json.encode({"dead": one}) + b"\n" for one in dead)
    for one in logged_events(with_all_columns(log.query(_STATE_PREFIXES, {"viewer": viewer_id}))):
        event = msgspec.Raw(encode(one.event, checked=True))  # as it was taken, whatever is taken today
        yield msgspec.json.encode({"event": event, "source": one.source, "offset": one.offset}) + b"\n"


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
    """Forget all that the viewer did up to unix second `now`, in this topic's messages as well if the stream is given;
    `group`: of the workers. Raises Unavailable; then it must be said again."""
    key = viewer_key(viewer_id)
    held = online.get([key])[0] is not None
    found = log.query('SELECT count(*) AS n FROM log WHERE viewer_id = $viewer AND "at" <= $now',
                      {"viewer": viewer_id, "now": now})  # fmt: skip
    events = int(found["n"][0].as_py())
    log.erased.add(hashed(viewer_id), now, held=held or events > 0)
    log.erased.agree_with(online)
    online.delete([key])
    discard(online, [key])
    files, left = purge(log, viewer_id), None
    if files and not (held or events):  # what was folded while this began
        log.erased.add(hashed(viewer_id), now)
    if stream is not None and (retention := stream.retention) is not None:
        left = retention.delete_key(topic, viewer_id, [group])
        left += delete_dead_letters(stream, retention, topic, viewer_id, [group])
    return ErasureReport(held, events, files, left)
