"""Open the control plane by URL, creating or migrating its tables."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError

from features.control.audit_checkpoint import AuditCheckpoint
from features.control.audit_trail import AuditSigner
from features.control.plane import ControlPlane
from features.control.transactions import Database, map_db_errors
from features.secret_file import read_or_create_secret
from features.settings import Settings
from features.sqlite import create_private_file, map_sqlite_errors, sqlite_path, use_wal
from recsys.domain.errors import InvalidInput

HEAD = "0005"
"""The newest migration. A database at this revision is opened without loading Alembic."""

AUDIT_KEY_FILE, CHECKPOINT_FILE = "audit.key", "audit.checkpoint"
"""Files in the home directory."""

MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK_KEY = 0x6D61696E  # an arbitrary key of the advisory lock under which processes migrate one after the other
_alembic_lock = threading.Lock()  # Alembic keeps its context in globals, so threads migrate one after the other, too


def open_control(
    url: str, audit_key: bytes, clock: Callable[[], float] = time.time, checkpoint: AuditCheckpoint | None = None
) -> ControlPlane:
    """Open the control plane at `sqlite:///PATH` or `postgresql://...`, creating or migrating its tables.

    audit_key   key of the audit trail, the same for all processes of a control plane (`audit_key_of`)
    checkpoint  the file that stores the newest seal of the trail; None stores it in the database only
    Raises InvalidInput for any other URL and Unavailable if the database does not answer.
    """
    database = Database(connect(url), AuditSigner(audit_key), checkpoint)
    with map_db_errors(database.engine):
        migrate(database)
    return ControlPlane(database, clock)


def open_control_of(settings: Settings, clock: Callable[[], float] = time.time) -> ControlPlane:
    """Open the control plane of these settings. Raises InvalidInput and Unavailable."""
    return open_control(settings.control_url, audit_key_of(settings), clock, checkpoint_of(settings))


def audit_key_of(settings: Settings) -> bytes:
    """Return the key of the audit trail: the setting, or else the file in the home directory, created if missing."""
    return settings.audit_key.encode() or read_or_create_secret(Path(settings.home) / AUDIT_KEY_FILE)


def checkpoint_of(settings: Settings) -> AuditCheckpoint:
    """Return the checkpoint file of these settings, by default in the home directory."""
    return AuditCheckpoint(Path(settings.audit_checkpoint or Path(settings.home) / CHECKPOINT_FILE))


def connect(url: str) -> Engine:
    """Return a database engine for concurrent writers. It creates only the directory of an SQLite file.

    `postgresql://…?schema=NAME` puts all tables into that schema, so that several engines can share one database;
    `migrate` creates the schema. Raises InvalidInput for an invalid URL.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise InvalidInput(f"control plane URL {url!r}: {error}") from error
    if parsed.get_backend_name() == "postgresql":
        return _postgres(parsed)
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        raise InvalidInput(f"control plane URL {url!r}: expected sqlite:///PATH or postgresql://USER@HOST/DB")
    path = sqlite_path(url)
    with map_sqlite_errors(path, "control plane"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        create_private_file(path)
    engine = create_engine(parsed, connect_args={"timeout": 10})
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _postgres(url: URL) -> Engine:
    schema = url.query.get("schema", "")
    if not isinstance(schema, str) or not re.fullmatch(r"[a-z_][a-z0-9_]*|", schema):
        raise InvalidInput(f"control plane schema {schema!r}: use only lower-case letters, digits and _")
    options = {"options": f"-csearch_path={schema}"} if schema else {}
    return create_engine(
        url.difference_update_query(["schema"]).set(drivername="postgresql+psycopg"),
        pool_pre_ping=True,
        pool_timeout=5,
        connect_args={"connect_timeout": 2, **options},  # 2 s: an unreachable database must fail quickly
    )


def _configure_sqlite(connection: Any, _record: object) -> None:
    connection.text_factory = lambda text: text.decode(
        errors="surrogateescape"
    )  # one damaged row must not hide the rest
    connection.isolation_level = None  # `_begin_sqlite` issues BEGIN: the driver's comes too late for a write lock
    cursor = connection.cursor()
    cursor.execute("PRAGMA busy_timeout = 10000")
    use_wal(cursor)
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def migrate(database: Database) -> None:
    """Migrate the tables to `HEAD`. Of several processes and threads, the first one does it."""
    engine = database.engine
    if _at_head(engine):
        return
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))  # % begins an interpolation
    with _alembic_lock, engine.connect().execution_options(writes=True) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
            _create_schema(connection)
        seal = database.checkpoint.seal() if database.checkpoint else None
        config.attributes.update(connection=connection, signer=database.signer, checkpoint=seal)
        command.upgrade(config, "head")


def _create_schema(connection: Connection) -> None:
    """Create the schema of the URL if it is missing; an existing schema needs no CREATE privilege."""
    schema = connection.execute(text("SHOW search_path")).scalar_one()
    if (
        re.fullmatch(r"[a-z_][a-z0-9_]*", schema)
        and connection.execute(text("SELECT current_schema()")).scalar() is None
    ):
        connection.execute(text(f"CREATE SCHEMA {schema}"))


def _at_head(engine: Engine) -> bool:
    with engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return False
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == HEAD
