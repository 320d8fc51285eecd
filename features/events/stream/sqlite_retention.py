"""Retention of the SQLite stream: deletes old messages and the messages of a key. Offsets do not change.

A time index records when messages were written: every ten minutes, each process writes an entry with the next offset of
each partition. A message was therefore written within ten minutes of the last entry before it. Entries dated in the
future come from a clock that was ahead; their messages count as old as the next valid entry, or as written now if there
is none.

Rows are deleted in small steps, each in its own transaction, and only after every consumer group has passed them. The
newest message of a partition is replaced by an empty row (a tombstone), so that the log end offset is not lost. Readers
skip tombstones.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

from features.events.stream.port import Backlog, ValueFilter
from features.events.stream.sqlite_checksums import DELETED_KEY, committed_offsets
from features.sqlite import transaction

TIME_INDEX_INTERVAL_S = 600.0
PRESENT_CONDITION = "(key != ? OR length(value) > 0)"
"""The SQL condition for messages. A tombstone has DELETED_KEY and an empty value; a message with that key has a value.

Its parameter is DELETED_KEY.
"""

SCHEMA = """
PRAGMA secure_delete = ON;  -- overwrite deleted content in the file
CREATE TABLE IF NOT EXISTS written (
  topic TEXT NOT NULL, partition INTEGER NOT NULL, "offset" INTEGER NOT NULL, "at" REAL NOT NULL,
  PRIMARY KEY (topic, partition, "offset")
) WITHOUT ROWID;
"""
_DELETE_BATCH, _SCAN_BATCH = 1000, 10_000  # messages per step: a few milliseconds
_PAUSE_S = 0.005  # between steps, so that waiting writers can proceed

ConnectionLock = Callable[[], AbstractContextManager[object]]
"""Locks the connection for one step."""


def record_offset_time(db: sqlite3.Connection, topic: str, partition: int, offset: int, at: float) -> None:
    """Add a time index entry: messages from this offset on are written at unix second `at` or later."""
    db.execute("INSERT OR IGNORE INTO written VALUES (?, ?, ?, ?)", (topic, partition, offset, at))


def oldest_offset(db: sqlite3.Connection, topic: str, partition: int) -> int | None:
    """Return the offset of the oldest message; None if there are no messages."""
    sql = f'SELECT min("offset") FROM message WHERE topic = ? AND partition = ? AND {PRESENT_CONDITION}'
    offset = db.execute(sql, (topic, partition, DELETED_KEY)).fetchone()[0]
    return None if offset is None else int(offset)


def apply_retention(
    db: sqlite3.Connection, lock: ConnectionLock, topic: str, before: float, groups: Sequence[str], now: float
) -> int:
    """Delete the messages written before unix second `before`; return the number of deleted messages."""
    n_deleted = 0
    for partition in _partitions(db, lock, topic):
        with lock(), transaction(db):
            until_offset = _written_before(db, topic, partition, before, now)
            until_offset = min(until_offset, _committed_by_all(db, topic, partition, groups))
        for first, last in _delete_steps(db, lock, topic, partition, until_offset, _DELETE_BATCH):
            with lock(), transaction(db):
                n_deleted += _delete_range(db, topic, partition, first, last, None)
        with lock(), transaction(db):
            sql = """DELETE FROM written WHERE topic = ?1 AND partition = ?2 AND "offset" <
              (SELECT max("offset") FROM written WHERE topic = ?1 AND partition = ?2 AND "offset" <= ?3)"""
            db.execute(sql, (topic, partition, until_offset + 1))
    return n_deleted


def delete_key(
    db: sqlite3.Connection,
    lock: ConnectionLock,
    topic: str,
    partition: int,
    key: str,
    groups: Sequence[str],
    value_filter: ValueFilter | None = None,
) -> tuple[int, int]:
    """Delete the messages of a key that match `value_filter` (None matches all).

    Returns the number of deleted messages, and the number of those retained because a group has not passed them.
    """
    with lock():
        until_offset = _committed_by_all(db, topic, partition, groups)
    n_deleted = 0
    for first, last in _delete_steps(db, lock, topic, partition, until_offset, _SCAN_BATCH):
        with lock(), transaction(db):
            if value_filter is None:
                n_deleted += _delete_range(db, topic, partition, first, last, key)
            else:
                for offset in _matching_offsets(db, topic, partition, first, last, key, value_filter):
                    n_deleted += _delete_range(db, topic, partition, offset, offset, key)
    with lock():
        n_remaining = len(_matching_offsets(db, topic, partition, until_offset + 1, _MAX_OFFSET, key, value_filter))
    return n_deleted, n_remaining


def _matching_offsets(
    db: sqlite3.Connection,
    topic: str,
    partition: int,
    first: int,
    last: int,
    key: str,
    value_filter: ValueFilter | None,
) -> list[int]:
    """Return the offsets of a key's messages in a range (inclusive) that match `value_filter`."""
    sql = f"""SELECT "offset", {"x''" if value_filter is None else "value"} FROM message
              WHERE topic = ? AND partition = ? AND "offset" BETWEEN ? AND ? AND {PRESENT_CONDITION} AND key = ?"""
    rows = db.execute(sql, (topic, partition, first, last, DELETED_KEY, key))
    return [offset for offset, value in rows if value_filter is None or value_filter(value)]


def backlog(
    db: sqlite3.Connection,
    lock: ConnectionLock,
    topic: str,
    before: float,
    groups: Sequence[str],
    key: str | None,
    now: float,
) -> dict[str, Backlog]:
    """Return, by group, the backlog of messages written before unix second `before`; of all keys if `key` is None."""
    count_sql = f"""SELECT count(*), min("offset") FROM message WHERE topic = ? AND partition = ? AND "offset" > ?
              AND "offset" <= ? AND {PRESENT_CONDITION}""" + ("" if key is None else " AND key = ?")
    time_sql = 'SELECT max("at") FROM written WHERE topic = ? AND partition = ? AND "offset" <= ? AND "at" <= ?'
    backlogs: dict[str, Backlog] = {}
    for partition in _partitions(db, lock, topic):
        with lock(), transaction(db):
            until_offset = _written_before(db, topic, partition, before, now)
            committed = _group_offsets(db, topic, partition, groups)
        for group, offset in committed.items():
            args = (topic, partition, offset, until_offset, DELETED_KEY, *([] if key is None else [key]))
            with lock():  # no transaction, so that a long count does not block writers
                count, first = db.execute(count_sql, args).fetchone()
                at = db.execute(time_sql, (topic, partition, first, now)).fetchone()[0]
            if count:
                previous = backlogs.get(group, Backlog(0, now))
                backlogs[group] = Backlog(
                    previous.messages + int(count), min(previous.since, now if at is None else at)
                )
    return backlogs


_MAX_OFFSET = 1 << 62
_FIRST_RECENT_OFFSET = """
SELECT min("offset") FROM written AS entry WHERE topic = ?1 AND partition = ?2 AND ?4 <= CASE WHEN "at" <= ?3 THEN "at"
  ELSE coalesce((SELECT "at" FROM written AS later WHERE later.topic = ?1 AND later.partition = ?2
    AND later."offset" > entry."offset" AND later."at" <= ?3 ORDER BY later."offset" LIMIT 1), ?3) END
"""


def _written_before(db: sqlite3.Connection, topic: str, partition: int, before: float, now: float) -> int:
    """Return the newest offset that was certainly written before unix second `before`; -1 if there is none."""
    row = db.execute(_FIRST_RECENT_OFFSET, (topic, partition, now, before - TIME_INDEX_INTERVAL_S)).fetchone()[0]
    return _MAX_OFFSET if row is None else int(row) - 1


def _committed_by_all(db: sqlite3.Connection, topic: str, partition: int, groups: Sequence[str]) -> int:
    """Return the newest offset that every group has passed."""
    return min(_group_offsets(db, topic, partition, groups).values(), default=_MAX_OFFSET)


def _group_offsets(db: sqlite3.Connection, topic: str, partition: int, groups: Sequence[str]) -> dict[str, int]:
    """Return the committed offsets of `groups` and of all groups that ever committed in this topic; -1 for none."""
    all_groups = {group for (group,) in db.execute("SELECT DISTINCT consumers FROM done WHERE topic = ?", (topic,))}
    names = sorted(all_groups | set(groups))
    return {group: committed_offsets(db, topic, group).get(partition, -1) for group in names}


def _partitions(db: sqlite3.Connection, lock: ConnectionLock, topic: str) -> list[int]:
    """Return the partitions of a topic that contain messages or tombstones."""
    with lock():
        row = db.execute("SELECT partitions FROM topic WHERE name = ?", (topic,)).fetchone()
        sql = "SELECT 1 FROM message WHERE topic = ? AND partition = ? LIMIT 1"
        numbers = range(int(row[0]) if row else 0)
        return [number for number in numbers if db.execute(sql, (topic, number)).fetchone()]


def _delete_steps(
    db: sqlite3.Connection, lock: ConnectionLock, topic: str, partition: int, until_offset: int, size: int
) -> Iterator[tuple[int, int]]:
    """Yield ranges of offsets (inclusive) of about `size` rows, from the oldest row to `until_offset`."""
    sql = """SELECT max("offset") FROM (SELECT "offset" FROM message WHERE topic = ? AND partition = ?
             AND "offset" >= ? AND "offset" <= ? ORDER BY "offset" LIMIT ?)"""
    first = 0
    while True:
        with lock():
            last = db.execute(sql, (topic, partition, first, until_offset, size)).fetchone()[0]
        if last is None:
            return
        yield first, int(last)
        first = int(last) + 1
        time.sleep(_PAUSE_S)


def _delete_range(db: sqlite3.Connection, topic: str, partition: int, first: int, last: int, key: str | None) -> int:
    """Delete the messages of an inclusive range, of all keys if `key` is None; return how many were deleted."""
    condition = f'topic = ? AND partition = ? AND "offset" BETWEEN ? AND ? AND {PRESENT_CONDITION}' + (
        "" if key is None else " AND key = ?"
    )
    args = (topic, partition, first, last, DELETED_KEY, *([] if key is None else [key]))
    is_newest = '"offset" = (SELECT max("offset") FROM message WHERE topic = ? AND partition = ?)'
    emptied = db.execute(
        f"UPDATE message SET key = ?, value = x'' WHERE {condition} AND {is_newest}",
        (DELETED_KEY, *args, topic, partition),
    ).rowcount
    n_deleted = emptied + db.execute(f"DELETE FROM message WHERE {condition}", args).rowcount
    if key is None:
        tombstones = (
            f'topic = ? AND partition = ? AND "offset" BETWEEN ? AND ? AND NOT {PRESENT_CONDITION} AND NOT {is_newest}'
        )
        db.execute(
            f"DELETE FROM message WHERE {tombstones}", (topic, partition, first, last, DELETED_KEY, topic, partition)
        )
    return n_deleted
