"""Transactions of the control plane. Writes are serialised; every change gets a revision and an audit row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, select, update
from sqlalchemy.exc import DataError, DBAPIError, TimeoutError

from features.control import tables
from features.control.audit_checkpoint import AuditCheckpoint
from features.control.audit_trail import AuditSigner, Seal, append
from features.sqlite import damage_line, is_damage
from recsys.domain.errors import InvalidInput, Unavailable
from recsys.domain.fields import printable
from recsys.messages import message


@dataclass(frozen=True)
class Database:
    """A database of the control plane, the signer of its audit trail, and the checkpoint file, if there is one."""

    engine: Engine
    signer: AuditSigner
    checkpoint: AuditCheckpoint | None = None


class WriteTransaction:
    """An open write transaction. It holds the row lock of the revision, so no other writer interleaves with it.

    `seal` is the seal of the audit trail after the last entry; None if nothing was recorded.
    """

    def __init__(self, connection: Connection, at: float, signer: AuditSigner) -> None:
        self.connection = connection
        self.at = at
        self.seal: Seal | None = None
        self._signer = signer
        locked = connection.execute(select(tables.revision.c.value).with_for_update())
        self._value = self._first = int(locked.scalar_one())

    def next(self) -> int:
        """Return a new revision. Each changed row gets its own, so that readers can page by revision."""
        self._value += 1
        return self._value

    def record(self, actor: str, action: str, subject: str, detail: Mapping[str, object]) -> None:
        """Append an entry to the audit trail."""
        self.seal = append(
            self.connection, self._signer, self.at, actor, action, subject, detail, is_first=self._first == 0
        )

    def close(self) -> None:
        """Store the last revision, if anything changed."""
        if self._value != self._first:
            self.connection.execute(update(tables.revision).values(value=self._value))


@contextmanager
def write_tx(database: Database, at: float) -> Iterator[WriteTransaction]:
    """Open a write transaction, which commits as a whole or not at all. Raises Unavailable if there is no answer."""
    engine = database.engine
    with map_db_errors(engine), engine.connect().execution_options(writes=True) as connection, connection.begin():
        tx = WriteTransaction(connection, at, database.signer)
        yield tx
        tx.close()
    if tx.seal is not None and database.checkpoint is not None:
        database.checkpoint.save(tx.seal)


@contextmanager
def read_tx(engine: Engine) -> Iterator[Connection]:
    """Open a read transaction. Raises Unavailable if the database does not answer."""
    with map_db_errors(engine), engine.connect() as connection, connection.begin():
        yield connection


@contextmanager
def snapshot_tx(engine: Engine) -> Iterator[Connection]:
    """Open a read transaction that sees one state of the database throughout. Raises Unavailable."""
    options = {"isolation_level": "REPEATABLE READ"} if engine.dialect.name == "postgresql" else {}
    with map_db_errors(engine), engine.connect().execution_options(**options) as connection, connection.begin():
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
