"""The stream in an SQLite file: the embedded default. Durable, shared by several processes, offsets per group.

One member of a group holds all partitions, others stand by. The seat is a lock on a file of its own, which the
operating system gives up with the process that held it: after `kill -9` the next member continues at once.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from urllib.parse import quote

from features.events.stream import sqlite_retention as leaving
from features.events.stream.partitioner import has_shrunk, partition_of
from features.events.stream.port import Backlog, KeyFilter, Message, Record, Retention
from features.events.stream.sqlite_retention import DELETED_CONDITION, MARK_EVERY_S, PRESENT_CONDITION
from features.sqlite import map_sqlite_errors, open_database, transaction
from recsys.domain.errors import Conflict, Unavailable

_SCHEMA = (
    """
CREATE TABLE IF NOT EXISTS topic (name TEXT PRIMARY KEY, partitions INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS message (
  topic TEXT NOT NULL, partition INTEGER NOT NULL, "offset" INTEGER NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS message_place ON message (topic, partition, "offset");
CREATE TABLE IF NOT EXISTS done (
  topic TEXT NOT NULL, consumers TEXT NOT NULL, partition INTEGER NOT NULL, "offset" INTEGER NOT NULL,
  PRIMARY KEY (topic, consumers, partition)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS identity (one INTEGER PRIMARY KEY CHECK (one = 1), id TEXT NOT NULL);
"""
    + leaving.SCHEMA
)
_READ = f"""
SELECT "offset", key, value FROM message WHERE topic = ? AND partition = ? AND "offset" >= ? AND {PRESENT_CONDITION}
ORDER BY "offset" LIMIT ?
"""
_BUSY_S = 10.0
_LOOK_AGAIN_S = 0.02


class SqliteStream:
    """A log of topics in one file."""

    def __init__(self, path: str, partitions: int = 4, clock: Callable[[], float] = time.time) -> None:
        self._path, self._partitions, self._clock = path, partitions, clock
        self._lock = threading.Lock()
        self._db = open_database(path, _SCHEMA, _BUSY_S)
        self._known: dict[str, int] = {}
        self._marked: dict[tuple[str, int], float] = {}  # when it was last noted how far a partition was

    @property
    def retention(self) -> Retention:
        """This log itself."""
        return self

    def publish(self, topic: str, records: Sequence[Record]) -> Mapping[int, int]:
        """Append all or nothing; on the disk on return. Raises Unavailable."""
        if not records:
            return {}
        partitions = self.partitions(topic)
        with self._lock, map_sqlite_errors(self._path), transaction(self._db):
            following: dict[int, int] = {}
            first: dict[int, int] = {}
            rows = []
            for record in records:
                partition = partition_of(record.key, partitions)
                offset = following.get(partition)
                if offset is None:
                    offset = first[partition] = self._end(topic, partition)
                following[partition] = offset + 1
                rows.append((topic, partition, offset, record.key, record.value))
            self._db.executemany("INSERT INTO message VALUES (?, ?, ?, ?, ?)", rows)
            marked = self._mark(topic, first)
        self._marked |= marked  # only now: what was rolled back is not marked
        return {partition: end - 1 for partition, end in following.items()}

    def consumer(self, topic: str, group: str) -> SqliteConsumer:
        """Join a group."""
        return SqliteConsumer(self._path, topic, group, self.partitions(topic))

    def read(self, topic: str, partition: int, offset: int, limit: int) -> list[Message]:
        """Messages of one partition from an offset on."""
        with self._lock, map_sqlite_errors(self._path):
            return _read(self._db, topic, partition, offset, limit)

    def partitions(self, topic: str) -> int:
        """How many partitions the topic has; it is created when missing."""
        if topic not in self._known:
            with self._lock, map_sqlite_errors(self._path), transaction(self._db):
                self._db.execute("INSERT OR IGNORE INTO topic VALUES (?, ?)", (topic, self._partitions))
                row = self._db.execute("SELECT partitions FROM topic WHERE name = ?", (topic,)).fetchone()
                self._known[topic] = int(row[0])
        return self._known[topic]

    def identity(self, topic: str) -> str:
        """Which file stands at the path by now: one that was taken away while it is open here is not asked."""
        if not os.path.exists(self._path):
            raise Unavailable(f"{self._path} is gone")
        with closing(open_database(self._path, _SCHEMA, _BUSY_S)) as db, map_sqlite_errors(self._path):
            if (found := db.execute("SELECT id FROM identity").fetchone()) is None:
                with transaction(db):
                    db.execute("INSERT OR IGNORE INTO identity VALUES (1, ?)", (uuid.uuid4().hex,))
                    found = db.execute("SELECT id FROM identity").fetchone()
            return str(found[0])

    def identity_mismatch(self, topic: str, newest: Mapping[int, int]) -> str | None:
        """Why this cannot be the log that gave out these offsets: its file was taken away or put back from a copy."""
        if not os.path.exists(self._path):
            return f"{self._path} is gone"
        with self._lock, map_sqlite_errors(self._path):
            return has_shrunk(topic, newest, {partition: self._end(topic, partition) for partition in newest})

    def committed(self, topic: str, group: str) -> Mapping[int, int]:
        """Up to and including which offset a group is done."""
        with self._lock, map_sqlite_errors(self._path):
            sql = 'SELECT partition, "offset" FROM done WHERE topic = ? AND consumers = ?'
            return dict(self._db.execute(sql, (topic, group)).fetchall())

    def oldest(self, topic: str, partition: int) -> int:
        """Offset of the oldest message that is still there; of the next one to come when there is none."""
        with self._lock, map_sqlite_errors(self._path):
            first = leaving.oldest(self._db, topic, partition)
            return self._end(topic, partition) if first is None else first

    def apply_retention(self, topic: str, before: float, groups: Sequence[str] = ()) -> int:
        """Let go of what was written before then and what all groups are done with, to ten minutes."""
        with map_sqlite_errors(self._path):
            return leaving.apply_retention(self._db, lambda: self._lock, topic, before, groups, self._clock())

    def delete_key(self, topic: str, key: str, groups: Sequence[str] = (), about: KeyFilter | None = None) -> int:
        """Take away the messages of a key that all groups are done with; how many are left."""
        with map_sqlite_errors(self._path):
            partition = partition_of(key, self.partitions(topic))
            _, left = leaving.delete_key(self._db, lambda: self._lock, topic, partition, key, groups, about)
            with self._lock, suppress(sqlite3.OperationalError):  # a reader is busy with it: at its next opportunity
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return left

    def backlog(
        self, topic: str, before: float, groups: Sequence[str] = (), key: str | None = None
    ) -> Mapping[str, Backlog]:
        """What groups are not done with, of what was written before then."""
        with map_sqlite_errors(self._path):
            return leaving.backlog(self._db, lambda: self._lock, topic, before, groups, key, self._clock())

    def delete_group(self, topic: str, group: str) -> bool:
        """Forget how far a group is."""
        with closing(_member_slot(self._path, topic, group)) as seat, map_sqlite_errors(self._path):
            if not _is_claimed(seat):
                raise Conflict(f"{group} reads {topic} at this moment: stop it first")
            with self._lock, transaction(self._db):
                return bool(
                    self._db.execute("DELETE FROM done WHERE topic = ? AND consumers = ?", (topic, group)).rowcount
                )

    def close(self) -> None:
        """Let go of the file; idempotent."""
        with self._lock:
            self._db.close()

    def _mark(self, topic: str, first: Mapping[int, int]) -> dict[tuple[str, int], float]:
        """Note from which offset on it is written now, where that is due; returns where it was."""
        now, marked = self._clock(), dict[tuple[str, int], float]()
        for partition, offset in first.items():
            if not 0 <= now - self._marked.get((topic, partition), float("-inf")) < MARK_EVERY_S:  # clocks go back, too
                leaving.record_offset_time(self._db, topic, partition, offset, now)
                marked[topic, partition] = now
        return marked

    def _end(self, topic: str, partition: int) -> int:
        sql = 'SELECT max("offset") FROM message WHERE topic = ? AND partition = ?'
        last = self._db.execute(sql, (topic, partition)).fetchone()[0]
        return 0 if last is None else int(last) + 1


class SqliteConsumer:
    """A member of a group, with connections of its own; not shared between threads."""

    def __init__(self, path: str, topic: str, group: str, partitions: int) -> None:
        self._path, self._topic, self._group = path, topic, group
        self._order = list(range(partitions))
        self._db = open_database(path, _SCHEMA, _BUSY_S)
        self._seat = _member_slot(path, topic, group)
        self._next: dict[int, int] | None = None  # known once this member holds the seat

    def poll(self, limit: int, timeout_s: float) -> list[Message]:
        """At most `limit` messages; empty when none came in time, or while another member holds the seat."""
        deadline = time.monotonic() + timeout_s
        while True:
            with map_sqlite_errors(self._path):
                batch = self._next_batch(limit)
            left = deadline - time.monotonic()
            if batch or left <= 0:
                return batch
            time.sleep(min(_LOOK_AGAIN_S, left))

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Everything up to and including these offsets is done; on the disk on return. Raises Unavailable."""
        rows = [(self._topic, self._group, partition, offset) for partition, offset in offsets.items()]
        with map_sqlite_errors(self._path), transaction(self._db):
            self._db.executemany("INSERT OR REPLACE INTO done VALUES (?, ?, ?, ?)", rows)

    def close(self) -> None:
        """Leave the group; idempotent."""
        self._seat.close()
        self._db.close()

    def _next_batch(self, limit: int) -> list[Message]:
        if self._next is None:
            if not _is_claimed(self._seat):
                return []
            done = self._db.execute(
                'SELECT partition, "offset" + 1 FROM done WHERE topic = ? AND consumers = ?', (self._topic, self._group)
            )
            self._next = dict(done.fetchall())
        batch: list[Message] = []
        for partition in self._order:
            if len(batch) < limit:
                start = self._next.get(partition, 0)
                taken = _read(self._db, self._topic, partition, start, limit - len(batch))
                self._next[partition] = taken[-1].offset + 1 if taken else start
                batch += taken
        self._order.append(self._order.pop(0))  # the next poll begins elsewhere: no partition starves
        return batch


def _member_slot(path: str, topic: str, group: str) -> sqlite3.Connection:
    """The file whose lock is the group's seat."""
    seat = f"{path}.{quote(topic, safe='')}.{quote(group, safe='')}.seat"
    with map_sqlite_errors(seat):
        return sqlite3.connect(seat, timeout=0, isolation_level=None, check_same_thread=False)


def _is_claimed(seat: sqlite3.Connection) -> bool:
    """Take the seat; False while another member holds it."""
    try:
        seat.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            return False
        raise
    return True


def _read(db: sqlite3.Connection, topic: str, partition: int, offset: int, limit: int) -> list[Message]:
    rows = db.execute(_READ, (topic, partition, offset, DELETED_CONDITION, limit))
    return [Message(topic, partition, at, key, value) for at, key, value in rows]
