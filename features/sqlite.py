"""SQLite helpers of the embedded stream and online store: durable databases shared by several processes."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from recsys.domain.errors import Unavailable


def open_database(path: str, schema: str, timeout_s: float) -> sqlite3.Connection:
    """Open a database in autocommit mode; create the file and its folder if they are missing.

    timeout_s  maximum time that a write waits for a write of another process

    The connection may be used by any thread, but the caller must lock it. Readers continue during writes (WAL mode),
    and committed transactions survive a power cut (synchronous=FULL). Raises Unavailable.
    """
    with map_sqlite_errors(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        create_private_file(path)
        connection = sqlite3.connect(path, timeout=30.0, isolation_level=None, check_same_thread=False)
        try:
            use_wal(connection)  # like the schema, with the long timeout: processes may start at the same time
            connection.execute("PRAGMA synchronous = FULL")
            connection.executescript(schema)
            connection.execute(f"PRAGMA busy_timeout = {int(timeout_s * 1000)}")
        except BaseException:
            connection.close()
            raise
    return connection


def create_private_file(path: str | Path) -> None:
    """Create a database file, if it is missing, with mode 600; restrict an existing one and its journals likewise.

    SQLite gives new journals the mode of the database. Files of another owner keep their mode. The database file itself
    is never opened here: closing it would release the locks that SQLite holds on it in this process. Raises OSError.
    """
    path = Path(path)
    if not path.exists():
        handle, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # with mode 600
        os.close(handle)
        try:
            with suppress(FileExistsError):
                os.link(draft, path)
        finally:
            os.unlink(draft)
    for file in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        with suppress(FileNotFoundError, PermissionError):
            if file.stat().st_mode & 0o077:
                file.chmod(0o600)


def use_wal(connection: sqlite3.Connection | sqlite3.Cursor, timeout_s: float = 30.0) -> None:
    """Switch a database to WAL mode, and retry while it is locked: SQLite's busy timeout does not cover this switch.

    Raises sqlite3.OperationalError if the file is still locked after `patience_s`.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


@contextmanager
def map_sqlite_errors(path: str) -> Iterator[None]:
    """Convert SQLite errors to Unavailable."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise Unavailable(f"{path}: {error}") from error


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Run the block as one transaction, and roll it back if it raises.

    The transaction takes the write lock at its start, so concurrent writers queue up instead of failing halfway.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.rollback()
        raise
    connection.execute("COMMIT")
