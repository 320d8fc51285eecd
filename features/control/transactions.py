"""Transactions of the control plane. Writes are serialised; every change gets a revision and an audit row."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from sqlalchemy import Connection, Engine, desc, insert, select, update
from sqlalchemy.exc import DataError, DBAPIError, TimeoutError

from features.control import tables
from features.control.rows import AuditRow
from features.sqlite import damage_line, is_damage
from recsys.domain.errors import InvalidInput, Unavailable
from recsys.domain.fields import printable
from recsys.messages import message


class WriteTransaction:
    """An open write transaction. It holds the row lock of the revision, so no other writer interleaves with it."""

    def __init__(self, connection: Connection, at: float) -> None:
        self.connection = connection
        self.at = at
        locked = connection.execute(select(tables.revision.c.value).with_for_update())
        self._value = self._first = int(locked.scalar_one())

    def next(self) -> int:
        """Return a new revision. Each changed row gets its own, so that readers can page by revision."""
        self._value += 1
        return self._value

    def record(self, actor: str, action: str, subject: str, detail: Mapping[str, object]) -> None:
        """Append an audit row that is chained to the previous one."""
        newest = self.connection.execute(
            select(tables.audit.c.seq, tables.audit.c.hash).order_by(desc(tables.audit.c.seq)).limit(1)
        ).first()
        seq, previous = (newest.seq + 1, newest.hash) if newest else (1, "")
        row = AuditRow(seq, self.at, actor, action, subject, dict(detail), previous, "")
        row = replace(row, hash=row.computed_hash())
        text = json.dumps(row.detail, sort_keys=True, ensure_ascii=False)
        self.connection.execute(insert(tables.audit).values(**{**vars(row), "detail": text}))

    def close(self) -> None:
        """Store the last revision, if anything changed."""
        if self._value != self._first:
            self.connection.execute(update(tables.revision).values(value=self._value))


@contextmanager
def write_tx(engine: Engine, at: float) -> Iterator[WriteTransaction]:
    """Open a write transaction, which commits as a whole or not at all. Raises Unavailable if there is no answer."""
    with map_db_errors(engine), engine.connect().execution_options(writes=True) as connection, connection.begin():
        tx = WriteTransaction(connection, at)
        yield tx
        tx.close()


@contextmanager
def read_tx(engine: Engine) -> Iterator[Connection]:
    """Open a read transaction. Raises Unavailable if the database does not answer."""
    with map_db_errors(engine), engine.connect() as connection, connection.begin():
        yield connection


@contextmanager
def map_db_errors(engine: Engine | None = None) -> Iterator[None]:
    """Turn the driver's errors into those of the domain.

    engine  names the file in the message about a damaged one

    A value that the database cannot hold (an integer of more than 64 bits, NUL, half of a surrogate pair, a text that
    is too long) becomes InvalidInput; an unreachable, overloaded or damaged database becomes Unavailable.
    """
    try:
        yield
    except (DataError, OverflowError, UnicodeEncodeError) as error:
        raise InvalidInput(message("value_not_storable", cause=_cause(error))) from error
    except (DBAPIError, TimeoutError, UnicodeDecodeError) as error:
        if is_damage(fault := getattr(error, "orig", error)):
            path = (engine.url.database if engine else None) or "database"
            raise Unavailable(damage_line(path, "control plane", fault)) from error
        raise Unavailable(f"control plane: {_cause(error)}") from error


def _cause(error: Exception) -> str:
    return printable(str(getattr(error, "orig", None) or error).strip().splitlines()[0])
