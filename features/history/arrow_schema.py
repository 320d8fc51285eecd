"""Events as rows of a table and back: the columns that every file of the log has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any

import msgspec
import pyarrow as pa  # type: ignore[import-untyped]

from features.events.schema import ViewerEvent
from features.state.votes import LoggedEvent
from recsys.domain.placement import Screen

SCHEMA = pa.schema(
    {
        "at": pa.float64(),
        "source": pa.string(),
        "offset": pa.int64(),
        "id": pa.string(),
        "kind": pa.string(),
        "viewer_id": pa.string(),
        "client_at": pa.float64(),
        "session_id": pa.string(),
        "device_id": pa.string(),
        "screen": pa.string(),
        "region": pa.string(),
        "placement": pa.string(),
        "request_id": pa.string(),
        "item_id": pa.string(),
        "slot": pa.int64(),
        "position_s": pa.float64(),
        "duration_s": pa.float64(),
        "percent": pa.float64(),
        "rating": pa.float64(),
        "items": pa.list_(pa.string()),
        "attention": pa.list_(pa.float64()),
        "context": pa.string(),  # JSON text; empty where the event has none
    }
)
_OFFSET_COLUMNS = {"source", "offset"}
_SIMPLE_COLUMNS = [name for name in SCHEMA.names if name not in _OFFSET_COLUMNS | {"context"}]
_SCREENS = {screen.value: screen for screen in Screen}


def table_of(placed: Sequence[LoggedEvent]) -> pa.Table:
    """Events as columns."""
    events = [one.event for one in placed]
    columns: dict[str, list[object]] = {name: [getattr(event, name) for event in events] for name in _SIMPLE_COLUMNS}
    columns["source"] = [one.source for one in placed]
    columns["offset"] = [one.offset for one in placed]
    columns["context"] = [msgspec.json.encode(event.context).decode() if event.context else "" for event in events]
    return pa.table({name: pa.array(columns[name], SCHEMA.field(name).type) for name in SCHEMA.names})


def with_all_columns(found: pa.Table) -> pa.Table:
    """The columns of `SCHEMA`; one that no file has yet, because all are older than it, is empty."""
    for field in SCHEMA:
        if field.name not in found.column_names:
            found = found.append_column(field, pa.nulls(len(found), field.type))
    return found.select(SCHEMA.names).cast(SCHEMA)


def logged_events(rows: pa.RecordBatch | pa.Table) -> Iterator[LoggedEvent]:
    """Yield the events in these rows, in their order. Columns are those of `SCHEMA`; any may be left out."""
    size, there = len(rows), set(rows.schema.names)

    def column(name: str, otherwise: object = None) -> Iterable[Any]:
        """Its entries; `otherwise` where nothing is said, decided at once for a column that says nothing at all."""
        if name not in there or (column := rows.column(name)).null_count == size:
            return repeat(otherwise, size)
        entries = column.to_pylist()
        return [otherwise if one is None else one for one in entries] if column.null_count else entries

    screens = [_SCREENS[one] if one is not None else None for one in column("screen")]
    contexts = (msgspec.json.decode(one) if one else {} for one in column("context"))
    texts = [column(name, "") for name in ("session_id", "device_id", "region", "placement", "request_id")]
    for (source, offset, screen, context, at, id_, kind, viewer_id, client_at, session_id, device_id, region, placement,
         request_id, item_id, slot, position_s, duration_s, percent, rating, items, attention) in zip(
        column("source"), column("offset"), screens, contexts, column("at"), column("id"), column("kind"),
        column("viewer_id"), column("client_at"), *texts, column("item_id"), column("slot"), column("position_s"),
        column("duration_s"), column("percent"), column("rating"), column("items", ()), column("attention", ()),
        strict=True,
    ):  # fmt: skip
        event = ViewerEvent(
            id=id_, kind=kind, viewer_id=viewer_id, at=at, client_at=client_at, session_id=session_id,
            device_id=device_id, screen=screen, region=region, placement=placement, request_id=request_id,
            item_id=item_id, slot=slot, position_s=position_s, duration_s=duration_s, percent=percent, rating=rating,
            items=tuple(items), attention=tuple(attention), context=context,
        )  # fmt: skip
        yield LoggedEvent(source, offset, event)
