"""The event log: Parquet files in folders by day, written once, never half visible, queried with DuckDB.

One file holds one batch of one source and is named by the days of its oldest and newest event and by its offsets:
`day=2026-01-31/viewer-events-0-…100-…199-until-2026-01-31.parquet`. So appending the same range twice changes nothing,
and a query opens only the files of its days. After a crash ranges may overlap, and a client may have sent an event
twice: reading yields an event once, where it came first.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import duckdb
import msgspec
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from features.events import LATEST, ViewerEvent
from features.fold import Placed
from recsys.errors import Unavailable

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
_PLACE = {"source", "offset"}
_PLAIN = [name for name in SCHEMA.names if name not in _PLACE | {"context"}]
_DAY_S = 86_400
FOREVER = LATEST + 1.0
RETRIED_WITHIN = timedelta(days=1)  # so far back is looked for the first copy of an event that was sent twice


class EventLog:
    """Events as Parquet files below one directory."""

    def __init__(self, directory: str | Path) -> None:
        self._directory = Path(directory)

    def append(self, source: str, first: int, last: int, placed: Sequence[Placed]) -> None:
        """Write the events of one source ("topic/partition") whose batch covered offsets `first`..`last`.

        On the disk on return; a file that exists is left alone. Raises Unavailable.
        """
        if not placed:
            return
        days = [one.event.at // _DAY_S * _DAY_S for one in placed]
        folder = self._directory / f"day={_date(min(days))}"
        where = quote(source, safe="").replace("%2F", "-")
        file = folder / f"{where}-{first:020}-{last:020}-until-{_date(max(days))}.parquet"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not file.exists():
                _write(file, _table(placed))
            _sync(folder)
            _sync(self._directory)
        except OSError as error:
            raise Unavailable(f"event log {self._directory}: {error}") from error

    def events(self, since: float = 0.0, until: float = FOREVER) -> pa.Table:
        """Events with `since <= at < until` (unix seconds), each once, sorted by (at, source, offset).

        Columns of `SCHEMA`: those of `ViewerEvent` and the place in the log. Raises Unavailable.
        """
        files = self.files(since, until)
        if not files:
            return SCHEMA.empty_table()
        query = """
            SELECT * FROM read_parquet($files, union_by_name = true)
            QUALIFY row_number() OVER (PARTITION BY viewer_id, id ORDER BY source, "offset") = 1
        """
        query = f'SELECT * FROM ({query}) WHERE "at" >= $since AND "at" < $until ORDER BY "at", source, "offset"'
        try:
            with duckdb.connect() as database:
                found = database.sql(query, params={"files": files, "since": since, "until": until})
                return _whole(found.to_arrow_table())
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise Unavailable(f"event log {self._directory}: {error}") from error

    def replay(self, since: float = 0.0, until: float = FOREVER) -> Iterator[Placed]:
        """The same events as objects, in the same order."""
        for batch in self.events(since, until).to_batches(max_chunksize=10_000):
            yield from map(_placed, batch.to_pylist())

    def files(self, since: float, until: float) -> list[str]:
        """Paths of the files that may hold events of the days asked for, or of the day before them."""
        earliest = str(_date(min(max(since, _DAY_S), FOREVER)) - RETRIED_WITHIN)
        latest = "~" if until >= FOREVER else str(_date(until))
        return [
            str(file)
            for folder in sorted(self._directory.glob("day=*"))
            if folder.name.removeprefix("day=") <= latest
            for file in sorted(folder.glob("*.parquet"))
            if file.stem.rpartition("-until-")[2] >= earliest
        ]


def _date(at: float) -> date:
    return datetime.fromtimestamp(at, UTC).date()


def _table(placed: Sequence[Placed]) -> pa.Table:
    """Events as columns."""
    events = [one.event for one in placed]
    columns: dict[str, list[object]] = {name: [getattr(event, name) for event in events] for name in _PLAIN}
    columns["source"] = [one.source for one in placed]
    columns["offset"] = [one.offset for one in placed]
    columns["context"] = [msgspec.json.encode(event.context).decode() if event.context else "" for event in events]
    return pa.table({name: pa.array(columns[name], SCHEMA.field(name).type) for name in SCHEMA.names})


def _whole(found: pa.Table) -> pa.Table:
    """The columns of `SCHEMA`; one that no file has yet, because all are older than it, is empty."""
    for field in SCHEMA:
        if field.name not in found.column_names:
            found = found.append_column(field, pa.nulls(len(found), field.type))
    return found.select(SCHEMA.names).cast(SCHEMA)


def _placed(row: dict[str, object]) -> Placed:
    """An event out of a row of the log."""
    source, offset, context = row.pop("source"), row.pop("offset"), row.pop("context")
    said = {name: entry for name, entry in row.items() if entry is not None}
    if context:
        said["context"] = msgspec.json.decode(str(context))
    return Placed(str(source), int(str(offset)), msgspec.convert(said, ViewerEvent))


def _write(file: Path, table: pa.Table) -> None:
    """Under another name first, so that a reader sees the whole file or none."""
    draft = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        with draft.open("wb") as out:
            pq.write_table(table, out, compression="zstd")
            out.flush()
            os.fsync(out.fileno())
        draft.rename(file)
    finally:
        draft.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
