"""The event log: Parquet files in one folder per day, written atomically and queried with DuckDB.

The worker writes a file per batch of a source, named by its offsets, so appending a range twice changes nothing;
`features.history.compaction` merges the files of a day. After a crash, offset ranges may overlap, and a file may exist
next to the compacted file that contains it. A client may also have sent an event twice. There are two ways to read:

* `events` and `replay` return each event once, at its first occurrence, in time order (for training and metrics).
* `by_offset` returns each offset of a source once, in offset order, with duplicate events (for the fold, which drops
  duplicates itself and records their offsets).

Neither returns erased events (`features.history.erasures`), nor the events of damaged files
(`features.history.damaged_files`).
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import duckdb
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from features.events.schema import LATEST
from features.history import files
from features.history.arrow_schema import SCHEMA, WRITER_OPTIONS, logged_events, table_of, with_all_columns
from features.history.damaged_files import DamagedFiles
from features.history.erasures import ErasureList
from features.history.log_epochs import LogEpochs
from features.state.votes import LoggedEvent
from recsys.domain.errors import Unavailable

_DAY_S = 86_400
FOREVER = LATEST + 1.0
MARGIN = timedelta(days=1)  # files of the day before the requested days are read as well
TRIES = 20
CHUNK = 20_000

_DEDUPLICATED = """
    SELECT * FROM (
      SELECT * FROM log QUALIFY row_number() OVER (PARTITION BY viewer_id, id ORDER BY source, "offset") = 1
    ) WHERE "at" >= $since AND "at" < $until ORDER BY "at", source, "offset"
"""
_DEDUPLICATED_SINCE = """
    WITH matching AS MATERIALIZED (
      SELECT * FROM log WHERE "at" >= $since AND "at" < $until
      QUALIFY row_number() OVER (PARTITION BY viewer_id, id ORDER BY source, "offset") = 1
    ), outside AS (
      SELECT viewer_id, id, source, "offset" FROM log SEMI JOIN matching USING (viewer_id, id)
      WHERE NOT ("at" >= $since AND "at" < $until)
    )
    SELECT * FROM matching WHERE NOT EXISTS (
      SELECT 1 FROM outside WHERE outside.viewer_id = matching.viewer_id AND outside.id = matching.id
        AND (outside.source < matching.source
          OR (outside.source = matching.source AND outside."offset" < matching."offset"))
    ) ORDER BY "at", source, "offset"
"""  # the same result, without sorting the whole log

WRITING, REWRITING = "writing", "rewriting"
"""Lock names. Appends share the first lock, and an erasure briefly takes it alone; the second is always exclusive."""


class EventLog:
    """A log of events in Parquet files below one directory."""

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self.erasures, self.epochs = ErasureList(self.directory), LogEpochs(self.directory)
        self.damaged = DamagedFiles(self.directory)

    def append(self, source: str, first: int, last: int, events: Sequence[LoggedEvent]) -> None:
        """Write the events of one source (`features.history.log_epochs`) whose batch covered offsets `first`..`last`.

        The file is durable on return. An existing file is not rewritten, and erased events are left out. Raises
        Unavailable.
        """
        if not events:
            return
        try:
            with files.locked(self.directory, WRITING, shared=True):
                events = self.erasures.without_erased(events)  # under the lock, so that no erasure is in progress
                if events:
                    self._write(_name(source, first, last), events)
                    files.sync(self.directory)
        except OSError as error:
            raise Unavailable(f"event log {self.directory}: {error}") from error

    def events(self, since: float = 0.0, until: float = FOREVER) -> pa.Table:
        """Return the events with `since <= at < until` (unix seconds), each once, sorted by (at, source, offset).

        Columns are those of `SCHEMA`: the fields of `ViewerEvent` plus source and offset. An event that was also sent
        before `since` counts at that earlier time and is left out, so the ids in all earlier files are read. Raises
        Unavailable.
        """
        return with_all_columns(
            self.query(
                _DEDUPLICATED if since <= 0 else _DEDUPLICATED_SINCE, {"since": since, "until": until}, 0.0, until
            )
        )

    def replay(self, since: float = 0.0, until: float = FOREVER) -> Iterator[LoggedEvent]:
        """Yield the events that `events` returns, as objects in the same order."""
        for batch in self.events(since, until).to_batches(max_chunksize=CHUNK):
            yield from logged_events(batch)

    def sources(self) -> list[str]:
        """Return the sources of the logged events, those of older log epochs first. Raises Unavailable."""
        table = self.query("SELECT DISTINCT source FROM log ORDER BY source", {})
        return [str(source) for source in table["source"].to_pylist()]

    def by_offset(self, source: str) -> Iterator[LoggedEvent]:
        """Yield all events of a source in offset order, each offset once. Raises Unavailable."""
        query = """
            SELECT * FROM log WHERE source = $source
            QUALIFY row_number() OVER (PARTITION BY "offset") = 1 ORDER BY "offset"
        """
        for batch in with_all_columns(self.query(query, {"source": source})).to_batches(max_chunksize=CHUNK):
            yield from logged_events(batch)

    def query(
        self, query: str, parameters: Mapping[str, object], since: float = 0.0, until: float = FOREVER
    ) -> pa.Table:
        """Return the result of a query over the view `log`. Raises Unavailable.

        The view holds the rows of all files that may contain events of the requested days or of the day before them,
        without erased events; it may contain an offset or an event more than once.
        """
        return self.queries((query,), parameters, since, until)[0]

    def queries(
        self,
        queries: Sequence[str],
        parameters: Mapping[str, object],
        since: float = 0.0,
        until: float = FOREVER,
        setup: Sequence[str] = (),
    ) -> list[pa.Table]:
        """Return the results of several queries over one consistent view `log`, as `query` does. Raises Unavailable.

        setup  statements that run first, for temporary tables that the queries share

        If a compaction removes a file before DuckDB reads it, the files are listed again. Damaged files are left out.
        """
        is_retry = False
        for _ in range(TRIES):
            paths = self.files(since, until)
            try:
                paths = self.damaged.without_damaged(paths, recheck=is_retry)
                with duckdb.connect() as database:
                    if paths:
                        create_view(database, paths, self.erasures.all())
                    else:
                        database.register("log", SCHEMA.empty_table())
                    for statement in setup:
                        database.execute(statement, _parameters_of(statement, parameters))
                    return [
                        database.sql(query, params=_parameters_of(query, parameters)).to_arrow_table()
                        for query in queries
                    ]
            except (duckdb.Error, pa.ArrowException, OSError) as error:
                if all(Path(path).exists() for path in paths):
                    if is_retry:  # not a file that was damaged after its verification
                        raise Unavailable(f"event log {self.directory}: {error}") from error
                    is_retry = True
        raise Unavailable(f"event log {self.directory}: files changed during each of {TRIES} read attempts")

    def files(self, since: float = 0.0, until: float = FOREVER) -> list[str]:
        """Return the paths of files that may contain events of the requested days or of the day before them."""
        earliest = str(files.day_of(min(max(since, _DAY_S), FOREVER)) - MARGIN)
        return files.list_files(self.directory, earliest, "~" if until >= FOREVER else str(files.day_of(until)))

    def _write(self, name: str, events: Sequence[LoggedEvent]) -> None:
        """Write the events to a file of this name, unless an intact one exists."""
        times = [logged.event.at for logged in events]
        folder, until = files.folder_of(self.directory, files.day_of(min(times))), files.day_of(max(times))
        existing = folder.glob(f"{name}{files.CHECKSUM}*{files.UNTIL}{until}.parquet")
        if not any(self.damaged.is_intact(file) for file in existing):
            table = table_of(events)
            files.write_checksummed(folder, name, until, lambda out: pq.write_table(table, out, **WRITER_OPTIONS))
        files.sync(folder)


def _name(source: str, first: int, last: int) -> str:
    """Return the beginning of the name of a file with these offsets of a source."""
    source_name = quote(source, safe="").replace("%2F", "-")
    return f"{source_name}-{first:020}-{last:020}"


def create_view(database: duckdb.DuckDBPyConnection, paths: Sequence[str], erased: Mapping[str, float]) -> None:
    """Create the view `log` over these files, without erased events."""
    names = ", ".join("'" + duckdb_path(path).replace("'", "''") + "'" for path in paths)
    columns = f"SELECT * FROM read_parquet([{names}], union_by_name = true, hive_partitioning = false)"
    database.register("log_names", SCHEMA.empty_table())  # adds columns that no file has yet
    columns = f"SELECT * FROM log_names UNION ALL BY NAME {columns}"
    if erased:
        database.register("erased", pa.table({"viewer_hash": list(erased), "erased_at": list(erased.values())}))
        columns = f"""
            SELECT events.* FROM ({columns}) events
            LEFT JOIN erased ON erased.viewer_hash = sha256(events.viewer_id)
            WHERE erased.viewer_hash IS NULL OR events."at" > erased.erased_at
        """
    database.execute(f"CREATE TEMP VIEW log AS {columns}")


def duckdb_path(path: str) -> str:
    """Return the path as DuckDB must get it to read exactly this file.

    DuckDB takes a path as a pattern if no file has its exact name: `a*b/x.parquet` could be a file of another engine.

    >>> duckdb_path("/data/a[1]/x.parquet")
    '/data/a[[]1]/x.parquet'
    """
    return glob.escape(path)


def _parameters_of(query: str, parameters: Mapping[str, object]) -> dict[str, object]:
    """Return the parameters that the query names, since DuckDB rejects unused ones."""
    return {name: value for name, value in parameters.items() if f"${name}" in query}
