"""The event log: Parquet files in folders by day, never half visible, queried with DuckDB.

The worker writes a file for each batch of a source, named by offsets, so that appending a range twice changes nothing;
`features.history.compaction` makes one of the many. After a crash ranges may overlap, a file may stand beside the one
it became part of, and a client may have sent an event twice. Two ways to read:

* `events`, `replay`: an event once, where it came first, in the order of time (for training and measures);
* `by_offset`: each place of the stream once, in the order of the stream, repeats included (for the fold, which leaves
  them out itself, and remembers their offsets).

Neither shows what was erased (`features.history.erasures`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import duckdb
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from features.events.schema import LATEST
from features.history import files
from features.history.arrow_schema import SCHEMA, logged_events, table_of, with_all_columns
from features.history.erasures import ErasureList
from features.history.log_epochs import LogEpochs
from features.state.votes import LoggedEvent
from recsys.domain.errors import Unavailable

_DAY_S = 86_400
FOREVER = LATEST + 1.0
MARGIN = timedelta(days=1)  # before the days asked for, of which files are read as well
TRIES = 20
CHUNK = 20_000

_ONCE = """
    SELECT * FROM (
      SELECT * FROM log QUALIFY row_number() OVER (PARTITION BY viewer_id, id ORDER BY source, "offset") = 1
    ) WHERE "at" >= $since AND "at" < $until ORDER BY "at", source, "offset"
"""
_ONCE_SINCE = """
    WITH mine AS MATERIALIZED (
      SELECT * FROM log WHERE "at" >= $since AND "at" < $until
      QUALIFY row_number() OVER (PARTITION BY viewer_id, id ORDER BY source, "offset") = 1
    ), other AS (
      SELECT viewer_id, id, source, "offset" FROM log SEMI JOIN mine USING (viewer_id, id)
      WHERE NOT ("at" >= $since AND "at" < $until)
    )
    SELECT * FROM mine WHERE NOT EXISTS (
      SELECT 1 FROM other WHERE other.viewer_id = mine.viewer_id AND other.id = mine.id
        AND (other.source < mine.source OR (other.source = mine.source AND other."offset" < mine."offset"))
    ) ORDER BY "at", source, "offset"
"""  # the same, without sorting the whole log

WRITING, REWRITING = "writing", "rewriting"
"""Locks: whoever appends shares the first, an erasure holds it for a moment; one at a time holds the second."""


class EventLog:
    """Events as Parquet files below one directory."""

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self.erased, self.lives = ErasureList(self.directory), LogEpochs(self.directory)

    def append(self, source: str, first: int, last: int, placed: Sequence[LoggedEvent]) -> None:
        """Write the events of one source (`features.history.log_epochs`) whose batch covered offsets `first`..`last`.

        On the disk on return; a file that exists is left alone, and erased events are left out. Raises Unavailable.
        """
        if not placed:
            return
        try:
            with files.locked(self.directory, WRITING, shared=True):
                placed = self.erased.without_erased(placed)  # read under the lock: no erasure is half done meanwhile
                if placed:
                    file = self._file(source, first, last, placed)
                    if not file.exists():
                        table = table_of(placed)
                        files.write(file, lambda out: pq.write_table(table, out, compression="zstd"))
                    files.sync(file.parent)
                    files.sync(self.directory)
        except OSError as error:
            raise Unavailable(f"event log {self.directory}: {error}") from error

    def events(self, since: float = 0.0, until: float = FOREVER) -> pa.Table:
        """Events with `since <= at < until` (unix seconds), each once, sorted by (at, source, offset).

        Columns of `SCHEMA`: those of `ViewerEvent` and the place in the log. An event that was sent before `since` as
        well, however long, stands there: of all earlier files the ids are read. Raises Unavailable.
        """
        return with_all_columns(
            self.query(_ONCE if since <= 0 else _ONCE_SINCE, {"since": since, "until": until}, 0.0, until)
        )

    def replay(self, since: float = 0.0, until: float = FOREVER) -> Iterator[LoggedEvent]:
        """The same events as objects, in the same order."""
        for batch in self.events(since, until).to_batches(max_chunksize=CHUNK):
            yield from logged_events(batch)

    def sources(self) -> list[str]:
        """The partitions of the stream that the log has events of, those of older lives of the stream first. Raises
        Unavailable."""
        found = self.query("SELECT DISTINCT source FROM log ORDER BY source", {})
        return [str(source) for source in found["source"].to_pylist()]

    def by_offset(self, source: str) -> Iterator[LoggedEvent]:
        """All events of a source in offset order, each offset once. Raises Unavailable."""
        query = """
            SELECT * FROM log WHERE source = $source
            QUALIFY row_number() OVER (PARTITION BY "offset") = 1 ORDER BY "offset"
        """
        for batch in with_all_columns(self.query(query, {"source": source})).to_batches(max_chunksize=CHUNK):
            yield from logged_events(batch)

    def query(self, query: str, said: Mapping[str, object], since: float = 0.0, until: float = FOREVER) -> pa.Table:
        """What a query over the view `log` finds: the rows of all files that may hold events of the days asked for, or
        of the day before them, without what was erased; repeats may be among them. Raises Unavailable.
        """
        return self.queries((query,), said, since, until)[0]

    def queries(
        self,
        queries: Sequence[str],
        said: Mapping[str, object],
        since: float = 0.0,
        until: float = FOREVER,
        made: Sequence[str] = (),
    ) -> list[pa.Table]:
        """What each of several queries finds in one and the same log, as `query`. Raises Unavailable.

        made  statements before them, for temporary tables that the queries share

        A file that a compaction took away before DuckDB came to it is looked for in its new place.
        """
        for _ in range(TRIES):
            paths = self.files(since, until)
            try:
                with duckdb.connect() as database:
                    if paths:
                        view(database, paths, self.erased.all())
                    else:
                        database.register("log", SCHEMA.empty_table())
                    for statement in made:
                        database.execute(statement, _used(statement, said))
                    return [database.sql(query, params=_used(query, said)).to_arrow_table() for query in queries]
            except (duckdb.Error, pa.ArrowException, OSError) as error:
                if all(Path(path).exists() for path in paths):
                    raise Unavailable(f"event log {self.directory}: {error}") from error
        raise Unavailable(f"event log {self.directory}: its files change faster than they can be read")

    def files(self, since: float = 0.0, until: float = FOREVER) -> list[str]:
        """Paths of the files that may hold events of the days asked for, or of the day before them."""
        earliest = str(files.day_of(min(max(since, _DAY_S), FOREVER)) - MARGIN)
        return files.list_files(self.directory, earliest, "~" if until >= FOREVER else str(files.day_of(until)))

    def _file(self, source: str, first: int, last: int, placed: Sequence[LoggedEvent]) -> Path:
        times = [one.event.at for one in placed]
        where = quote(source, safe="").replace("%2F", "-")
        name = f"{where}-{first:020}-{last:020}{files.UNTIL}{files.day_of(max(times))}.parquet"
        return files.folder_of(self.directory, files.day_of(min(times))) / name


def view(database: duckdb.DuckDBPyConnection, paths: Sequence[str], erased: Mapping[str, float]) -> None:
    """The view `log` over these files."""
    names = ", ".join("'" + path.replace("'", "''") + "'" for path in paths)
    columns = f"SELECT * FROM read_parquet([{names}], union_by_name = true, hive_partitioning = false)"
    database.register("log_names", SCHEMA.empty_table())  # so that a column which all files lack is there
    columns = f"SELECT * FROM log_names UNION ALL BY NAME {columns}"
    if erased:
        database.register("gone", pa.table({"who": list(erased), "upto": list(erased.values())}))
        columns = f"""
            SELECT one.* FROM ({columns}) one LEFT JOIN gone ON gone.who = sha256(one.viewer_id)
            WHERE gone.who IS NULL OR one."at" > gone.upto
        """
    database.execute(f"CREATE TEMP VIEW log AS {columns}")


def _used(query: str, said: Mapping[str, object]) -> dict[str, object]:
    """DuckDB refuses parameters that a query does not name."""
    return {name: entry for name, entry in said.items() if f"${name}" in query}
