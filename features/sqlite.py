"""SQLite as the embedded stream and online store use it: durable, and shared by several processes."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recsys.domain.errors import Unavailable


def open_database(path: str, schema: str, timeout_s: float) -> sqlite3.Connection:
    """A connection for any thread (the caller locks), in autocommit mode; the file and its folder are made.

    A write waits at most `timeout_s` for another process's. WAL lets readers go on meanwhile; synchronous=FULL means
    that what was committed survives a power cut.
    """
    with map_sqlite_errors(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=30.0, isolation_level=None, check_same_thread=False)
        try:
            use_wal(connection)  # under the long time-out, as the schema: processes may start together
            connection.execute("PRAGMA synchronous = FULL")
            connection.executescript(schema)
            connection.execute(f"PRAGMA busy_timeout = {int(timeout_s * 1000)}")
        except BaseException:
            connection.close()
            raise
    return connection


def use_wal(connection: sqlite3.Connection | sqlite3.Cursor, patience_s: float = 30.0) -> None:
    """Switch to the write-ahead log; SQLite's own waiting does not cover this one switch, which a new file needs.

    Raises sqlite3.OperationalError if the file is still locked after `patience_s`.
    """
    give_up = time.monotonic() + patience_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                raise
            time.sleep(0.01)


@contextmanager
def map_sqlite_errors(path: str) -> Iterator[None]:
    """Turns SQLite's errors into Unavailable."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise Unavailable(f"{path}: {error}") from error


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing. Takes the write lock at once, so two writers queue instead of failing half-way."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.rollback()
        raise
    connection.execute("COMMIT")
