"""Damaged states, mended as they are met: set aside, and made again from the event log by the fold that made them.

The log holds whatever was committed, since a worker appends before it commits. So a state made again holds all that the
damaged one held, but perhaps for events that are delivered again just now. A state of a newer version is not touched:
the worker stops.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import msgspec

from features.aside import Damaged, let_go, set_aside
from features.codec import ITEMS, VIEWERS, NewerState, StateError
from features.exposure import COUNTS
from features.fold import Placed
from features.offline.log import EventLog
from features.offline.table import placed_of
from features.online import OnlineStore
from features.online.memory import MemoryStore
from recsys.state import DAY_S

EVENTS_MAX = 200_000
"""A state is made again when no more events than this have to be folded for it: some ten seconds."""

AT_ONCE = 100
"""So many of a batch's damaged states are made again; where there are more, the store is to be rebuilt."""

logger = logging.getLogger(__name__)
S = TypeVar("S")

_WHO = {
    VIEWERS: "SELECT $name",
    ITEMS: 'SELECT viewer_id FROM log WHERE source = $source AND (item_id = $name OR list_contains("items", $name))',
    COUNTS: "SELECT viewer_id FROM log WHERE source = $source AND kind = 'impression' AND contains(context, $quoted)",
}
_WHO_PASSED = """
    SELECT viewer_id FROM log WHERE source = $source AND kind = 'impression' AND "at" >= $since AND "at" < $until
      AND context != '' AND placement || '|' || coalesce(region, '') = $name
"""
_COUNT = "SELECT count(*) AS n FROM log SEMI JOIN (SELECT DISTINCT * FROM ({who}) who(viewer_id)) USING (viewer_id)"
_EVENTS = """
    SELECT * REPLACE (CASE WHEN coalesce(context, '') = '' THEN ''
      ELSE json_object('mended', true, 'targets', nullif(context, '') -> '$.targets')::VARCHAR END AS context)
    FROM log SEMI JOIN (SELECT DISTINCT * FROM ({who}) who(viewer_id)) USING (viewer_id)
    QUALIFY row_number() OVER (PARTITION BY source, "offset") = 1 ORDER BY source, "offset"
"""  # of a context only what the fold reads of it: features would fill the memory
_BATCH = 20_000


class Mender:
    """Reads states for a worker."""

    def __init__(
        self,
        online: OnlineStore,
        log: EventLog,
        folding: Callable[[OnlineStore], Callable[[Sequence[Placed]], None]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`folding`: makes a fold, as the worker's, into another store."""
        self._online, self._log, self._folding, self._clock = online, log, folding, clock

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
                    "all workers and say `recsys-worker rebuild`, which makes the store anew"
                ) from error
            except StateError as error:
                damaged[key] = error
        if damaged:
            again = self._again(list(damaged))
            self._set_aside(found, damaged, again)
            states |= {key: None if (raw := again.get(key)) is None else decode(key, raw) for key in damaged}
        return {key: states[key] for key in found}

    def _set_aside(
        self, found: Mapping[str, bytes | None], damaged: Mapping[str, StateError], again: Mapping[str, bytes | None]
    ) -> None:
        now = self._clock()
        aside = [Damaged(key, str(error), now, key in again, found[key] or b"") for key, error in damaged.items()]
        kept = [one for one in aside if not self._erased(one.key)]
        set_aside(self._online, kept)
        if gone := [one.key for one in kept if self._erased(one.key)]:  # erased meanwhile
            let_go(self._online, gone)
        logger.error(
            "%d damaged state(s) set aside, %d of them made again from the event log; the first, %s: %s. See: "
            "recsys-worker damaged%s",
            len(aside),
            len(again),
            aside[0].key,
            aside[0].cause,
            "" if len(again) == len(aside) else "; the others begin anew: recsys-worker rebuild mends them",
        )

    def _erased(self, key: str) -> bool:
        """Whether the key is of a viewer who was erased: of those nothing may be kept."""
        return key.startswith(VIEWERS) and self._log.erased.of(_parts(key)[0]) >= 0

    def _again(self, keys: Sequence[str]) -> dict[str, bytes | None]:
        """What the event log says of these keys; without those that would take too long."""
        again: dict[str, bytes | None] = {}
        for key in keys[:AT_ONCE]:
            who, said = _asked(key)
            if int(self._log.query(_COUNT.format(who=who), said)["n"][0].as_py()) > EVENTS_MAX:
                continue
            into = MemoryStore()
            fold = self._folding(into)
            for some in self._log.query(_EVENTS.format(who=who), said).to_batches(max_chunksize=_BATCH):
                fold(list(placed_of(some)))
            again[key] = into.get([key])[0]
        return again


def _asked(key: str) -> tuple[str, dict[str, object]]:
    """A query for the viewers whose events a state was made of, and what to say with it."""
    name, place = _parts(key)
    for prefix, who in _WHO.items():
        if key.startswith(prefix):
            return who, {"name": name, "source": place, "quoted": msgspec.json.encode(name).decode()}
    day, _, source = place.partition(":")
    since = int(day) * DAY_S
    return _WHO_PASSED, {"name": name, "source": source, "since": since, "until": since + DAY_S}


def _parts(key: str) -> tuple[str, str]:
    """The name between the braces of a key, and what comes behind them."""
    rest = key.partition(":{")[2]
    if key.startswith(VIEWERS):
        return rest.removesuffix("}"), ""
    name, _, place = rest.rpartition("}:")
    return name, place
