"""The signed audit trail: its entries are chained by HMAC-SHA256, with a key that the database does not contain.

Each entry is signed together with the signature of the entry before it. A *seal* in the database signs the number and
the signature of the newest entry. A *checkpoint* is a copy of the newest seal in a file outside the database. Whoever
can write to the database, but does not know the key, therefore cannot

* change, insert, move or remove an entry: a signature does not match, or a number is missing;
* remove entries from the end: the seal names an entry that is missing;
* rewrite the trail with new signatures: they do not match the key;
* restore an older state of the whole database: the checkpoint names an entry that is missing or differs.

A gap that `verify` would report is never closed by later writes: after the seal was removed or does not match, the next
entry leaves a number out.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, desc, insert, select
from sqlalchemy.exc import DBAPIError

from features.control import tables
from recsys.domain.errors import Conflict, InvalidInput
from recsys.messages import message

BATCH = 1000
_FIELDS = ("seq", "at", "actor", "action", "subject", "detail", "previous")


class Seal(NamedTuple):
    """The end of the trail at some time: number and signature of the newest entry, signed with the key of the trail."""

    seq: int
    hash: str
    signature: str


class AuditFault(NamedTuple):
    """The first entry of a trail that is not as it was written, and the reason."""

    seq: int
    reason: str


class AuditSigner:
    """Signs entries and seals with the key of the trail."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def entry(self, row: Mapping[str, Any]) -> str:
        """Return the signature of a row of the table `audit`: of all columns but `hash`, in a canonical form."""
        return self._sign("entry", *(row[name] for name in _FIELDS))

    def seal(self, seq: int, entry_signature: str) -> Seal:
        """Return the seal of a trail that ends with this entry."""
        return Seal(seq, entry_signature, self._sign("seal", seq, entry_signature))

    def is_genuine(self, seal: Seal) -> bool:
        """Return whether a seal was signed with this key."""
        return hmac.compare_digest(_raw(seal.signature), _raw(self.seal(seal.seq, seal.hash).signature))

    def _sign(self, *fields: object) -> str:
        text = json.dumps(fields, ensure_ascii=True, default=repr)  # repr: SQLite columns can hold any type
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()


def append(
    connection: Connection,
    signer: AuditSigner,
    at: float,
    actor: str,
    action: str,
    subject: str,
    detail: Mapping[str, object],
    is_first: bool,
) -> Seal:
    """Append an entry to the trail and return its new seal. The caller holds the write lock.

    is_first  whether nothing was ever written to this database
    Raises Conflict if another key signed the trail.
    """
    newest = connection.execute(
        select(tables.audit.c.seq, tables.audit.c.hash).order_by(desc(tables.audit.c.seq)).limit(1)
    ).first()
    last, previous = (newest.seq, newest.hash) if newest else (0, "")
    seal = read_seal(connection)
    if seal is None:
        is_intact = newest is None and is_first
    else:
        is_intact = signer.is_genuine(seal) and seal.seq >= last
        if not is_intact and _is_of_another_key(connection, signer):
            raise Conflict(message("audit_key_differs"))
        last = max(last, seal.seq) if is_intact else last
    row = {
        "seq": last + (1 if is_intact else 2),  # a number is left out, so that the break stays visible
        "at": at,
        "actor": actor,
        "action": action,
        "subject": subject,
        "detail": json.dumps(dict(detail), sort_keys=True, ensure_ascii=False),
        "previous": previous,
    }
    row["hash"] = signer.entry(row)
    connection.execute(insert(tables.audit).values(**row))
    return write_seal(connection, signer.seal(int(row["seq"]), str(row["hash"])))


def _is_of_another_key(connection: Connection, signer: AuditSigner) -> bool:
    """Return whether the first entry was signed with another key, which is what a host with a wrong setting sees."""
    first = connection.execute(select(tables.audit).where(tables.audit.c.seq == 1)).mappings().first()
    return first is not None and first["hash"] != signer.entry(dict(first))


def sign_unsigned(connection: Connection, signer: AuditSigner, checkpoint: Seal | None = None) -> None:
    """Sign the entries of a trail that an older version wrote without a key.

    checkpoint  the seal that was stored outside the database, if there is one

    Entries from the first one on that is missing or does not match its SHA-256 chain stay as they are, so that `verify`
    names it. The trail gets no seal if it contradicts a genuine checkpoint: it was signed before, and somebody removed
    the signatures.
    """
    previous, plain, last = "", "", 0
    is_sealed = checkpoint is None or not signer.is_genuine(checkpoint)
    for row in list(_rows(connection)):
        if row["seq"] != last + 1 or row["previous"] != plain or row["hash"] != _unkeyed_hash(row):
            break
        plain, last = row["hash"], row["seq"]
        changed = {**row, "previous": previous}
        previous = signer.entry(changed)
        is_sealed = is_sealed or (checkpoint is not None and (last, previous) == (checkpoint.seq, checkpoint.hash))
        connection.execute(
            tables.audit.update().where(tables.audit.c.seq == last).values(previous=changed["previous"], hash=previous)
        )
    if last and is_sealed:
        write_seal(connection, signer.seal(last, previous))


def _unkeyed_hash(row: Mapping[str, Any]) -> str | None:
    """Return the SHA-256 by which older versions chained entries; None for an entry that they cannot have written."""
    try:
        fields = [json.loads(row[name]) if name == "detail" else row[name] for name in _FIELDS]
        text = json.dumps(fields, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()
    except (ValueError, TypeError):
        return None


def read_seal(connection: Connection) -> Seal | None:
    """Return the seal in the database; None if there is none."""
    row = connection.execute(select(tables.audit_seal)).first()
    return None if row is None else Seal(row.seq, str(row.hash), str(row.signature))


def write_seal(connection: Connection, seal: Seal) -> Seal:
    """Replace the seal in the database and return it."""
    connection.execute(delete(tables.audit_seal))
    connection.execute(insert(tables.audit_seal).values(id=1, **seal._asdict()))
    return seal


def verify(
    connection: Connection, signer: AuditSigner, checkpoint: Seal | None = None
) -> tuple[int, AuditFault | None]:
    """Verify the trail; return the number of its entries and the first fault, None for an intact trail.

    checkpoint  a seal that was stored elsewhere; None to verify the database alone

    The connection must read from one snapshot. Raises InvalidInput for a checkpoint that this key did not sign.
    """
    if checkpoint is not None and not signer.is_genuine(checkpoint):
        raise InvalidInput("the checkpoint was changed, or signed with another key")
    last, previous = 0, ""
    for row in _rows(connection):
        fault = _entry_fault(row, last, previous, signer, checkpoint)
        if fault is not None:
            return last, fault
        last, previous = row["seq"], row["hash"]
    return last, _end_fault(connection, last, signer, checkpoint)


def _raw(text: str) -> bytes:
    """Return the bytes of a text of the database, which need not be UTF-8."""
    return text.encode("utf-8", "surrogateescape")


def _entry_fault(
    row: Mapping[str, Any], last: int, previous: str, signer: AuditSigner, checkpoint: Seal | None
) -> AuditFault | None:
    """Return the fault of an entry after the entry `last`, whose signature is `previous`."""
    seq = row["seq"]
    if not isinstance(seq, int):  # SQLite columns can hold any type
        return AuditFault(last + 1, "was not written by this service")
    if seq != last + 1:
        return AuditFault(min(seq, last + 1), "is missing" if seq > last else "was not written by this service")
    if not isinstance(row["hash"], str) or not hmac.compare_digest(_raw(row["hash"]), _raw(signer.entry(row))):
        return AuditFault(seq, "was altered or inserted, or signed with another key")
    if row["previous"] != previous:
        return AuditFault(seq, "does not follow the entry before it")
    if checkpoint is not None and seq == checkpoint.seq and row["hash"] != checkpoint.hash:
        return AuditFault(seq, "differs from the checkpoint: this entry or an earlier one was replaced")
    return None


def _end_fault(connection: Connection, last: int, signer: AuditSigner, checkpoint: Seal | None) -> AuditFault | None:
    """Return the fault of a trail whose entries up to `last` are intact."""
    if checkpoint is not None and checkpoint.seq > last:
        return AuditFault(last + 1, f"is missing: the checkpoint names {checkpoint.seq:,} entries")
    seal = read_seal(connection)
    if seal is None:
        revision = connection.execute(select(tables.revision.c.value)).scalar() or 0
        return AuditFault(last + 1, "may be missing: the seal of the trail is missing") if last or revision else None
    if not signer.is_genuine(seal):
        return AuditFault(last + 1, "may be missing: the seal of the trail was altered or signed with another key")
    if seal.seq > last:
        return AuditFault(last + 1, f"is missing: the trail had {seal.seq:,} entries")
    return AuditFault(seal.seq + 1, "is not covered by the seal of the trail") if seal.seq < last else None


def _rows(connection: Connection) -> Iterator[dict[str, Any]]:
    """Yield all rows in order, each as stored. A row that cannot be read has only `seq` and empty fields."""
    after: int | None = None
    while True:
        try:
            batch = _batch(connection, after, BATCH)
        except DBAPIError:  # in SQLite a text can hold bytes that are not UTF-8
            batch = _batch_one_by_one(connection, after)
        yield from batch
        if not batch:
            return
        after = batch[-1]["seq"]


def _batch(connection: Connection, after: int | None, limit: int) -> list[dict[str, Any]]:
    query = select(tables.audit).order_by(tables.audit.c.seq).limit(limit)
    if after is not None:
        query = query.where(tables.audit.c.seq > after)
    return [dict(row) for row in connection.execute(query).mappings()]


def _batch_one_by_one(connection: Connection, after: int | None) -> list[dict[str, Any]]:
    query = select(tables.audit.c.seq).order_by(tables.audit.c.seq).limit(BATCH)
    if after is not None:
        query = query.where(tables.audit.c.seq > after)
    rows: list[dict[str, Any]] = []
    for seq in connection.execute(query).scalars().all():
        try:
            row = connection.execute(select(tables.audit).where(tables.audit.c.seq == seq)).mappings().one()
            rows.append(dict(row))
        except DBAPIError:
            rows.append({**dict.fromkeys(_FIELDS, ""), "seq": seq, "hash": ""})
    return rows
