"""The control plane: what editors and outlets write and every serving process reads. See the laws of the package."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

from pydantic import TypeAdapter
from sqlalchemy import Connection, RowMapping, Select, bindparam, desc, func, insert, select, update

from features.checksum import decode_stored
from features.control import audit_trail, tables
from features.control.audit_trail import AuditFault, Seal
from features.control.rows import AuditRow, Change, Outlet, PolicyVersion, PublishedPolicy, StoredItem
from features.control.target_overrides import TargetOverrides
from features.control.transactions import Database, WriteTransaction, read_tx, snapshot_tx, write_tx
from recsys.domain.errors import Conflict, DamagedData, InvalidInput, NotFound
from recsys.domain.fields import is_storable, printable
from recsys.domain.item import Item
from recsys.domain.regions import ancestry
from recsys.messages import message

logger = logging.getLogger(__name__)
_CHUNK = 500  # ids per IN list: SQLite takes at most 32,766 parameters, and short lists keep plans cached

_names = TypeAdapter(dict[str, str])


class ControlPlane:
    """The catalog, outlets, policies and audit trail behind one growing revision. Safe for threads and processes.

    Every method raises Unavailable if the database does not answer.
    """

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._engine = database.engine
        self._clock = clock
        self.target_overrides = TargetOverrides(database, clock)

    def close(self) -> None:
        """Close all connections; idempotent."""
        self._engine.dispose()

    def revision(self) -> int:
        """Return the number of the newest change: cheap enough to poll several times a second."""
        with read_tx(self._engine) as connection:
            return int(connection.execute(select(tables.revision.c.value)).scalar_one())

    # -- catalog

    def upsert_items(self, items: Sequence[Item], by: str) -> list[Change]:
        """Insert or update items, all or none; return the change of each. The last item with an id is stored."""
        bodies = {item.id: item.model_dump_json() for item in items}
        outlet_of = {item.id: item.outlet for item in items}
        with write_tx(self._database, self._clock()) as tx:
            stored: dict[str, str] = {}
            for ids in _chunks(list(bodies)):
                rows = tx.connection.execute(select(tables.items).where(tables.items.c.id.in_(ids)))
                stored.update((row.id, row.body) for row in rows)
            change: dict[str, Change] = {
                id_: "created" if id_ not in stored else "unchanged" if stored[id_] == body else "updated"
                for id_, body in bodies.items()
            }
            changed = [id_ for id_, kind in change.items() if kind != "unchanged"]
            if changed:
                self._register(tx, {outlet_of[id_] for id_ in changed})
                self._write_items(tx, changed, change, bodies, outlet_of)
                detail = {"items": len(changed), "first": changed[:20]}
                tx.record(by, "items.upsert", changed[0] if len(changed) == 1 else "", detail)
        return [change[item.id] for item in items]

    @staticmethod
    def _write_items(
        tx: WriteTransaction,
        changed: Sequence[str],
        change: Mapping[str, Change],
        bodies: Mapping[str, str],
        outlet_of: Mapping[str, str],
    ) -> None:
        created: list[dict[str, object]] = []
        updated: list[dict[str, object]] = []
        for id_ in changed:
            row: dict[str, object] = {"revision": tx.next(), "outlet": outlet_of[id_], "body": bodies[id_]}
            if change[id_] == "created":
                created.append({"id": id_, **row})
            else:
                updated.append({"key": id_, **row})
        if created:
            highest = tx.connection.execute(select(func.max(tables.items.c.number))).scalar_one()
            for number, row in enumerate(
                created, 0 if highest is None else highest + 1
            ):  # the row lock of the transaction keeps numbers unique
                row["number"] = number
            tx.connection.execute(insert(tables.items), created)
        if updated:
            tx.connection.execute(update(tables.items).where(tables.items.c.id == bindparam("key")), updated)

    def items_since(self, revision: int, limit: int = 1000) -> list[StoredItem]:
        """Return at most `limit` items that changed after `revision`, in the order of their last change.

        Items whose rows are damaged are left out and logged.
        """
        items: list[StoredItem] = []
        columns = tables.items.c
        with read_tx(self._engine) as connection:
            while (missing := limit - len(items)) > 0:
                query = (
                    select(columns.revision, columns.id, columns.body, columns.number)
                    .where(columns.revision > revision)
                    .order_by(columns.revision)
                    .limit(missing)
                )
                rows = connection.execute(query).all()
                for row in rows:
                    try:
                        items.append(StoredItem.read(row.revision, row.body, row.number))
                    except DamagedData as error:
                        logger.error("control plane: item %s is damaged; put it again: %s", ascii(row.id), error)
                if len(rows) < missing:
                    break
                revision = rows[-1].revision
        return items

    def item(self, item_id: str) -> StoredItem:
        """Return one item. Raises NotFound, also for an id that the database could not hold."""
        if not is_storable(item_id):
            raise NotFound(message("item_not_found", item=printable(item_id)))
        with read_tx(self._engine) as connection:
            row = connection.execute(select(tables.items).where(tables.items.c.id == item_id)).first()
        if row is None:
            raise NotFound(message("item_not_found", item=item_id))
        return StoredItem.read(row.revision, row.body, row.number)

    # -- outlets

    def put_outlet(self, code: str, name: Mapping[str, str], by: str) -> Outlet:
        """Set the name of an outlet (language -> text), creating the outlet and its ancestors if needed."""
        with write_tx(self._database, self._clock()) as tx:
            self._register(tx, {code})
            revision, text = tx.next(), json.dumps(dict(name), ensure_ascii=False)
            tx.connection.execute(
                update(tables.outlets).where(tables.outlets.c.code == code).values(revision=revision, name=text)
            )
            tx.record(by, "outlet.put", code, {"name": dict(name)})
            return Outlet(code, dict(name), revision)

    def outlets(self, since: int = 0) -> list[Outlet]:
        """Return the outlets that changed after a revision, parents before children."""
        query = select(tables.outlets).where(tables.outlets.c.revision > since).order_by(tables.outlets.c.code)
        with read_tx(self._engine) as connection:
            return [
                Outlet(row.code, _outlet_name(row.code, row.name), row.revision) for row in connection.execute(query)
            ]

    @staticmethod
    def _register(tx: WriteTransaction, codes: Iterable[str]) -> None:
        """Create these outlets and their ancestors where they are missing."""
        query = {lineage for code in codes for lineage in ancestry(code)}
        existing: set[str] = set()
        for batch in _chunks(sorted(query)):
            existing.update(
                tx.connection.execute(select(tables.outlets.c.code).where(tables.outlets.c.code.in_(batch))).scalars()
            )
        missing = [{"code": code, "revision": tx.next(), "name": "{}"} for code in sorted(query - existing)]
        if missing:
            tx.connection.execute(insert(tables.outlets), missing)

    # -- policies

    def draft(self, outlet: str, text: str, author: str, note: str, base_version: int) -> PolicyVersion:
        """Append a version. `base_version` is the newest version that the author has seen (0: none).

        Raises Conflict if there is a newer version.
        """
        with write_tx(self._database, self._clock()) as tx:
            newest = self._newest(tx.connection, outlet)
            if base_version != newest:
                raise Conflict(message("version_outdated", outlet=outlet, newest=newest, base=base_version))
            self._register(tx, {outlet})
            version = PolicyVersion(outlet, newest + 1, text, author, note, tx.at)
            columns = {c.name: getattr(version, c.name) for c in tables.policies.columns}
            tx.connection.execute(insert(tables.policies).values(**columns))
            tx.next()
            tx.record(author, "policy.draft", outlet, {"version": version.version, "note": note})
            return version

    def publish(
        self, outlet: str, version: int, author: str, base_version: int | None = None, action: str = "policy.publish"
    ) -> PublishedPolicy:
        """Put a version in force. `base_version`, if given, is the version that the author believes in force (0: none).

        Raises NotFound for a version that does not exist. Raises Conflict if `base_version` is not the version in
        force, or if `version` already is.
        """
        with write_tx(self._database, self._clock()) as tx:
            saved = self._saved(tx.connection, outlet, version)
            active = self._active_version(tx.connection, outlet)
            if base_version is not None and base_version != active:
                raise Conflict(message("version_not_active", outlet=outlet, active=active, expected=base_version))
            if active == version:
                raise Conflict(message("version_already_active", outlet=outlet, version=version))
            revision = tx.next()
            tx.connection.execute(
                insert(tables.publications).values(
                    revision=revision, outlet=outlet, version=version, author=author, at=tx.at
                )
            )
            tx.record(author, action, outlet, {"version": version, "instead_of": active})
            return PublishedPolicy(outlet, version, str(saved["text"]), str(saved["author"]), revision)

    def rollback(self, outlet: str, version: int, author: str, base_version: int | None = None) -> PublishedPolicy:
        """Put a version in force that was in force before. Raises InvalidInput for a version that never was."""
        with read_tx(self._engine) as connection:
            self._saved(connection, outlet, version)
            published = select(func.count()).where(
                tables.publications.c.outlet == outlet, tables.publications.c.version == version
            )
            if not connection.execute(published).scalar_one():
                raise InvalidInput(message("version_never_active", outlet=outlet, version=version))
        return self.publish(outlet, version, author, base_version, action="policy.rollback")

    def version(self, outlet: str, version: int) -> PolicyVersion:
        """Return one saved version. Raises NotFound."""
        matches = [saved for saved in self.history(outlet) if saved.version == version]
        if not matches:
            raise NotFound(message("version_not_found", outlet=outlet, version=version))
        return matches[0]

    def history(self, outlet: str) -> list[PolicyVersion]:
        """Return every saved version, newest first; empty for an outlet without versions."""
        saved = select(tables.policies).where(tables.policies.c.outlet == outlet)
        published = select(tables.publications).where(tables.publications.c.outlet == outlet)
        with read_tx(self._engine) as connection:
            versions = connection.execute(saved.order_by(desc(tables.policies.c.version))).mappings().all()
            events = connection.execute(published.order_by(tables.publications.c.revision)).all()
        active = events[-1].version if events else 0
        return [
            PolicyVersion(
                **row,
                published_at=tuple(event.at for event in events if event.version == row["version"]),
                active=row["version"] == active,
            )
            for row in versions
        ]

    def policies_since(self, revision: int) -> list[PublishedPolicy]:
        """Return the versions in force of all outlets whose policy changed after `revision`."""
        with read_tx(self._engine) as connection:
            rows = connection.execute(_active_policies().where(tables.publications.c.revision > revision)).mappings()
            return [PublishedPolicy(**row) for row in rows]

    @staticmethod
    def _newest(connection: Connection, outlet: str) -> int:
        newest = select(func.max(tables.policies.c.version)).where(tables.policies.c.outlet == outlet)
        return int(connection.execute(newest).scalar() or 0)

    @staticmethod
    def _active_version(connection: Connection, outlet: str) -> int:
        newest = select(tables.publications.c.version).where(tables.publications.c.outlet == outlet)
        return int(connection.execute(newest.order_by(desc(tables.publications.c.revision)).limit(1)).scalar() or 0)

    @staticmethod
    def _saved(connection: Connection, outlet: str, version: int) -> RowMapping:
        query = select(tables.policies).where(tables.policies.c.outlet == outlet, tables.policies.c.version == version)
        row = connection.execute(query).mappings().first()
        if row is None:
            raise NotFound(message("version_not_found", outlet=outlet, version=version))
        return row

    # -- audit

    def audit(
        self, after: int = 0, limit: int = 100, before: int | None = None, newest_first: bool = False
    ) -> list[AuditRow]:
        """Return at most `limit` audit rows between two sequence numbers, both exclusive.

        Rows are oldest first unless `newest_first` is set.
        """
        seq = tables.audit.c.seq
        query = select(tables.audit).where(seq > after).order_by(desc(seq) if newest_first else seq).limit(limit)
        if before is not None:
            query = query.where(seq < before)
        with read_tx(self._engine) as connection:
            rows = connection.execute(query).mappings().all()
        return [AuditRow.read(dict(row)) for row in rows]

    def verify_audit(self, checkpoint: Seal | None = None) -> tuple[int, AuditFault | None]:
        """Verify the audit trail; return the number of intact entries and the first fault, None if there is none.

        checkpoint  a seal that was stored outside the database (`features.control.audit_checkpoint`)
        Raises InvalidInput for a checkpoint that the key of the trail did not sign.
        """
        with snapshot_tx(self._engine) as connection:
            return audit_trail.verify(connection, self._database.signer, checkpoint)


def _outlet_name(code: str, text: str) -> dict[str, str]:
    """Return the name in this JSON text; empty if it is damaged."""
    try:
        return decode_stored(text, _names.validate_json)
    except DamagedData as error:
        logger.error("control plane: the name of outlet %s is damaged; set it again: %s", ascii(code), error)
        return {}


def _active_policies() -> Select[tuple[str, int, str, str, int]]:
    """Select the newest publication of each outlet, with the policy's text."""
    newest = select(func.max(tables.publications.c.revision)).group_by(tables.publications.c.outlet)
    return (
        select(
            tables.publications.c.outlet,
            tables.publications.c.version,
            tables.policies.c.text,
            tables.policies.c.author,
            tables.publications.c.revision,
        )
        .join(
            tables.policies,
            (tables.policies.c.outlet == tables.publications.c.outlet)
            & (tables.policies.c.version == tables.publications.c.version),
        )
        .where(tables.publications.c.revision.in_(newest))
        .order_by(tables.publications.c.revision)
    )


def _chunks(keys: Sequence[str]) -> Iterable[Sequence[str]]:
    return (keys[start : start + _CHUNK] for start in range(0, len(keys), _CHUNK))
