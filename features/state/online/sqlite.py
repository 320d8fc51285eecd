"""An online store in an SQLite file: the embedded default, which several processes can share."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress

from features.sqlite import map_sqlite_errors, open_database, transaction
from features.state.online.port import CasEntry

_SCHEMA = """
PRAGMA secure_delete = ON;  -- overwritten and deleted values do not stay in the file
CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value BLOB NOT NULL, until REAL);
"""
_VALUE = "coalesce(CAST(value AS BLOB), x'')"  # bytes even if damage has changed the type of a value
_KIND = "online store"
_REPLACEMENT = "\ufffd"
SWEEP_EVERY_S = 3600.0  # a write deletes expired keys if the last sweep is older than this
_BATCH_KEYS = 500  # keys per statement
_PAGE = 1000  # rows per step of a scan, so that no read transaction is long


class SqliteStore:
    """An online store in an SQLite table, with one connection under a lock: a read takes some tens of microseconds."""

    def __init__(self, path: str, timeout_s: float = 0.05, clock: Callable[[], float] = time.time) -> None:
        """Open the file. `timeout_s` is how long a write waits for a write of another process."""
        self._path, self._timeout_s, self._clock = path, timeout_s, clock
        self._lock = threading.Lock()
        self._db = open_database(path, _SCHEMA, timeout_s, _KIND)
        self._swept = 0.0

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the values in the order of the keys, None for missing or expired keys. Raises Unavailable."""
        with self._lock, map_sqlite_errors(self._path, _KIND):
            values = self._select(keys)
        return [values.get(key) for key in keys]

    def put(self, entries: Mapping[str, bytes], ttl_s: float | None = None) -> None:
        """Write all entries or none; they are durable on return. Raises Unavailable."""
        with self._lock, map_sqlite_errors(self._path, _KIND), transaction(self._db):
            self._write(entries, ttl_s)

    def compare_and_set(self, entries: Mapping[str, CasEntry], ttl_s: float | None = None) -> list[str]:
        """Write, durably, the entries whose stored value is still the one that was read; return the other keys.

        Raises Unavailable.
        """
        with self._lock, map_sqlite_errors(self._path, _KIND), transaction(self._db):
            values = self._select(list(entries))
            refused = [key for key, (expected, _) in entries.items() if values.get(key) != expected]
            refused_keys = set(refused)
            self._write({key: value for key, (_, value) in entries.items() if key not in refused_keys}, ttl_s)
        return refused

    def delete(self, keys: Sequence[str]) -> None:
        """Delete these keys, also from the write-ahead log unless a reader is using it. Raises Unavailable."""
        with self._lock, map_sqlite_errors(self._path, _KIND):
            with transaction(self._db):
                self._db.executemany("DELETE FROM state WHERE key = ?", [(key,) for key in keys])
                for key in keys:
                    if _REPLACEMENT in key:  # as `scan` returns a damaged key
                        self._delete_damaged(key)
            with suppress(sqlite3.OperationalError):
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def scan(self, prefix: str) -> Iterator[tuple[str, bytes]]:
        """Return every live key under the prefix, read in steps on a separate connection. Raises Unavailable."""
        opened = open_database(self._path, _SCHEMA, self._timeout_s, _KIND)
        with map_sqlite_errors(self._path, _KIND), closing(opened) as db:
            after, now = prefix.encode(), self._clock()
            while rows := _page(db, prefix, after, now):
                yield from ((key.decode(errors="replace"), value) for key, value in rows)
                after = rows[-1][0] + b"\0"  # the next possible key

    def close(self) -> None:
        """Close the file; idempotent."""
        with self._lock:
            self._db.close()

    def _delete_damaged(self, key: str) -> None:
        """Delete the rows whose keys `scan` returns as this key, because their bytes are not UTF-8."""
        start = key.partition(_REPLACEMENT)[0].encode()
        sql = "SELECT CAST(key AS BLOB) FROM state WHERE key >= CAST(? AS TEXT) AND key < CAST(? AS TEXT)"
        rows = self._db.execute(sql, (start, start + b"\xff\xff")).fetchall()
        damaged = [(raw,) for (raw,) in rows if raw.decode(errors="replace") == key]
        self._db.executemany("DELETE FROM state WHERE key = CAST(? AS TEXT)", damaged)

    def _select(self, keys: Sequence[str]) -> dict[str, bytes]:
        values: dict[str, bytes] = {}
        now = self._clock()
        for start in range(0, len(keys), _BATCH_KEYS):
            batch = keys[start : start + _BATCH_KEYS]
            placeholders = ",".join("?" * len(batch))
            sql = f"SELECT key, {_VALUE} FROM state WHERE key IN ({placeholders}) AND (until IS NULL OR until > ?)"
            values.update(self._db.execute(sql, (*batch, now)))
        return values

    def _write(self, entries: Mapping[str, bytes], ttl_s: float | None) -> None:
        until = None if ttl_s is None else self._clock() + ttl_s
        self._db.executemany(
            "INSERT INTO state VALUES (?, ?, ?) "
            "ON CONFLICT (key) DO UPDATE SET value = excluded.value, until = excluded.until",
            [(key, value, until) for key, value in entries.items()],
        )
        if until is not None and self._clock() > self._swept + SWEEP_EVERY_S:
            self._swept = self._clock()
            self._db.execute("DELETE FROM state WHERE until <= ?", (self._swept,))


def _page(db: sqlite3.Connection, prefix: str, after: bytes, now: float) -> list[tuple[bytes, bytes]]:
    """Return at most `_PAGE` live rows from key `after` on, in key order. A damaged key need not be UTF-8."""
    rows: list[tuple[bytes, bytes]] = db.execute(
        f"SELECT CAST(key AS BLOB), {_VALUE} FROM state WHERE key >= CAST(? AS TEXT) AND key < CAST(? AS TEXT) "
        "AND (until IS NULL OR until > ?) ORDER BY key LIMIT ?",
        (after, prefix.encode() + b"\xff", now, _PAGE),
    ).fetchall()
    return rows
