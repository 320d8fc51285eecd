"""Repair damaged states when the worker reads them: quarantine the bytes and refold the state from the event log.

The log holds every committed event, since a worker appends before it commits. After a crash an uncommitted batch is
delivered again. It may be missing from the log although viewers' states contain it already and would treat its events
as duplicates. Therefore:

* Items, counts and traffic are refolded after the current batch was appended to the log. The refolded states include
  the batch, and their offsets keep its events from counting twice.
* Viewers are refolded without the current batch. It is folded into them next and counts for items again, whose offsets
  keep its events from counting twice.
* If the end of such a batch may still be delivered in a later step, the refolded item, count or traffic state is not
  marked as repaired. No state is while the log has damaged files, whose events are missing.

A state of a newer version is not touched: the worker stops.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import msgspec

from features.history.arrow_schema import logged_events
from features.history.event_log import EventLog
from features.state.codec import NewerState, StateError
from features.state.keys import COUNTS, ITEMS, TRAFFIC, VIEWERS
from features.state.online.memory import MemoryStore
from features.state.online.port import OnlineStore
from features.state.quarantine import CorruptState, discard, quarantine
from features.state.votes import LoggedEvent
from recsys.domain.viewer import ViewerState

EVENTS_MAX = 200_000
"""Maximum number of events refolded in one step of the worker; they take about ten seconds."""

SECONDS_MAX = 20.0
"""Time limit for repairs in one step, from its first damaged state. No query or refold batch starts after it."""

logger = logging.getLogger(__name__)
S = TypeVar("S")

_REQUESTED = """
    CREATE TEMP TABLE requested AS SELECT unnest($keys) AS key, unnest($names) AS name, unnest($sources) AS source,
      unnest($days) AS day, unnest($quoted) AS quoted
"""
_CONTRIBUTORS = {
    VIEWERS: "SELECT key, name AS viewer_id FROM requested",
    ITEMS: """SELECT key, viewer_id FROM requested JOIN (
        SELECT source, viewer_id, unnest(list_append(coalesce("items", []), item_id)) AS name FROM log
      ) USING (source, name)""",
    COUNTS: """SELECT key, viewer_id FROM requested JOIN log USING (source)
      WHERE kind = 'impression' AND contains(context, quoted)""",
    TRAFFIC: """SELECT key, viewer_id FROM requested JOIN (
        SELECT source, viewer_id, placement || '|' || coalesce(region, '') AS name,
          floor("at" / 86400)::BIGINT AS day FROM log WHERE kind = 'impression' AND context != ''
      ) USING (source, name, day)""",
}
"""Queries for the viewers whose events contributed to a state, by key prefix."""

_AFFORDABLE = """
    CREATE TEMP TABLE affordable AS
    WITH event_counts AS (SELECT viewer_id, count(*) AS n FROM log SEMI JOIN contributors USING (viewer_id)
      GROUP BY viewer_id),
    costs AS (SELECT key, coalesce(sum(n), 0) AS n FROM requested LEFT JOIN contributors USING (key)
      LEFT JOIN event_counts USING (viewer_id) GROUP BY key),
    ranked AS (SELECT key, row_number() OVER (ORDER BY n, key) AS priority FROM costs),
    first_uses AS (SELECT viewer_id, min(priority) AS priority FROM contributors JOIN ranked USING (key)
      GROUP BY viewer_id),
    added AS (SELECT priority, sum(n) AS n FROM first_uses JOIN event_counts USING (viewer_id) GROUP BY priority),
    summed AS (SELECT key, coalesce(sum(n) OVER (ORDER BY priority), 0)::BIGINT AS events
      FROM ranked LEFT JOIN added USING (priority))
    SELECT key, events FROM summed WHERE events <= $max_events
"""  # states that need the fewest events come first; a viewer's events are counted once
_EVENTS = """
    SELECT * REPLACE (CASE WHEN coalesce(context, '') = '' THEN ''
      ELSE json_object('repaired', true, 'targets', nullif(context, '') -> '$.targets')::VARCHAR END AS context)
    FROM log SEMI JOIN (SELECT viewer_id FROM contributors SEMI JOIN affordable USING (key)) USING (viewer_id)
    QUALIFY row_number() OVER (PARTITION BY source, "offset") = 1 ORDER BY source, "offset"
"""  # only the part of a context that the fold reads: features would fill the memory
_BATCH = 20_000


class RepairBatch(NamedTuple):
    """The batch of the current step.

    first   by source: the first offset of the batch
    last    by source: the last offset of an event in the batch
    append  writes the batch to the event log
    """

    first: Mapping[str, int]
    last: Mapping[str, int]
    append: Callable[[], None]


class StateRepairer:
    """A reader of states that repairs the damaged ones, within a budget of events and seconds per step."""

    def __init__(
        self,
        online: OnlineStore,
        log: EventLog,
        make_fold: Callable[[OnlineStore], Callable[[Sequence[LoggedEvent]], None]],
        clock: Callable[[], float] = time.time,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        """Repair states of `online` from `log`.

        make_fold  returns a fold like the worker's that writes to the given store
        clock      unix seconds, for the quarantine
        elapsed    monotonic seconds, for the time limit
        """
        self._online, self._log, self._make_fold, self._clock, self._elapsed = online, log, make_fold, clock, elapsed
        self.begin()

    def begin(self, batch: RepairBatch | None = None) -> None:
        """Start a step with this batch and reset the budget for repairs."""
        self._events_left = EVENTS_MAX
        self._deadline: float | None = None
        self._batch, self._appended = batch, batch is None
        self._offsets_ahead: dict[str, int] = {}
        self._incomplete_sources: frozenset[str] = frozenset()

    def register(self, viewers: Iterable[ViewerState | None]) -> None:
        """Record by source the offsets that viewers' states had reached before the batch, if at its end or beyond."""
        last = self._batch.last if self._batch else {}
        for state in viewers:
            for source, offset in state.offsets.items() if state else ():
                if offset >= last.get(source, offset + 1):
                    self._offsets_ahead[source] = max(offset, self._offsets_ahead.get(source, -1))

    def read(self, values: Mapping[str, bytes | None], decode: Callable[[str, bytes], S]) -> Mapping[str, S | None]:
        """Return states by key, with damaged ones replaced by refolded ones (None: the key has no state).

        Damaged bytes are quarantined first. Raises Unavailable, and NewerState naming the key.
        """
        states: dict[str, S | None] = {}
        errors: dict[str, StateError] = {}
        for key, raw in values.items():
            try:
                states[key] = None if raw is None else decode(key, raw)
            except NewerState as error:
                raise NewerState(
                    f"{key}: {error}. It was written by a newer version: start that version again or, to continue with "
                    "this one, stop all workers and run `mainstay rebuild`, which rebuilds the online store"
                ) from error
            except StateError as error:
                errors[key] = error
        if errors:
            refolded = self._refold(list(errors))
            self._quarantine(values, errors, refolded)
            states |= {key: None if (raw := refolded.get(key)) is None else decode(key, raw) for key in errors}
        return {key: states[key] for key in values}

    def _quarantine(
        self, values: Mapping[str, bytes | None], errors: Mapping[str, StateError], refolded: Mapping[str, bytes | None]
    ) -> None:
        now = self._clock()
        repaired = {key for key in refolded if key.startswith(VIEWERS) or _source(key) not in self._incomplete_sources}
        if self._log.damaged.quarantined():  # the log lacks events
            repaired = set()
        corrupt = [
            CorruptState(key, str(error), now, key in repaired, values[key] or b"") for key, error in errors.items()
        ]
        retained = [state for state in corrupt if not self._is_erased(state.key)]
        quarantine(self._online, retained)
        if erased := [state.key for state in retained if self._is_erased(state.key)]:  # erased in the meantime
            discard(self._online, erased)
        logger.error(
            "online store: %d corrupt state(s) quarantined, %d of them repaired from the event log; first %s: %s. To "
            "list them: mainstay quarantine list%s",
            len(corrupt),
            len(repaired),
            corrupt[0].key,
            corrupt[0].cause,
            "" if len(repaired) == len(corrupt) else "; the others lack events: mainstay rebuild repairs them",
        )

    def _is_erased(self, key: str) -> bool:
        """Return whether the key belongs to an erased viewer, whose data must not be retained."""
        return key.startswith(VIEWERS) and self._log.erasures.erased_at(_parts(key)[0]) >= 0

    def _refold(self, keys: Sequence[str]) -> dict[str, bytes | None]:
        """Refold these keys from the event log in one pass; keys beyond the budget are left out."""
        if self._deadline is None:
            self._deadline = self._elapsed() + SECONDS_MAX
        if self._elapsed() >= self._deadline:
            return {}
        if not keys[0].startswith(VIEWERS):
            self._append()
        kinds = [prefix for prefix in _CONTRIBUTORS if any(key.startswith(prefix) for key in keys)]
        contributors = " UNION ".join(_CONTRIBUTORS[kind] for kind in kinds)
        affordable, events = self._log.queries(
            ("SELECT key, events FROM affordable", _EVENTS),
            _query_parameters(keys) | {"max_events": self._events_left},
            setup=(
                _REQUESTED,
                f"CREATE TEMP TABLE contributors AS SELECT DISTINCT key, viewer_id FROM ({contributors})",
                _AFFORDABLE,
            ),
        )
        store = MemoryStore()
        fold = self._make_fold(store)
        for batch in events.to_batches(max_chunksize=_BATCH):
            if self._elapsed() >= self._deadline:
                return {}
            fold([e for e in logged_events(batch) if not keys[0].startswith(VIEWERS) or self._precedes_batch(e)])
        self._events_left -= max(affordable["events"].to_pylist(), default=0)
        refolded = affordable["key"].to_pylist()
        return dict(zip(refolded, store.get(refolded), strict=True))

    def _precedes_batch(self, event: LoggedEvent) -> bool:
        """Return whether the event was delivered before the current batch."""
        return self._batch is None or event.offset < self._batch.first.get(event.source, event.offset + 1)

    def _append(self) -> None:
        """Append the current batch to the log, once.

        Before that, find the sources of which viewers' states reach the end of the batch, or beyond, but the log does
        not.
        """
        if self._batch is None or self._appended:
            return
        if self._offsets_ahead:
            tails = self._log.query('SELECT source, max("offset") AS tail FROM log GROUP BY source', {})
            tail = dict(zip(tails["source"].to_pylist(), tails["tail"].to_pylist(), strict=True))
            self._incomplete_sources = frozenset(
                source for source, offset in self._offsets_ahead.items() if offset > tail.get(source, -1)
            )
        self._batch.append()
        self._appended = True


def _query_parameters(keys: Sequence[str]) -> dict[str, object]:
    """Return the parameters of `_REQUESTED` for these keys."""
    names, suffixes = zip(*map(_parts, keys), strict=True)
    sources = [_source(key) for key in keys]
    days = [
        int(suffix.partition(":")[0]) if key.startswith(TRAFFIC) else 0
        for key, suffix in zip(keys, suffixes, strict=True)
    ]
    quoted = [msgspec.json.encode(name).decode() for name in names]
    return {"keys": list(keys), "names": list(names), "sources": sources, "days": days, "quoted": quoted}


def _source(key: str) -> str:
    """Return the source that a key's state is derived from; empty for a viewer's."""
    suffix = _parts(key)[1]
    return suffix.partition(":")[2] if key.startswith(TRAFFIC) else suffix


def _parts(key: str) -> tuple[str, str]:
    """Return the name between the braces of a key, and the text after them."""
    rest = key.partition(":{")[2]
    if key.startswith(VIEWERS):
        return rest.removesuffix("}"), ""
    name, _, suffix = rest.rpartition("}:")
    return name, suffix
