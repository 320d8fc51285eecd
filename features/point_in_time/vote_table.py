"""The votes of all events of the log, as columns: the worker's counts for items, without folding every viewer.

The weight of an event depends on its viewer's earlier events (`features.state.votes`). Most viewers have few events,
without long pauses and without repetitions: the weight of each of their events depends only on its position in the
viewer's sequence, which SQL can compute. All other viewers (`busy`) go through the worker's own fold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute  # type: ignore[import-untyped]

from features.events.schema import ViewerEvent
from features.gc_pause import paused_gc
from features.history.arrow_schema import logged_events
from features.history.event_log import EventLog
from features.item_counts import MEASURES
from features.state.item_fold import event_screen
from features.state.viewer_fold import RECENT_KINDS, ViewerFold
from features.state.votes import COUNTS, IMPRESSION, VISIT, LoggedEvent, contributions
from recsys.domain.catalog import Catalog
from recsys.domain.types import F64, I64
from recsys.domain.viewer import RECENT_MAX, Recent, ViewerState

_MEASURE_OF = {IMPRESSION: "impressions", VISIT: "visits", "hide": "hides"}
_CODE = {
    action: MEASURES.index(measure)
    for action in (IMPRESSION, *(action for counted in COUNTS.values() for action in counted))
    if (measure := _MEASURE_OF.get(action, action)) in MEASURES
}
_KINDS: Mapping[str, tuple[int, ...]] = {
    IMPRESSION: (_CODE[IMPRESSION],),
    **{kind: tuple(_CODE[action] for action in actions if action in _CODE) for kind, actions in COUNTS.items()},
}
"""Event kind -> indices in MEASURES of the counts that it adds to."""


@dataclass(frozen=True)
class VoteTable:
    """V votes on items of one catalog, in no particular order.

    row, measure    [V] catalog row, and index in MEASURES
    at              [V] unix seconds
    value           [V] before decay, in (0, 1]
    source, offset  [V] code in `sources`, and offset of the event
    region, screen  [V] codes in `regions` and `screens`
    """

    row: I64
    measure: I64
    at: F64
    value: F64
    source: I64
    offset: I64
    region: I64
    screen: I64
    sources: tuple[str, ...]
    regions: tuple[str, ...]
    screens: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.row)


def load_votes(log: EventLog, catalog: Catalog, ttl_s: float) -> VoteTable:
    """Return all votes of the log, as the worker's fold counted them. Raises Unavailable."""
    with paused_gc():
        batch, counter = load_events(log, ttl_s), VoteCounter()
        for viewer_id, events in by_viewer(batch.events):
            fold = ViewerFold(ViewerState(viewer_id), ttl_s)
            for event in events:
                counter.add(fold, event)
        return count_votes(batch, counter, catalog)


@dataclass(frozen=True)
class EventBatch:
    """The events of one read of the log.

    simple_events  events that count, of viewers that are not busy, with their `number` in the viewer's sequence
    events         all events of busy and of requested viewers, ordered by viewer, source and offset, each offset once,
                   without columns that no feature needs: device ids are left out, and contexts and request ids are
                   reduced to a marker
    busy_viewers   viewers whose votes need the fold
    """

    simple_events: pa.Table
    events: pa.Table
    busy_viewers: frozenset[str]


def load_events(log: EventLog, ttl_s: float, viewers: Sequence[str] = ()) -> EventBatch:
    """Read the log once, for all votes and for the states of these viewers. Raises Unavailable."""
    parameters = _PARAMETERS | {"ttl": ttl_s, "viewers": sorted(set(viewers))}
    simple_events, busy_viewers, events = log.queries(
        (_SIMPLE_EVENTS, "SELECT viewer_id FROM busy", _FOLDED_EVENTS), parameters, setup=(_CREATE_EVENTS, _CREATE_BUSY)
    )
    return EventBatch(simple_events, events, frozenset(busy_viewers["viewer_id"].to_pylist()))


def count_votes(batch: EventBatch, counter: VoteCounter, catalog: Catalog) -> VoteTable:
    """Return the votes of simple events and those that `counter` collected from folding busy viewers."""
    return _concatenate(_from_simple_events(batch.simple_events) + counter.votes(), catalog)


def _action_values() -> F64:
    """Return [RECENT_MAX] the values of a viewer's n-th vote, at index n from 1 on, if each is on a different item.

    They are computed with the fold's own function.
    """
    recent = [Recent(f"item {n}", "click", float(n)) for n in range(RECENT_MAX - 1)]
    values = [1.0]
    for n_earlier in range(RECENT_MAX - 1):
        event = ViewerEvent(id="", kind="click", viewer_id="", at=float(RECENT_MAX), item_id="another")
        values.append(contributions(event, recent[:n_earlier], {}, {})[0][2])
    return np.array(values)


def by_viewer(events: pa.Table) -> Iterable[tuple[str, list[LoggedEvent]]]:
    """Yield each viewer and its events from a table ordered by viewer, source and offset."""
    logged = (entry for batch in events.to_batches(max_chunksize=20_000) for entry in logged_events(batch))
    return ((viewer_id, list(group)) for viewer_id, group in groupby(logged, key=lambda entry: entry.event.viewer_id))


_PARAMETERS = {"recent_kinds": sorted(RECENT_KINDS), "counted_kinds": sorted(COUNTS), "recent_max": RECENT_MAX}
_CREATE_EVENTS = """
    CREATE TEMP TABLE events AS SELECT viewer_id, id, kind, "at", source, "offset", session_id, screen, region,
      placement, item_id, position_s, duration_s, percent, rating, "items", coalesce(trust, 'trusted') AS trust,
      CASE WHEN kind = 'impression' AND context != '' THEN '{"by":"engine"}' ELSE '' END AS context,
      CASE WHEN kind = 'impression' AND request_id != '' THEN '?' ELSE '' END AS request_id FROM log
    QUALIFY row_number() OVER (PARTITION BY source, "offset") = 1
"""
_CREATE_BUSY = """
    CREATE TEMP TABLE busy AS
    SELECT viewer_id FROM events GROUP BY viewer_id HAVING
      count(*) FILTER (list_contains($recent_kinds, kind)) >= $recent_max OR max("at") - min("at") > $ttl
    UNION SELECT viewer_id FROM events GROUP BY viewer_id, hash(id) HAVING count(*) > 1
    UNION SELECT viewer_id FROM events WHERE list_contains($counted_kinds, kind)
      GROUP BY viewer_id, hash(item_id) HAVING count(item_id) > 1
    UNION SELECT viewer_id FROM (SELECT viewer_id, hash(unnest("items")) AS item FROM events WHERE len("items") > 0)
      GROUP BY viewer_id, item HAVING count(*) > 1
"""  # a hash collision only adds a viewer to `busy`, which is harmless
_SIMPLE_EVENTS = """
    WITH simple AS (SELECT *, item_id IS NOT NULL AND list_contains($counted_kinds, kind) AS counts FROM events
      ANTI JOIN busy USING (viewer_id))
    SELECT "at", source, "offset", kind, screen, placement, region, item_id, "items",
      count(*) FILTER (counts) OVER history AS number,
      trust = 'trusted' OR (trust = 'anonymous' AND count(*) FILTER (context != '') OVER history > 0) AS is_counted
    FROM simple WHERE context != '' OR counts
    WINDOW history AS (PARTITION BY viewer_id ORDER BY source, "offset")
    QUALIFY is_counted
"""
_FOLDED_EVENTS = """
    SELECT * FROM events SEMI JOIN (SELECT viewer_id FROM busy UNION SELECT unnest($viewers)) USING (viewer_id)
    ORDER BY viewer_id, source, "offset"
"""


_NTH_VOTE_VALUES = _action_values()


@dataclass
class _VoteColumns:
    """A part of a vote table, before items, sources, regions and screens are encoded."""

    item_id: pa.Array
    measure: I64
    at: F64
    value: F64
    offset: I64
    source: pa.Array
    region: pa.Array
    screen: pa.Array


def _from_simple_events(simple_events: pa.Table) -> list[_VoteColumns]:
    """Return the votes of simple events: one per measure of the kind; an impression counts in full for each item."""
    votes = []
    for kind, measures in _KINDS.items():
        rows = simple_events.filter(pa.compute.equal(simple_events["kind"], kind)).combine_chunks()
        if not measures or not len(rows):
            continue
        item_ids = rows["item_id"].combine_chunks()
        if kind == IMPRESSION:
            items = rows["items"].combine_chunks()
            rows = rows.take(pa.compute.list_parent_indices(items))
            item_ids = items.flatten()
        screens = _screens(rows)
        for measure in measures:
            size = len(item_ids)
            values = np.ones(size) if kind == IMPRESSION else _NTH_VOTE_VALUES[rows["number"].to_numpy()]
            votes.append(_VoteColumns(item_ids, np.full(size, measure), rows["at"].to_numpy(), values,
                                rows["offset"].to_numpy(), rows["source"], rows["region"], screens))  # fmt: skip
    return votes


def _screens(rows: pa.Table) -> pa.Array:
    """Return `event_screen` for each row, computed once per distinct pair of screen and placement."""
    pairs = pa.compute.binary_join_element_wise(
        pa.compute.fill_null(rows["screen"], ""), pa.compute.fill_null(rows["placement"], ""), "\n"
    )
    encoded = pairs.combine_chunks().dictionary_encode()
    screens = pa.array([event_screen(*pair.split("\n", 1)) for pair in encoded.dictionary.to_pylist()], pa.string())
    return screens.take(encoded.indices)


class VoteCounter:
    """A collector of the votes of folded events."""

    def __init__(self) -> None:
        self._columns: tuple[list[Any], ...] = ([], [], [], [], [], [], [], [])

    def add(self, fold: ViewerFold, logged: LoggedEvent) -> None:
        """Fold an event and collect its votes."""
        weighted = fold.apply(logged)
        for item_id, action, value in weighted.votes if weighted is not None else ():
            if action in _CODE:
                event = logged.event
                row = (item_id, _CODE[action], event.at, value, logged.offset, logged.source, event.region,
                        event_screen(event.screen, event.placement))  # fmt: skip
                for column, entry in zip(self._columns, row, strict=True):
                    column.append(entry)

    def votes(self) -> list[_VoteColumns]:
        """Return the collected votes as columns; an empty list if there are none."""
        item_id, measure, at, value, offset, source, region, screen = self._columns
        if not item_id:
            return []
        return [_VoteColumns(pa.array(item_id), np.array(measure), np.array(at), np.array(value, np.float64),
                             np.array(offset), pa.array(source), pa.array(region), pa.array(screen))]  # fmt: skip


def _concatenate(votes: list[_VoteColumns], catalog: Catalog) -> VoteTable:
    """Concatenate the parts into one table; votes on items outside the catalog are left out."""
    if not votes:
        no_codes, no_values = np.zeros(0, np.int64), np.zeros(0)
        return VoteTable(no_codes, no_codes, no_values, no_values, no_codes, no_codes, no_codes, no_codes, (), (), ())
    item, ids = _encode_categories([part.item_id for part in votes])
    row = np.array([catalog.row_of.get(item_id, -1) for item_id in ids], np.int64)[item]
    keep = row >= 0
    source, sources = _encode_categories([part.source for part in votes])
    region, regions = _encode_categories([part.region for part in votes])
    screen, screens = _encode_categories([part.screen for part in votes])

    def column(name: str, dtype: type) -> Any:
        return np.concatenate([getattr(part, name) for part in votes]).astype(dtype)[keep]

    return VoteTable(
        row[keep],
        column("measure", np.int64),
        column("at", np.float64),
        column("value", np.float64),
        source[keep],
        column("offset", np.int64),
        region[keep],
        screen[keep],
        sources,
        regions,
        screens,
    )


def _encode_categories(parts: list[Any]) -> tuple[I64, tuple[str, ...]]:
    """Return the codes of the texts, and the texts by code; null counts as the empty text."""
    chunks = [chunk for part in parts for chunk in (part.chunks if isinstance(part, pa.ChunkedArray) else [part])]
    encoded = pa.compute.fill_null(pa.chunked_array(chunks, pa.string()), "").combine_chunks().dictionary_encode()
    codes: I64 = encoded.indices.to_numpy().astype(np.int64)
    return codes, tuple(encoded.dictionary.to_pylist())
