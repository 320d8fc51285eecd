"""SQLite helpers of the embedded databases: their URLs, and durable databases shared by several processes."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, unquote

from recsys.domain.errors import InvalidInput, Unavailable

_SCHEME = "sqlite:///"


def sqlite_url(path: str) -> str:
    """Return the URL of a database file, as SQLAlchemy and MLflow read it: special characters are percent-encoded.

    >>> sqlite_url("/data/a?b/stream.db"), sqlite_url(".mainstay/stream.db")
    ('sqlite:////data/a%3Fb/stream.db', 'sqlite:///.mainstay/stream.db')
    """
    return _SCHEME + quote(path, safe=" +/")


def sqlite_path(url: str) -> str:
    """Return the path of the database file of `sqlite:///PATH`, the inverse of `sqlite_url`.

    A part after a bare `?` is refused, since it is more likely a piece of the path than an option. Raises InvalidInput.

    >>> sqlite_path("sqlite:////data/a%3Fb/stream.db")
    '/data/a?b/stream.db'
    """
    path, _, options = url.removeprefix(_SCHEME).partition("?")
    if not url.startswith(_SCHEME) or not path:
        raise InvalidInput(f"{url!r}: expected sqlite:///PATH")
    if options:
        raise InvalidInput(f"{url!r}: an SQLite URL has no options; write %3F for a ? in the path, and %25 for a %")
    return unquote(path)


def mlflow_uri(uri: str) -> str:
    """Return the URI of a registry as MLflow must get it. Raises InvalidInput for a wrong `sqlite:` URL.

    MLflow would create an empty directory named like the percent-encoded path of `sqlite:///PATH`.
    """
    return f"sqlite+pysqlite:///{quote(sqlite_path(uri), safe=' +/')}" if uri.startswith("sqlite:") else uri


def open_database(path: str, schema: str, timeout_s: float) -> sqlite3.Connection:
    """Open a database in autocommit mode; create the file and its folder if they are missing.

    timeout_s  maximum time that a write waits for a write of another process

    The connection may be used by any thread, but the caller must lock it. Readers continue during writes (WAL mode),
    and committed transactions survive a power cut (synchronous=FULL). Raises Unavailable.
    """
    with map_sqlite_errors(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
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
