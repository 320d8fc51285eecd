"""SQLite helpers of the embedded databases: their URLs, and durable databases shared by several processes.

A damaged file is reported in one line that names the file and what to do about it. Not every damage is an error of
SQLite: texts that are not UTF-8 are read with replacement characters, so that their rows can be refused one by one, and
`find_damage` checks the structure of a whole file.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
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


DAMAGE_CODES = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
MAX_FAULTS = 5
"""The number of faults that `find_damage` returns for a file."""

MOVE = "stop all processes, move the file away with its -wal and -shm files, and "
"""The first half of the advice for a damaged file."""

ADVICE = {
    "stream": f"{MOVE}start them again: events that no worker had processed are lost, except those in the spool; the "
    "event log keeps the others",
    "online store": f"{MOVE}run `mainstay rebuild`, which derives a new one from the event log",
    "control plane": f"{MOVE}restore a backup, or what `sqlite3 FILE .recover` can still read",
}
"""Kind of database -> what to do about a damaged file."""


def open_database(path: str, schema: str, timeout_s: float, kind: str) -> sqlite3.Connection:
    """Open a database in autocommit mode; create the file and its folder if they are missing.

    timeout_s  maximum time that a write waits for a write of another process
    kind       a key of `ADVICE`

    The connection may be used by any thread, but the caller must lock it. Readers continue during writes (WAL mode),
    and committed transactions survive a power cut (synchronous=FULL). Raises Unavailable.
    """
    with map_sqlite_errors(path, kind):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        create_private_file(path)
        connection = sqlite3.connect(path, timeout=30.0, isolation_level=None, check_same_thread=False)
        connection.text_factory = lambda text: text.decode(errors="replace")
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
def map_sqlite_errors(path: str, kind: str) -> Iterator[None]:
    """Convert SQLite errors to Unavailable. The message about a damaged file says what to do (`ADVICE[kind]`)."""
    try:
        yield
    except (sqlite3.Error, OSError, UnicodeDecodeError) as error:
        raise Unavailable(damage_line(path, kind, error) if is_damage(error) else f"{path}: {error}") from error


def is_damage(error: BaseException | None) -> bool:
    """Return whether SQLite reports with this error that a file is damaged or no database.

    If the error names a table whose name is damaged, Python raises UnicodeDecodeError instead.
    """
    return isinstance(error, UnicodeDecodeError) or getattr(error, "sqlite_errorcode", 0) & 0xFF in DAMAGE_CODES


def damage_line(path: str, kind: str, fault: object) -> str:
    """Return a line about a damaged file: its name, what is wrong, and what to do."""
    return f"{kind} {path} is damaged ({str(fault).splitlines()[0]}): {ADVICE[kind]}"


def find_damage(path: str) -> list[str]:
    """Return what `PRAGMA integrity_check` finds wrong with a file, at most `MAX_FAULTS`; empty for a missing file."""
    if not Path(path).exists():
        return []
    try:
        with closing(sqlite3.connect(path, timeout=30.0)) as connection:
            connection.text_factory = lambda text: text.decode(errors="replace")
            faults = [str(row[0]) for row in connection.execute(f"PRAGMA integrity_check({MAX_FAULTS})")]
    except (sqlite3.Error, UnicodeDecodeError) as error:
        return [str(error)]
    return [] if faults == ["ok"] else faults


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
