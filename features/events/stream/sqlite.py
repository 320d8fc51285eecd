"""The stream adapter for SQLite, the embedded default: a durable log in one file, shared by several processes.

One member of a consumer group owns all partitions; the others wait (`features.events.stream.sqlite_claim`). After
`kill -9` the next member takes over at once, and a stopped member loses its claim within the session time.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress

from features.checksum import seal, unseal
from features.events.stream import sqlite_claim, sqlite_retention
from features.events.stream.partitioner import has_shrunk, partition_of
from features.events.stream.port import Backlog, Message, Record, Retention, ValueFilter
from features.events.stream.sqlite_checksums import (
    DELETED_KEY,
    add_checksums,
    commit_checksum,
    committed_offsets,
    message_checksum,
)
from features.events.stream.sqlite_claim import GroupClaim
from features.events.stream.sqlite_retention import PRESENT_CONDITION, TIME_INDEX_INTERVAL_S
from features.sqlite import damage_line, map_sqlite_errors, open_database, transaction
from recsys.domain.errors import Conflict, DamagedData, Unavailable

_SCHEMA = (
    """
CREATE TABLE IF NOT EXISTS topic (name TEXT PRIMARY KEY, partitions INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS message (
  topic TEXT NOT NULL, partition INTEGER NOT NULL, "offset" INTEGER NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL,
  checksum INTEGER NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS message_place ON message (topic, partition, "offset");
CREATE TABLE IF NOT EXISTS done (
  topic TEXT NOT NULL, consumers TEXT NOT NULL, partition INTEGER NOT NULL, "offset" INTEGER NOT NULL,
  checksum INTEGER NOT NULL, PRIMARY KEY (topic, consumers, partition)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS identity (one INTEGER PRIMARY KEY CHECK (one = 1), id TEXT NOT NULL);
"""
    + sqlite_retention.SCHEMA
    + sqlite_claim.SCHEMA
)
_READ = f"""
SELECT "offset", coalesce(CAST(key AS TEXT), ''), coalesce(CAST(value AS BLOB), x''), checksum
FROM message WHERE topic = ? AND partition = ? AND "offset" >= ? AND {PRESENT_CONDITION}
ORDER BY "offset" LIMIT ?
"""
_KIND = "stream"
_BUSY_TIMEOUT_S = 10.0
_POLL_INTERVAL_S = 0.02


class SqliteStream:
    """A set of topics in one SQLite file."""

    def __init__(
        self,
        path: str,
        partitions: int = 4,
        clock: Callable[[], float] = time.time,
        session_s: float = sqlite_claim.SESSION_S,
    ) -> None:
        """Open the file, creating it if it is missing. `session_s`: until a stopped member loses its claim."""
        self._path, self._partitions, self._clock, self._session_s = path, partitions, clock, session_s
        self._lock = threading.Lock()
        self._db = open_database(path, _SCHEMA, _BUSY_TIMEOUT_S, _KIND)
        with map_sqlite_errors(path, _KIND):
            add_checksums(self._db)
        self._partition_counts: dict[str, int] = {}
        self._indexed_at: dict[tuple[str, int], float] = {}  # when the write time was last indexed

    @property
    def retention(self) -> Retention:
        """The stream itself."""
        return self

    def publish(self, topic: str, records: Sequence[Record]) -> Mapping[int, int]:
        """Append all records or none; they are durable on return. Raises Unavailable."""
        if not records:
            return {}
        partitions = self.partitions(topic)
        with self._lock, map_sqlite_errors(self._path, _KIND), transaction(self._db):
            ends: dict[int, int] = {}
            starts: dict[int, int] = {}
            rows = []
            for record in records:
                partition = partition_of(record.key, partitions)
                offset = ends.get(partition)
                if offset is None:
                    offset = starts[partition] = self._log_end_offset(topic, partition)
                ends[partition] = offset + 1
                checksum = message_checksum(topic, partition, offset, record.key, record.value)
                rows.append((topic, partition, offset, record.key, record.value, checksum))
            self._db.executemany("INSERT INTO message VALUES (?, ?, ?, ?, ?, ?)", rows)
            indexed = self._index_write_time(topic, starts)
        self._indexed_at |= indexed  # after the commit, so that a rollback leaves it unchanged
        return {partition: end - 1 for partition, end in ends.items()}

    def consumer(self, topic: str, group: str) -> SqliteConsumer:
        """Join a consumer group."""
        return SqliteConsumer(self._path, topic, group, self.partitions(topic), self._session_s)

    def read(self, topic: str, partition: int, offset: int, limit: int) -> list[Message]:
        """Read messages of one partition from an offset on."""
        with self._lock, map_sqlite_errors(self._path, _KIND):
            return _read(self._db, topic, partition, offset, limit)

    def partitions(self, topic: str) -> int:
        """Return the number of partitions of a topic, creating it if it is missing."""
        if topic not in self._partition_counts:
            with self._lock, map_sqlite_errors(self._path, _KIND), transaction(self._db):
                self._db.execute("INSERT OR IGNORE INTO topic VALUES (?, ?)", (topic, self._partitions))
                row = self._db.execute("SELECT partitions FROM topic WHERE name = ?", (topic,)).fetchone()
                self._partition_counts[topic] = int(row[0])
        return self._partition_counts[topic]

    def identity(self, topic: str) -> str:
        """Return the identity of the file that is now at the path, which may have been replaced since it was opened."""
        if not os.path.exists(self._path):
            raise Unavailable(f"{self._path} no longer exists")
        with (
            closing(open_database(self._path, _SCHEMA, _BUSY_TIMEOUT_S, _KIND)) as db,
            map_sqlite_errors(self._path, _KIND),
        ):
            if (row := db.execute("SELECT id FROM identity").fetchone()) is None:
                with transaction(db):
                    sealed = seal(uuid.uuid4().hex.encode()).decode()
                    db.execute("INSERT OR IGNORE INTO identity VALUES (1, ?)", (sealed,))
                    row = db.execute("SELECT id FROM identity").fetchone()
        try:
            return unseal(str(row[0]).encode()).decode()
        except DamagedData as error:  # another identity would make the workers count all messages again
            raise Unavailable(damage_line(self._path, _KIND, f"table identity: {error}")) from error

    def identity_mismatch(self, topic: str, newest: Mapping[int, int]) -> str | None:
        """Return why this cannot be the log that assigned these offsets: its file was deleted or replaced."""
        if not os.path.exists(self._path):
            return f"{self._path} no longer exists"
        with self._lock, map_sqlite_errors(self._path, _KIND):
            return has_shrunk(
                topic, newest, {partition: self._log_end_offset(topic, partition) for partition in newest}
            )

    def committed(self, topic: str, group: str) -> Mapping[int, int]:
        """Return the last committed offset of a group, by partition."""
        with self._lock, map_sqlite_errors(self._path, _KIND):
            return committed_offsets(self._db, topic, group)

    def oldest(self, topic: str, partition: int) -> int:
        """Return the offset of the oldest message; the log end offset if there are no messages."""
        with self._lock, map_sqlite_errors(self._path, _KIND):
            first = sqlite_retention.oldest_offset(self._db, topic, partition)
            return self._log_end_offset(topic, partition) if first is None else first

    def apply_retention(self, topic: str, before: float, groups: Sequence[str] = ()) -> int:
        """Delete the messages written before unix second `before` (accurate to ten minutes) that all groups passed."""
        with map_sqlite_errors(self._path, _KIND):
            return sqlite_retention.apply_retention(self._db, lambda: self._lock, topic, before, groups, self._clock())

    def delete_key(
        self, topic: str, key: str, groups: Sequence[str] = (), value_filter: ValueFilter | None = None
    ) -> int:
        """Delete the messages of a key that all groups have passed; return how many remain."""
        with map_sqlite_errors(self._path, _KIND):
            partition = partition_of(key, self.partitions(topic))
            _, remaining = sqlite_retention.delete_key(
                self._db, lambda: self._lock, topic, partition, key, groups, value_filter
            )
            with self._lock, suppress(sqlite3.OperationalError):  # a reader is active: the checkpoint happens later
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return remaining

    def backlog(
        self, topic: str, before: float, groups: Sequence[str] = (), key: str | None = None
    ) -> Mapping[str, Backlog]:
        """Return, by group, the messages written before unix second `before` that it has not passed."""
        with map_sqlite_errors(self._path, _KIND):
            return sqlite_retention.backlog(self._db, lambda: self._lock, topic, before, groups, key, self._clock())

    def delete_group(self, topic: str, group: str) -> bool:
        """Delete the committed offsets of a group."""
        with self._lock, map_sqlite_errors(self._path, _KIND):
            claim = GroupClaim(self._db, self._path, topic, group, self._session_s)
            try:
                if not claim.acquire():
                    raise Conflict(f"consumer group {group} is reading {topic}: stop its members first")
                with transaction(self._db):
                    return bool(
                        self._db.execute("DELETE FROM done WHERE topic = ? AND consumers = ?", (topic, group)).rowcount
                    )
            finally:
                claim.release()

    def close(self) -> None:
        """Close the file; idempotent."""
        with self._lock:
            self._db.close()

    def _index_write_time(self, topic: str, starts: Mapping[int, int]) -> dict[tuple[str, int], float]:
        """Index the current time at the first offset of each partition, if the interval has passed.

        starts  partition -> first offset of the batch

        Returns the indexed partitions and their time.
        """
        now, indexed = self._clock(), dict[tuple[str, int], float]()
        for partition, offset in starts.items():
            elapsed_s = now - self._indexed_at.get((topic, partition), float("-inf"))
            if not 0 <= elapsed_s < TIME_INDEX_INTERVAL_S:  # negative if the clock was set back
                sqlite_retention.record_offset_time(self._db, topic, partition, offset, now)
                indexed[topic, partition] = now
        return indexed

    def _log_end_offset(self, topic: str, partition: int) -> int:
        sql = 'SELECT max("offset") FROM message WHERE topic = ? AND partition = ?'
        last = self._db.execute(sql, (topic, partition)).fetchone()[0]
        return 0 if last is None else int(last) + 1


class SqliteConsumer:
    """A member of a consumer group with its own connections. It must not be shared between threads."""

    def __init__(self, path: str, topic: str, group: str, partitions: int, session_s: float) -> None:
        self._path, self._topic, self._group = path, topic, group
        self._order = list(range(partitions))
        self._db = open_database(path, _SCHEMA, _BUSY_TIMEOUT_S, _KIND)
        self._claim = GroupClaim(self._db, path, topic, group, session_s)
        self._position: dict[int, int] | None = None  # set when this member owns the partitions

    def poll(self, limit: int, timeout_s: float) -> list[Message]:
        """Return at most `limit` messages; empty after `timeout_s`, or while another member owns the partitions.

        Raises Unavailable, also after this member was stopped and another one has taken over.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            with map_sqlite_errors(self._path, _KIND):
                batch = self._next_batch(limit)
            remaining_s = deadline - time.monotonic()
            if batch or remaining_s <= 0:
                return batch
            time.sleep(min(_POLL_INTERVAL_S, remaining_s))

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Commit these offsets (inclusive); the commit is durable on return. Raises Unavailable."""
        rows = [
            (self._topic, self._group, partition, offset, commit_checksum(self._topic, self._group, partition, offset))
            for partition, offset in offsets.items()
        ]
        with map_sqlite_errors(self._path, _KIND), transaction(self._db):
            self._claim.check()
            self._db.executemany("INSERT OR REPLACE INTO done VALUES (?, ?, ?, ?, ?)", rows)

    def close(self) -> None:
        """Leave the group; idempotent."""
        self._claim.release()
        self._db.close()

    def _next_batch(self, limit: int) -> list[Message]:
        if self._position is None:
            if not self._claim.acquire():
                return []
            committed = committed_offsets(self._db, self._topic, self._group)
            self._position = {partition: offset + 1 for partition, offset in committed.items()}
        self._claim.check()
        batch: list[Message] = []
        for partition in self._order:
            if len(batch) < limit:
                start = self._position.get(partition, 0)
                messages = _read(self._db, self._topic, partition, start, limit - len(batch))
                self._position[partition] = messages[-1].offset + 1 if messages else start
                batch += messages
        self._order.append(self._order.pop(0))  # the next poll starts with another partition, so that none starves
        return batch


def _read(db: sqlite3.Connection, topic: str, partition: int, offset: int, limit: int) -> list[Message]:
    rows = db.execute(_READ, (topic, partition, offset, DELETED_KEY, limit))
    return [
        Message(topic, partition, at, key, value, message_checksum(topic, partition, at, key, value) != checksum)
        for at, key, value, checksum in rows
    ]
