"""From a URL to a control plane whose tables are up to date."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError

from features.control.plane import ControlPlane
from features.control.transactions import map_db_errors
from features.sqlite import use_wal
from recsys.domain.errors import InvalidInput

HEAD = "0002"
"""The newest migration: a database that already stands there is opened without loading Alembic."""

MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK = 0x6D61696E  # any fixed number: processes that start together migrate one after the other
_alembic = threading.Lock()  # Alembic keeps its context in globals, so threads take turns too


def open_control(url: str, clock: Callable[[], float] = time.time) -> ControlPlane:
    """The control plane at `sqlite:///PATH` or `postgresql://...`; creates or migrates its tables.

    Raises InvalidInput for any other URL and Unavailable when the database does not answer.
    """
    engine = connect(url)
    with map_db_errors():
        migrate(engine)
    return ControlPlane(engine, clock)


def connect(url: str) -> Engine:
    """An engine that writes safely from several processes; nothing is created but a SQLite file's directory.

    `postgresql://…?schema=NAME` keeps all tables in that schema, so that several engines can share one database;
    `migrate` creates it.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise InvalidInput(f"control plane URL {url!r}: {error}") from error
    if parsed.get_backend_name() == "postgresql":
        return _postgres(parsed)
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        raise InvalidInput(f"control plane URL {url!r}: expected sqlite:///PATH or postgresql://USER@HOST/DB")
    Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(parsed, connect_args={"timeout": 10})
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _postgres(url: URL) -> Engine:
    schema = url.query.get("schema", "")
    if not isinstance(schema, str) or not re.fullmatch(r"[a-z_][a-z0-9_]*|", schema):
        raise InvalidInput(f"control plane schema {schema!r}: lower-case letters, digits and _ are wanted")
    options = {"options": f"-csearch_path={schema}"} if schema else {}
    return create_engine(
        url.difference_update_query(["schema"]).set(drivername="postgresql+psycopg"),
        pool_pre_ping=True,
        pool_timeout=5,
        connect_args={"connect_timeout": 2, **options},  # 2 s: dead must show as dead, not as a hanging editor
    )


def _configure_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves: the driver's own begins too late for a write lock
    cursor = connection.cursor()
    cursor.execute("PRAGMA busy_timeout = 10000")
    use_wal(cursor)
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def migrate(engine: Engine) -> None:
    """Bring the tables to `HEAD`, once, whoever comes first."""
    if _at_head(engine):
        return
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with _alembic, engine.connect().execution_options(writes=True) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            _create_schema(connection)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _create_schema(connection: Connection) -> None:
    """The schema that a URL asked for; one that is there already needs no right to create any."""
    wanted = connection.execute(text("SHOW search_path")).scalar_one()
    if (
        re.fullmatch(r"[a-z_][a-z0-9_]*", wanted)
        and connection.execute(text("SELECT current_schema()")).scalar() is None
    ):
        connection.execute(text(f"CREATE SCHEMA {wanted}"))


def _at_head(engine: Engine) -> bool:
    with engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return False
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == HEAD
