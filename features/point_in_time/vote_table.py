"""The votes of all events of the log, as columns: what the worker's fold counted for items, without folding everybody.

What an event counts for its item depends on what its viewer did before (`features.state.votes`). Most viewers did
little, never paused for long and did nothing twice: how much each of their events counts is then a matter of its number
alone, which SQL can tell. All others (`busy`) go through the worker's own fold.
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
from features.state.item_fold import screen_of
from features.state.viewer_fold import REMEMBERED, ViewerFold
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
"""Event kind -> places in MEASURES of what it counts for."""


@dataclass(frozen=True)
class VoteTable:
    """V votes on items of one catalogue, in no particular order.

    row, measure [V] catalogue row, place in MEASURES · at [V] unix seconds · worth [V] before decay, in (0, 1]
    source, offset [V] where the event stands in the stream · region, screen [V] codes of `regions`, `screens`
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
    """All votes of the log, each as the worker gave it. Raises Unavailable."""
    with paused_gc():
        found, tally = load_events(log, ttl_s), VoteCounter()
        for viewer_id, their in by_viewer(found.events):
            fold = ViewerFold(ViewerState(viewer_id), ttl_s)
            for one in their:
                tally.add(fold, one)
        return count_votes(found, tally, catalog)


@dataclass(frozen=True)
class EventBatch:
    """What one reading of the log gives.

    plain   events that count, of viewers whose votes are a matter of the events' numbers, with that `number`
    events  all events of all others (`busy`) and of the viewers wanted, in the order of viewer, source and offset,
            each offset once, without what no feature is made of: names of devices; of contexts and requests is told
            only whether there is one
    """

    plain: pa.Table
    events: pa.Table
    busy: frozenset[str]


def load_events(log: EventLog, ttl_s: float, viewers: Sequence[str] = ()) -> EventBatch:
    """The log, read once, for all votes and for folding these viewers. Raises Unavailable."""
    said = _SAID | {"ttl": ttl_s, "wanted": sorted(set(viewers))}
    plain, busy, events = log.queries((_PLAIN, "SELECT viewer_id FROM busy", _EVENTS), said, made=(_ONCE, _BUSY))
    return EventBatch(plain, events, frozenset(busy["viewer_id"].to_pylist()))


def count_votes(found: EventBatch, tally: VoteCounter, catalog: Catalog) -> VoteTable:
    """The votes of plain viewers and those of the busy, who were folded into `tally`."""
    return _concatenate(_from_simple_events(found.plain) + tally.votes(), catalog)


def _action_values() -> F64:
    """[RECENT_MAX] what the votes of a viewer's first, second, ... (from 1 on) action of all are worth, each on an item
    of its own: the fold is asked."""
    recent = [Recent(f"item {n}", "click", float(n)) for n in range(RECENT_MAX - 1)]
    worth = [1.0]
    for before in range(RECENT_MAX - 1):
        event = ViewerEvent(id="", kind="click", viewer_id="", at=float(RECENT_MAX), item_id="another")
        worth.append(contributions(event, recent[:before], {}, {})[0][2])
    return np.array(worth)


def by_viewer(events: pa.Table) -> Iterable[tuple[str, list[LoggedEvent]]]:
    """Viewers and their events, of a table in the order of viewer, source and offset."""
    placed = (one for batch in events.to_batches(max_chunksize=20_000) for one in logged_events(batch))
    return ((viewer_id, list(their)) for viewer_id, their in groupby(placed, key=lambda one: one.event.viewer_id))


_SAID = {"remembered": sorted(REMEMBERED), "counted": sorted(COUNTS), "most": RECENT_MAX}
_ONCE = """
    CREATE TEMP TABLE once AS SELECT viewer_id, id, kind, "at", source, "offset", session_id, screen, region, placement,
      item_id, position_s, duration_s, percent, rating, "items",
      CASE WHEN kind = 'impression' AND context != '' THEN '{"by":"engine"}' ELSE '' END AS context,
      CASE WHEN kind = 'impression' AND request_id != '' THEN '?' ELSE '' END AS request_id FROM log
    QUALIFY row_number() OVER (PARTITION BY source, "offset") = 1
"""
_BUSY = """
    CREATE TEMP TABLE busy AS
    SELECT viewer_id FROM once GROUP BY viewer_id HAVING
      count(*) FILTER (list_contains($remembered, kind)) >= $most OR max("at") - min("at") > $ttl
    UNION SELECT viewer_id FROM once GROUP BY viewer_id, hash(id) HAVING count(*) > 1
    UNION SELECT viewer_id FROM once WHERE list_contains($counted, kind)
      GROUP BY viewer_id, hash(item_id) HAVING count(item_id) > 1
    UNION SELECT viewer_id FROM (SELECT viewer_id, hash(unnest("items")) AS item FROM once WHERE len("items") > 0)
      GROUP BY viewer_id, item HAVING count(*) > 1
"""  # two ids of one hash make a viewer busy who is not: no harm
_PLAIN = """
    WITH plain AS (SELECT *, item_id IS NOT NULL AND list_contains($counted, kind) AS counts FROM once
      ANTI JOIN busy USING (viewer_id))
    SELECT "at", source, "offset", kind, screen, placement, region, item_id, "items",
      count(*) FILTER (counts) OVER (PARTITION BY viewer_id ORDER BY source, "offset") AS number
    FROM plain WHERE context != '' OR counts
"""
_EVENTS = """
    SELECT * FROM once SEMI JOIN (SELECT viewer_id FROM busy UNION SELECT unnest($wanted)) USING (viewer_id)
    ORDER BY viewer_id, source, "offset"
"""


_WORTH = _action_values()


@dataclass
class _VoteColumns:
    """Votes on their way into columns; `named` are ids of items."""

    named: pa.Array
    measure: I64
    at: F64
    worth: F64
    offset: I64
    source: pa.Array
    region: pa.Array
    screen: pa.Array


def _from_simple_events(found: pa.Table) -> list[_VoteColumns]:
    """For each measure that the kind counts for; of impressions, in full for each item of the page."""
    votes = []
    for kind, measures in _KINDS.items():
        rows = found.filter(pa.compute.equal(found["kind"], kind)).combine_chunks()
        if not measures or not len(rows):
            continue
        named = rows["item_id"].combine_chunks()
        if kind == IMPRESSION:
            items = rows["items"].combine_chunks()
            rows = rows.take(pa.compute.list_parent_indices(items))
            named = items.flatten()
        screens = _screens(rows)
        for measure in measures:
            size = len(named)
            worth = np.ones(size) if kind == IMPRESSION else _WORTH[rows["number"].to_numpy()]
            votes.append(_VoteColumns(named, np.full(size, measure), rows["at"].to_numpy(), worth,
                                rows["offset"].to_numpy(), rows["source"], rows["region"], screens))  # fmt: skip
    return votes


def _screens(rows: pa.Table) -> pa.Array:
    """`features.state.item_fold.screen_of` for each row, decided once for each pair that occurs."""
    pairs = pa.compute.binary_join_element_wise(
        pa.compute.fill_null(rows["screen"], ""), pa.compute.fill_null(rows["placement"], ""), "\n"
    )
    coded = pairs.combine_chunks().dictionary_encode()
    decided = pa.array([screen_of(*pair.split("\n", 1)) for pair in coded.dictionary.to_pylist()], pa.string())
    return decided.take(coded.indices)


class VoteCounter:
    """Votes of events that are folded, on their way into columns."""

    def __init__(self) -> None:
        self._lines: tuple[list[Any], ...] = ([], [], [], [], [], [], [], [])

    def add(self, fold: ViewerFold, one: LoggedEvent) -> None:
        """Fold an event and keep its votes."""
        counted = fold.apply(one)
        for item_id, action, worth in counted.votes if counted is not None else ():
            if action in _CODE:
                event = one.event
                line = (item_id, _CODE[action], event.at, worth, one.offset, one.source, event.region,
                        screen_of(event.screen, event.placement))  # fmt: skip
                for column, entry in zip(self._lines, line, strict=True):
                    column.append(entry)

    def votes(self) -> list[_VoteColumns]:
        """As columns; empty when there are none."""
        named, measure, at, worth, offset, source, region, screen = self._lines
        if not named:
            return []
        return [_VoteColumns(pa.array(named), np.array(measure), np.array(at), np.array(worth, np.float64),
                             np.array(offset),
                       pa.array(source), pa.array(region), pa.array(screen))]  # fmt: skip


def _concatenate(votes: list[_VoteColumns], catalog: Catalog) -> VoteTable:
    """One column each; votes on items that the catalogue does not know are left out."""
    if not votes:
        none, number = np.zeros(0, np.int64), np.zeros(0)
        return VoteTable(none, none, number, number, none, none, none, none, (), (), ())
    item, ids = _encode_categories([some.named for some in votes])
    row = np.array([catalog.row_of.get(item_id, -1) for item_id in ids], np.int64)[item]
    keep = row >= 0
    source, sources = _encode_categories([some.source for some in votes])
    region, regions = _encode_categories([some.region for some in votes])
    screen, screens = _encode_categories([some.screen for some in votes])

    def column(name: str, dtype: type) -> Any:
        return np.concatenate([getattr(some, name) for some in votes]).astype(dtype)[keep]

    return VoteTable(
        row[keep],
        column("measure", np.int64),
        column("at", np.float64),
        column("worth", np.float64),
        source[keep],
        column("offset", np.int64),
        region[keep],
        screen[keep],
        sources,
        regions,
        screens,
    )


def _encode_categories(parts: list[Any]) -> tuple[I64, tuple[str, ...]]:
    """Codes of texts, and the texts by code; nothing said is the empty text."""
    chunks = [chunk for part in parts for chunk in (part.chunks if isinstance(part, pa.ChunkedArray) else [part])]
    coded = pa.compute.fill_null(pa.chunked_array(chunks, pa.string()), "").combine_chunks().dictionary_encode()
    codes: I64 = coded.indices.to_numpy().astype(np.int64)
    return codes, tuple(coded.dictionary.to_pylist())
