"""What leaves an SQLite log: messages that are old, and those of a key. Offsets stay as they are.

When a message was written is known by marks: each process notes every ten minutes, for each partition, from which
offset on it writes at that moment. So a message was written within ten minutes of the last mark before it. A mark of a
clock that was ahead says nothing: its messages are as old as the next mark, or as now when none follows. Rows go in
small steps, each a transaction of its own, and only where every group is done with them. The newest message of a
partition keeps its row, emptied, so that offsets go on; readers do not see it.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

from features.events.stream.port import Backlog, KeyFilter
from features.sqlite import transaction

MARK_EVERY_S = 600.0
DELETED_CONDITION = "\0gone"
PRESENT_CONDITION = "(key != ? OR length(value) > 0)"
"""Whether a row is a message: one that was emptied has the key GONE and no bytes. A message of that key has some."""

SCHEMA = """
PRAGMA secure_delete = ON;  -- what was deleted is not left behind in the file
CREATE TABLE IF NOT EXISTS written (
  topic TEXT NOT NULL, partition INTEGER NOT NULL, "offset" INTEGER NOT NULL, "at" REAL NOT NULL,
  PRIMARY KEY (topic, partition, "offset")
) WITHOUT ROWID;
"""
_DELETED_AT_ONCE, _SCANNED_AT_ONCE = 1000, 10_000  # messages of a step: some milliseconds
_PAUSE_S = 0.005  # between two of them, for whoever waits to write

Transaction = Callable[[], AbstractContextManager[object]]
"""Holds the connection, for one step."""


def record_offset_time(db: sqlite3.Connection, topic: str, partition: int, offset: int, at: float) -> None:
    """Note that messages from this offset on are written at unix second `at` or later."""
    db.execute("INSERT OR IGNORE INTO written VALUES (?, ?, ?, ?)", (topic, partition, offset, at))


def oldest(db: sqlite3.Connection, topic: str, partition: int) -> int | None:
    """Offset of the first message that is there; None when there is none."""
    sql = f'SELECT min("offset") FROM message WHERE topic = ? AND partition = ? AND {PRESENT_CONDITION}'
    found = db.execute(sql, (topic, partition, DELETED_CONDITION)).fetchone()[0]
    return None if found is None else int(found)


def apply_retention(
    db: sqlite3.Connection, hold: Transaction, topic: str, before: float, groups: Sequence[str], now: float
) -> int:
    """Take away what was written before unix second `before`; returns how many messages went."""
    went = 0
    for partition in _partitions(db, hold, topic):
        with hold(), transaction(db):
            upto = _written_before(db, topic, partition, before, now)
            upto = min(upto, _committed_by_all(db, topic, partition, groups))
        for first, last in _delete_steps(db, hold, topic, partition, upto, _DELETED_AT_ONCE):
            with hold(), transaction(db):
                went += _remove(db, topic, partition, first, last, None)
        with hold(), transaction(db):
            spare = """DELETE FROM written WHERE topic = ?1 AND partition = ?2 AND "offset" <
              (SELECT max("offset") FROM written WHERE topic = ?1 AND partition = ?2 AND "offset" <= ?3)"""
            db.execute(spare, (topic, partition, upto + 1))
    return went


def delete_key(
    db: sqlite3.Connection,
    hold: Transaction,
    topic: str,
    partition: int,
    key: str,
    groups: Sequence[str],
    about: KeyFilter | None = None,
) -> tuple[int, int]:
    """Take away the messages of a key that `about` says are meant (all when left out); (how many went, how many stay
    because a group is not done with them)."""
    with hold():
        upto = _committed_by_all(db, topic, partition, groups)
    went = 0
    for first, last in _delete_steps(db, hold, topic, partition, upto, _SCANNED_AT_ONCE):
        with hold(), transaction(db):
            if about is None:
                went += _remove(db, topic, partition, first, last, key)
            else:
                for offset in _matching_offsets(db, topic, partition, first, last, key, about):
                    went += _remove(db, topic, partition, offset, offset, key)
    with hold():
        left = len(_matching_offsets(db, topic, partition, upto + 1, _FAR, key, about))
    return went, left


def _matching_offsets(
    db: sqlite3.Connection, topic: str, partition: int, first: int, last: int, key: str, about: KeyFilter | None
) -> list[int]:
    """Offsets of a key's messages in a span that `about` says are meant."""
    sql = f"""SELECT "offset", {"x''" if about is None else "value"} FROM message
              WHERE topic = ? AND partition = ? AND "offset" BETWEEN ? AND ? AND {PRESENT_CONDITION} AND key = ?"""
    rows = db.execute(sql, (topic, partition, first, last, DELETED_CONDITION, key))
    return [offset for offset, value in rows if about is None or about(value)]


def backlog(
    db: sqlite3.Connection,
    hold: Transaction,
    topic: str,
    before: float,
    groups: Sequence[str],
    key: str | None,
    now: float,
) -> dict[str, Backlog]:
    """By group what it is not done with of what was written before then, of one key or all."""
    said = f"""SELECT count(*), min("offset") FROM message WHERE topic = ? AND partition = ? AND "offset" > ?
              AND "offset" <= ? AND {PRESENT_CONDITION}""" + ("" if key is None else " AND key = ?")
    since = 'SELECT max("at") FROM written WHERE topic = ? AND partition = ? AND "offset" <= ? AND "at" <= ?'
    found: dict[str, Backlog] = {}
    for partition in _partitions(db, hold, topic):
        with hold(), transaction(db):
            upto = _written_before(db, topic, partition, before, now)
            places = _group_offsets(db, topic, partition, groups)
        for group, done in places.items():
            about = (topic, partition, done, upto, DELETED_CONDITION, *([] if key is None else [key]))
            with hold():  # no transaction: counting many keeps nobody from writing
                count, first = db.execute(said, about).fetchone()
                at = db.execute(since, (topic, partition, first, now)).fetchone()[0]
            if count:
                known = found.get(group, Backlog(0, now))
                found[group] = Backlog(known.messages + int(count), min(known.since, now if at is None else at))
    return found


_FAR = 1 << 62
_YOUNG = """
SELECT min("offset") FROM written AS one WHERE topic = ?1 AND partition = ?2 AND ?4 <= CASE WHEN "at" <= ?3 THEN "at"
  ELSE coalesce((SELECT "at" FROM written AS later WHERE later.topic = ?1 AND later.partition = ?2
    AND later."offset" > one."offset" AND later."at" <= ?3 ORDER BY later."offset" LIMIT 1), ?3) END
"""


def _written_before(db: sqlite3.Connection, topic: str, partition: int, before: float, now: float) -> int:
    """The newest offset that was surely written before then; -1 when there is none."""
    found = db.execute(_YOUNG, (topic, partition, now, before - MARK_EVERY_S)).fetchone()[0]
    return _FAR if found is None else int(found) - 1


def _committed_by_all(db: sqlite3.Connection, topic: str, partition: int, groups: Sequence[str]) -> int:
    """The newest offset that every group is done with."""
    return min(_group_offsets(db, topic, partition, groups).values(), default=_FAR)


def _group_offsets(db: sqlite3.Connection, topic: str, partition: int, groups: Sequence[str]) -> dict[str, int]:
    """Up to which offset a group is done: each that ever committed in this topic, and these."""
    known = {group for (group,) in db.execute("SELECT DISTINCT consumers FROM done WHERE topic = ?", (topic,))}
    sql = 'SELECT consumers, "offset" FROM done WHERE topic = ? AND partition = ?'
    done = dict(db.execute(sql, (topic, partition)).fetchall())
    return {group: int(done.get(group, -1)) for group in sorted(known | set(groups))}


def _partitions(db: sqlite3.Connection, hold: Transaction, topic: str) -> list[int]:
    """Those that have ever had a message."""
    with hold():
        row = db.execute("SELECT partitions FROM topic WHERE name = ?", (topic,)).fetchone()
        sql = "SELECT 1 FROM message WHERE topic = ? AND partition = ? LIMIT 1"
        numbers = range(int(row[0]) if row else 0)
        return [number for number in numbers if db.execute(sql, (topic, number)).fetchone()]


def _delete_steps(
    db: sqlite3.Connection, hold: Transaction, topic: str, partition: int, upto: int, size: int
) -> Iterator[tuple[int, int]]:
    """Spans of offsets, both ends included, from the oldest row up to `upto`."""
    sql = """SELECT max("offset") FROM (SELECT "offset" FROM message WHERE topic = ? AND partition = ?
             AND "offset" >= ? AND "offset" <= ? ORDER BY "offset" LIMIT ?)"""
    first = 0
    while True:
        with hold():
            last = db.execute(sql, (topic, partition, first, upto, size)).fetchone()[0]
        if last is None:
            return
        yield first, int(last)
        first = int(last) + 1
        time.sleep(_PAUSE_S)


def _remove(db: sqlite3.Connection, topic: str, partition: int, first: int, last: int, key: str | None) -> int:
    """Delete the rows of a span, of one key or all; how many messages went."""
    where = f'topic = ? AND partition = ? AND "offset" BETWEEN ? AND ? AND {PRESENT_CONDITION}' + (
        "" if key is None else " AND key = ?"
    )
    said = (topic, partition, first, last, DELETED_CONDITION, *([] if key is None else [key]))
    newest = '"offset" = (SELECT max("offset") FROM message WHERE topic = ? AND partition = ?)'
    emptied = db.execute(
        f"UPDATE message SET key = ?, value = x'' WHERE {where} AND {newest}",
        (DELETED_CONDITION, *said, topic, partition),
    ).rowcount
    went = emptied + db.execute(f"DELETE FROM message WHERE {where}", said).rowcount
    if key is None:
        old = f'topic = ? AND partition = ? AND "offset" BETWEEN ? AND ? AND NOT {PRESENT_CONDITION} AND NOT {newest}'
        db.execute(
            f"DELETE FROM message WHERE {old}", (topic, partition, first, last, DELETED_CONDITION, topic, partition)
        )
    return went
