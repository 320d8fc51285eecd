"""Compaction of the small files of a day into one, transparent to readers and safe against crashes.

The merged file is durable before the first of its parts is deleted. A crash in between leaves both; since readers
return each offset of a source once, nothing is counted twice, and the next compaction removes the parts. A reader that
has a part open can finish reading it; a reader that only has its name lists the files again (`EventLog.query`). Erased
events are left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import IO

import duckdb
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from features.history import files
from features.history.arrow_schema import SCHEMA, WRITER_OPTIONS, with_all_columns
from features.history.event_log import REWRITING, WRITING, EventLog, create_view, duckdb_path
from recsys.domain.errors import Unavailable

ROWS = 100_000
"""Approximate rows per row group. Within a file, events are in time order."""


@dataclass(frozen=True)
class CompactionResult:
    """The result of a compaction: files before and after in the days it changed; `busy` if another one was running."""

    before: int = 0
    after: int = 0
    busy: bool = False


def compact(log: EventLog, min_files: int = 2, wait: bool = False) -> CompactionResult:
    """Merge the files of each day whose folder has at least `min_files` files or contains events of other days.

    This is safe with any number of concurrent readers and writers; one compaction or erasure runs at a time. With
    `wait`, wait for a running one; otherwise return a result with `busy` set. Raises Unavailable.
    """
    before = after = 0
    try:
        with files.locked(log.directory, REWRITING, wait=wait) as acquired:
            if not acquired:
                return CompactionResult(busy=True)
            done: set[Path] = set()
            while folder := next((day for day in files.days(log.directory) if day not in done), None):
                done.add(folder)  # a merge moves events of other days into later folders, which are visited later
                if parts := _parts_to_merge(log, folder, min_files):
                    before += len(parts)
                    after += len(_merge(log, parts))
    except (OSError, duckdb.Error, pa.ArrowException) as error:
        raise Unavailable(f"event log {log.directory}: {error}") from error
    return CompactionResult(before, after)


def _parts_to_merge(log: EventLog, folder: Path, min_files: int) -> list[Path]:
    """Return the intact files of a day if they should be merged, else none. Damaged files move to the quarantine."""
    parts = sorted(folder.glob("*.parquet"))
    if len(parts) >= max(min_files, 2) or (len(parts) == 1 and _spans_days(parts[0])):
        return [part for part in parts if log.damaged.is_intact(part, recheck=True)]
    return []


def _spans_days(part: Path) -> bool:
    """Return whether a file contains events of a later day than that of its folder."""
    return part.stem.rpartition(files.UNTIL)[2] != part.parent.name.removeprefix("day=")


def _merge(log: EventLog, parts: Sequence[Path]) -> list[Path]:
    """Write the rows of these files into one file per day, then delete the files."""
    digest = hashlib.blake2b("\n".join(part.name for part in parts).encode(), digest_size=8).hexdigest()
    name, written = f"{files.COMPACTED_PREFIX}{digest}-{parts[0].parent.name[4:]}", []
    with duckdb.connect() as database:
        create_view(database, [str(part) for part in parts], log.erasures.all())
        for day in _days(database):
            folder, fill = files.folder_of(log.directory, day), partial(_write_day, database=database, day=day)
            written.append(files.write_checksummed(folder, name, day, fill))
    files.sync(log.directory)
    for part in parts:
        if part not in written:
            part.unlink(missing_ok=True)  # a reader may have found it damaged in the meantime
    files.sync(parts[0].parent)
    return written


def _days(database: duckdb.DuckDBPyConnection) -> list[date]:
    rows = database.sql('SELECT DISTINCT floor("at" / 86400)::BIGINT AS day FROM log ORDER BY day').fetchall()
    return [date(1970, 1, 1) + timedelta(days=day) for (day,) in rows]


def _write_day(out: IO[bytes], database: duckdb.DuckDBPyConnection, day: date) -> None:
    since = datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
    query = """
        SELECT * FROM log WHERE "at" >= $since AND "at" < $until
        QUALIFY row_number() OVER (PARTITION BY source, "offset") = 1 ORDER BY "at", source, "offset"
    """
    rows = database.sql(query, params={"since": since, "until": since + 86_400.0})
    with pq.ParquetWriter(out, SCHEMA, **WRITER_OPTIONS) as writer:
        for batch in rows.to_arrow_reader(ROWS):
            writer.write_table(with_all_columns(pa.Table.from_batches([batch])), row_group_size=ROWS)


def purge(log: EventLog, viewer_id: str) -> int:
    """Rewrite every file that contains erased events of this viewer; return the number of these files.

    `log.erasures` must contain the erasure. On return no file of the log contains the viewer's id, except in events
    after the erasure. Damaged files are moved to the quarantine and not searched. Raises Unavailable.
    """
    try:
        with files.locked(log.directory, WRITING):  # earlier writers are done, and later ones see the erasure
            for draft in log.directory.glob(f"day=*/.*{files.DRAFT}"):
                if not draft.name.startswith(f".{files.COMPACTED_PREFIX}"):
                    draft.unlink(missing_ok=True)  # of a writer that crashed
        with files.locked(log.directory, REWRITING):
            for draft in log.directory.glob(f"day=*/.{files.COMPACTED_PREFIX}*{files.DRAFT}"):
                draft.unlink(missing_ok=True)
            erased_at = log.erasures.erased_at(viewer_id)
            intact = log.damaged.without_damaged(files.list_files(log.directory))
            parts = _with_erased_events(intact, viewer_id, erased_at)
            for _, parts_of_day in groupby(parts, key=lambda part: part.parent):
                _merge(log, list(parts_of_day))  # one file per day, so that a log of many small files takes few writes
    except (OSError, duckdb.Error, pa.ArrowException) as error:
        raise Unavailable(f"event log {log.directory}: {error}") from error
    return len(parts)


def _with_erased_events(parts: Sequence[str], viewer_id: str, erased_at: float) -> list[Path]:
    """Return the files that contain erased events of this viewer, sorted. All files are read in one query."""
    if not parts:
        return []
    with duckdb.connect() as database:
        query = """
            SELECT DISTINCT filename FROM read_parquet($files, union_by_name = true, filename = true)
            WHERE viewer_id = $viewer AND "at" <= $erased_at
        """
        parameters = {"files": [duckdb_path(part) for part in parts], "viewer": viewer_id, "erased_at": erased_at}
        return sorted(Path(name) for (name,) in database.sql(query, params=parameters).fetchall())
