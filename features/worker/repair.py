"""Damaged states, mended as they are met: set aside, and made again from the event log by the fold that made them.

The log holds whatever was committed, since a worker appends before it commits. A batch that is delivered again, because
a worker died between its viewers and the log, is not there, though viewers know it and it counts no more. So

* items, counts and traffic are made again when the batch at hand is in the log: then they hold it, and whatever of it
  is fresh is left out at their offsets;
* viewers are made again without the batch at hand: it is folded into them next, and counts again for items, whose
  offsets say what they hold;
* where the end of such a batch may be delivered later still, what was made again is not called mended.

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
from features.state.fold import LoggedEvent
from features.state.keys import COUNTS, ITEMS, TRAFFIC, VIEWERS
from features.state.online.memory import MemoryStore
from features.state.online.port import OnlineStore
from features.state.quarantine import CorruptState, discard, quarantine
from recsys.domain.viewer import ViewerState

EVENTS_MAX = 200_000
"""In one step of the worker no more events than this are folded again: some ten seconds."""

SECONDS_MAX = 20.0
"""Nor is there begun, so long after a step's first damaged state was met, another look into the log or batch of it."""

logger = logging.getLogger(__name__)
S = TypeVar("S")

_ASKED = """
    CREATE TEMP TABLE asked AS SELECT unnest($keys) AS key, unnest($names) AS name, unnest($sources) AS source,
      unnest($days) AS day, unnest($quoted) AS quoted
"""
_WHO = {
    VIEWERS: "SELECT key, name AS viewer_id FROM asked",
    ITEMS: """SELECT key, viewer_id FROM asked JOIN (
        SELECT source, viewer_id, unnest(list_append(coalesce("items", []), item_id)) AS name FROM log
      ) USING (source, name)""",
    COUNTS: """SELECT key, viewer_id FROM asked JOIN log USING (source)
      WHERE kind = 'impression' AND contains(context, quoted)""",
    TRAFFIC: """SELECT key, viewer_id FROM asked JOIN (
        SELECT source, viewer_id, placement || '|' || coalesce(region, '') AS name,
          floor("at" / 86400)::BIGINT AS day FROM log WHERE kind = 'impression' AND context != ''
      ) USING (source, name, day)""",
}
"""The viewers whose events a state was made of."""

_FITTING = """
    CREATE TEMP TABLE fitting AS
    WITH busy AS (SELECT viewer_id, count(*) AS n FROM log SEMI JOIN who USING (viewer_id) GROUP BY viewer_id),
    alone AS (SELECT key, coalesce(sum(n), 0) AS n FROM asked LEFT JOIN who USING (key) LEFT JOIN busy USING (viewer_id)
      GROUP BY key),
    ranked AS (SELECT key, row_number() OVER (ORDER BY n, key) AS place FROM alone),
    early AS (SELECT viewer_id, min(place) AS place FROM who JOIN ranked USING (key) GROUP BY viewer_id),
    more AS (SELECT place, sum(n) AS n FROM early JOIN busy USING (viewer_id) GROUP BY place),
    summed AS (SELECT key, coalesce(sum(n) OVER (ORDER BY place), 0)::BIGINT AS events
      FROM ranked LEFT JOIN more USING (place))
    SELECT key, events FROM summed WHERE events <= $most
"""  # the states that need the fewest events first, those of a viewer counted once
_EVENTS = """
    SELECT * REPLACE (CASE WHEN coalesce(context, '') = '' THEN ''
      ELSE json_object('mended', true, 'targets', nullif(context, '') -> '$.targets')::VARCHAR END AS context)
    FROM log SEMI JOIN (SELECT viewer_id FROM who SEMI JOIN fitting USING (key)) USING (viewer_id)
    QUALIFY row_number() OVER (PARTITION BY source, "offset") = 1 ORDER BY source, "offset"
"""  # of a context only what the fold reads of it: features would fill the memory
_BATCH = 20_000


class RepairBatch(NamedTuple):
    """What a step has at hand, by source: the first offset, and the last of an event; `append` puts it into the log."""

    first: Mapping[str, int]
    last: Mapping[str, int]
    append: Callable[[], None]


class StateRepairer:
    """Reads states for a worker."""

    def __init__(
        self,
        online: OnlineStore,
        log: EventLog,
        folding: Callable[[OnlineStore], Callable[[Sequence[LoggedEvent]], None]],
        clock: Callable[[], float] = time.time,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        """`folding`: makes a fold, as the worker's, into another store; `elapsed`: seconds since whenever."""
        self._online, self._log, self._folding, self._clock, self._elapsed = online, log, folding, clock, elapsed
        self.begin()

    def begin(self, batch: RepairBatch | None = None) -> None:
        """A step begins, with this batch: what it may spend on damaged states is whole again."""
        self._left = EVENTS_MAX
        self._until: float | None = None
        self._batch, self._appended = batch, batch is None
        self._ahead: dict[str, int] = {}
        self._doubtful: frozenset[str] = frozenset()

    def register(self, viewers: Iterable[ViewerState | None]) -> None:
        """The states of the batch's viewers as they were before it: how far they know the sources."""
        last = self._batch.last if self._batch else {}
        for state in viewers:
            for source, offset in state.offsets.items() if state else ():
                if offset >= last.get(source, offset + 1):
                    self._ahead[source] = max(offset, self._ahead.get(source, -1))

    def read(self, found: Mapping[str, bytes | None], decode: Callable[[str, bytes], S]) -> Mapping[str, S | None]:
        """States by key, mended ones in the place of damaged ones (None: nothing was known).

        The damaged bytes are set aside before that. Raises Unavailable, and NewerState naming the key.
        """
        states: dict[str, S | None] = {}
        damaged: dict[str, StateError] = {}
        for key, raw in found.items():
            try:
                states[key] = None if raw is None else decode(key, raw)
            except NewerState as error:
                raise NewerState(
                    f"{key}: {error}. A newer engine wrote it: start that one again, or, to go on with this one, stop "
                    "all workers and run `mainstay rebuild`, which makes the store anew"
                ) from error
            except StateError as error:
                damaged[key] = error
        if damaged:
            again = self._refold(list(damaged))
            self._quarantine(found, damaged, again)
            states |= {key: None if (raw := again.get(key)) is None else decode(key, raw) for key in damaged}
        return {key: states[key] for key in found}

    def _quarantine(
        self, found: Mapping[str, bytes | None], damaged: Mapping[str, StateError], again: Mapping[str, bytes | None]
    ) -> None:
        now = self._clock()
        mended = {key for key in again if key.startswith(VIEWERS) or _source(key) not in self._doubtful}
        aside = [CorruptState(key, str(error), now, key in mended, found[key] or b"") for key, error in damaged.items()]
        kept = [one for one in aside if not self._erased(one.key)]
        quarantine(self._online, kept)
        if gone := [one.key for one in kept if self._erased(one.key)]:  # erased meanwhile
            discard(self._online, gone)
        logger.error(
            "%d damaged state(s) set aside, %d of them made again from the event log; the first, %s: %s. See: "
            "mainstay quarantine list%s",
            len(aside),
            len(mended),
            aside[0].key,
            aside[0].cause,
            "" if len(mended) == len(aside) else "; the others lack events: mainstay rebuild mends them",
        )

    def _erased(self, key: str) -> bool:
        """Whether the key is of a viewer who was erased: of those nothing may be kept."""
        return key.startswith(VIEWERS) and self._log.erased.of(_parts(key)[0]) >= 0

    def _refold(self, keys: Sequence[str]) -> dict[str, bytes | None]:
        """What the event log says of these keys, all in one fold; without those for which that would take too long."""
        if self._until is None:
            self._until = self._elapsed() + SECONDS_MAX
        if self._elapsed() >= self._until:
            return {}
        if not keys[0].startswith(VIEWERS):
            self._append()
        kinds = [prefix for prefix in _WHO if any(key.startswith(prefix) for key in keys)]
        who = " UNION ".join(_WHO[kind] for kind in kinds)
        fitting, events = self._log.queries(
            ("SELECT key, events FROM fitting", _EVENTS),
            _requested(keys) | {"most": self._left},
            made=(_ASKED, f"CREATE TEMP TABLE who AS SELECT DISTINCT key, viewer_id FROM ({who})", _FITTING),
        )
        into = MemoryStore()
        fold = self._folding(into)
        for some in events.to_batches(max_chunksize=_BATCH):
            if self._elapsed() >= self._until:
                return {}
            fold([one for one in logged_events(some) if not keys[0].startswith(VIEWERS) or self._older(one)])
        self._left -= max(fitting["events"].to_pylist(), default=0)
        again = fitting["key"].to_pylist()
        return dict(zip(again, into.get(again), strict=True))

    def _older(self, one: LoggedEvent) -> bool:
        """Whether an event was delivered before the batch at hand."""
        return self._batch is None or one.offset < self._batch.first.get(one.source, one.offset + 1)

    def _append(self) -> None:
        """The batch at hand, once, and before it: which sources' viewers know its end or more, and the log does not."""
        if self._batch is None or self._appended:
            return
        if self._ahead:
            tails = self._log.query('SELECT source, max("offset") AS tail FROM log GROUP BY source', {})
            tail = dict(zip(tails["source"].to_pylist(), tails["tail"].to_pylist(), strict=True))
            self._doubtful = frozenset(one for one, offset in self._ahead.items() if offset > tail.get(one, -1))
        self._batch.append()
        self._appended = True


def _requested(keys: Sequence[str]) -> dict[str, object]:
    """What `_ASKED` is told of these keys."""
    names, places = zip(*map(_parts, keys), strict=True)
    sources = [_source(key) for key in keys]
    days = [
        int(place.partition(":")[0]) if key.startswith(TRAFFIC) else 0 for key, place in zip(keys, places, strict=True)
    ]
    quoted = [msgspec.json.encode(name).decode() for name in names]
    return {"keys": list(keys), "names": list(names), "sources": sources, "days": days, "quoted": quoted}


def _source(key: str) -> str:
    """The source that a key's state is made of; empty for a viewer's."""
    place = _parts(key)[1]
    return place.partition(":")[2] if key.startswith(TRAFFIC) else place


def _parts(key: str) -> tuple[str, str]:
    """The name between the braces of a key, and what comes behind them."""
    rest = key.partition(":{")[2]
    if key.startswith(VIEWERS):
        return rest.removesuffix("}"), ""
    name, _, place = rest.rpartition("}:")
    return name, place
