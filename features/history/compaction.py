"""Compaction: the many small files of a day become one, and no reader or crash ever notices.

The whole file is written and durable before the first of its parts goes. A crash in between leaves both, and since
reading takes each place of the stream once, nothing is doubled; the next compaction clears it up. A reader that has a
part open goes on with it; one that has only its name looks again (`EventLog.query`). Erased events are left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import IO

import duckdb
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from features.history import files
from features.history.arrow_schema import SCHEMA, with_all_columns
from features.history.event_log import REWRITING, WRITING, EventLog, view
from recsys.domain.errors import Unavailable

ROWS = 100_000
"""Rows of a row group, about; within a file events stand in the order of time."""


@dataclass(frozen=True)
class Compacted:
    """What a compaction did: files before and after, of the days that it touched; `busy` when another was at work."""

    before: int = 0
    after: int = 0
    busy: bool = False


def compact(log: EventLog, least: int = 2, wait: bool = False) -> Compacted:
    """Make one file of the files in each day's folder that holds at least `least`, or events of other days.

    Safe beside any number of readers and writers; one compaction or erasure works at a time. Raises Unavailable.
    """
    before = after = 0
    try:
        with files.locked(log.directory, REWRITING, wait=wait) as mine:
            if not mine:
                return Compacted(busy=True)
            done: set[Path] = set()
            while folder := next((one for one in files.days(log.directory) if one not in done), None):
                done.add(folder)  # a merge puts strays into folders of later days, which come later
                parts = sorted(folder.glob("*.parquet"))
                if len(parts) >= max(least, 2) or (len(parts) == 1 and _unmerged_files(parts[0])):
                    before += len(parts)
                    after += len(_merge(log, parts))
    except (OSError, duckdb.Error, pa.ArrowException) as error:
        raise Unavailable(f"event log {log.directory}: {error}") from error
    return Compacted(before, after)


def _unmerged_files(part: Path) -> bool:
    """Whether a file holds events of a later day than its folder's."""
    return part.stem.rpartition(files.UNTIL)[2] != part.parent.name.removeprefix("day=")


def _merge(log: EventLog, parts: Sequence[Path]) -> list[Path]:
    """Write the rows of these files into one file for each day they are of, then take the files away."""
    mark = hashlib.blake2b("\n".join(part.name for part in parts).encode(), digest_size=8).hexdigest()
    made = []
    with duckdb.connect() as database:
        view(database, [str(part) for part in parts], log.erased.all())
        for day in _days(database):
            name = f"{files.FILE_SUFFIX}{mark}-{parts[0].parent.name[4:]}{files.UNTIL}{day}.parquet"
            file = files.folder_of(log.directory, day) / name
            files.write(file, lambda out, day=day: _fill(out, database, day))  # type: ignore[misc]
            made.append(file)
    files.sync(log.directory)
    for part in parts:
        if part not in made:
            part.unlink()
    files.sync(parts[0].parent)
    return made


def _days(database: duckdb.DuckDBPyConnection) -> list[date]:
    found = database.sql('SELECT DISTINCT floor("at" / 86400)::BIGINT AS day FROM log ORDER BY day').fetchall()
    return [date(1970, 1, 1) + timedelta(days=day) for (day,) in found]


def _fill(out: IO[bytes], database: duckdb.DuckDBPyConnection, day: date) -> None:
    since = datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
    query = """
        SELECT * FROM log WHERE "at" >= $since AND "at" < $until
        QUALIFY row_number() OVER (PARTITION BY source, "offset") = 1 ORDER BY "at", source, "offset"
    """
    found = database.sql(query, params={"since": since, "until": since + 86_400.0})
    with pq.ParquetWriter(out, SCHEMA, compression="zstd") as writer:
        for batch in found.to_arrow_reader(ROWS):
            writer.write_table(with_all_columns(pa.Table.from_batches([batch])), row_group_size=ROWS)


def purge(log: EventLog, viewer_id: str) -> int:
    """Write every file anew that holds erased events of this viewer; returns how many there were.

    The erasure must stand in `log.erased`. On return no byte of the viewer's id is left in any file of the log, but for
    what the viewer did after the erasure. Raises Unavailable.
    """
    try:
        with files.locked(log.directory, WRITING):  # whoever was writing is done; whoever comes now knows
            for draft in log.directory.glob(f"day=*/.*{files.DRAFT}"):
                if not draft.name.startswith(f".{files.FILE_SUFFIX}"):
                    draft.unlink(missing_ok=True)  # of a writer that died
        with files.locked(log.directory, REWRITING):
            for draft in log.directory.glob(f"day=*/.{files.FILE_SUFFIX}*{files.DRAFT}"):
                draft.unlink(missing_ok=True)
            upto = log.erased.of(viewer_id)
            parts = [part for part in files.list_files(log.directory) if _holds(part, viewer_id, upto)]
            for part in parts:
                _merge(log, [Path(part)])
    except (OSError, duckdb.Error, pa.ArrowException) as error:
        raise Unavailable(f"event log {log.directory}: {error}") from error
    return len(parts)


def _holds(part: str, viewer_id: str, upto: float) -> bool:
    with duckdb.connect() as database:
        query = 'SELECT 1 FROM read_parquet($file) WHERE viewer_id = $viewer AND "at" <= $upto LIMIT 1'
        said = {"file": part, "viewer": viewer_id, "upto": upto}
        return bool(database.sql(query, params=said).fetchall())
