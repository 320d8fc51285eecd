"""The schema of the log's files, and the conversion of events to rows and back."""

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
        "trust": pa.string(),  # "trusted" where a file has no such column
        "context": pa.string(),  # JSON text; empty where the event has none
    }
)
_OFFSET_COLUMNS = {"source", "offset"}
_SIMPLE_COLUMNS = [name for name in SCHEMA.names if name not in _OFFSET_COLUMNS | {"context"}]
_SCREENS = {screen.value: screen for screen in Screen}


WRITER_OPTIONS = {"compression": "zstd", "write_page_checksum": True}
"""Options of the Parquet writer. Pages have checksums for readers that do not know the checksum of the whole file."""


def table_of(logged: Sequence[LoggedEvent]) -> pa.Table:
    """Return the events as a table with the columns of `SCHEMA`."""
    events = [entry.event for entry in logged]
    columns: dict[str, list[object]] = {name: [getattr(event, name) for event in events] for name in _SIMPLE_COLUMNS}
    columns["source"] = [entry.source for entry in logged]
    columns["offset"] = [entry.offset for entry in logged]
    columns["context"] = [msgspec.json.encode(event.context).decode() if event.context else "" for event in events]
    return pa.table({name: pa.array(columns[name], SCHEMA.field(name).type) for name in SCHEMA.names})


def with_all_columns(table: pa.Table) -> pa.Table:
    """Return the table with all columns of `SCHEMA`; columns that no file has yet are null."""
    for field in SCHEMA:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    return table.select(SCHEMA.names).cast(SCHEMA)


def logged_events(rows: pa.RecordBatch | pa.Table) -> Iterator[LoggedEvent]:
    """Yield the events in these rows, in their order. Columns are those of `SCHEMA`; any may be missing."""
    size, names = len(rows), set(rows.schema.names)

    def column(name: str, default: object = None) -> Iterable[Any]:
        """Return the values of a column with `default` for nulls; a column without values takes no per-row work."""
        if name not in names or (column := rows.column(name)).null_count == size:
            return repeat(default, size)
        entries = column.to_pylist()
        return [default if value is None else value for value in entries] if column.null_count else entries

    screens = [_SCREENS[value] if value is not None else None for value in column("screen")]
    contexts = (msgspec.json.decode(value) if value else {} for value in column("context"))
    texts = [column(name, "") for name in ("session_id", "device_id", "region", "placement", "request_id")]
    for (source, offset, screen, context, at, id_, kind, viewer_id, client_at, session_id, device_id, region, placement,
         request_id, item_id, slot, position_s, duration_s, percent, rating, items, attention, trust) in zip(
        column("source"), column("offset"), screens, contexts, column("at"), column("id"), column("kind"),
        column("viewer_id"), column("client_at"), *texts, column("item_id"), column("slot"), column("position_s"),
        column("duration_s"), column("percent"), column("rating"), column("items", ()), column("attention", ()),
        column("trust", "trusted"), strict=True,
    ):  # fmt: skip
        event = ViewerEvent(
            id=id_, kind=kind, viewer_id=viewer_id, at=at, client_at=client_at, session_id=session_id,
            device_id=device_id, screen=screen, region=region, placement=placement, request_id=request_id,
            item_id=item_id, slot=slot, position_s=position_s, duration_s=duration_s, percent=percent, rating=rating,
            items=tuple(items), attention=tuple(attention), trust=trust, context=context,
        )  # fmt: skip
        yield LoggedEvent(source, offset, event)
