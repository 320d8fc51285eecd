"""What editors and outlets write, and what every serving process follows. See the laws in the package docstring."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence

from sqlalchemy import Connection, Engine, RowMapping, Select, bindparam, desc, func, insert, select, update

from features.control import tables
from features.control.rows import AuditRow, Change, Outlet, PolicyVersion, PublishedPolicy, StoredItem
from features.control.target_overrides import TargetOverrides
from features.control.transactions import WriteTransaction, read_tx, write_tx
from recsys.domain.errors import Conflict, InvalidInput, NotFound
from recsys.domain.item import Item
from recsys.domain.regions import ancestry
from recsys.messages import message

_CHUNK = 500  # ids per IN list: SQLite takes at most 32,766 parameters, and short lists keep plans cached


class ControlPlane:
    """Catalogue, outlets, policies and audit behind one growing revision. Safe for threads and for several processes.

    Every method raises Unavailable when the database does not answer.
    """

    def __init__(self, engine: Engine, clock: Callable[[], float]) -> None:
        self._engine = engine
        self._clock = clock
        self.orders = TargetOverrides(engine, clock)  # to exposure targets

    def close(self) -> None:
        """Let go of all connections; idempotent."""
        self._engine.dispose()

    def revision(self) -> int:
        """The number of the newest change: cheap enough to ask several times a second."""
        with read_tx(self._engine) as connection:
            return int(connection.execute(select(tables.revision.c.value)).scalar_one())

    # -- catalogue

    def upsert_items(self, items: Sequence[Item], by: str) -> list[Change]:
        """Put items in, all or none; says for each what became of it. Of an id that comes twice the last form stays."""
        bodies = {item.id: item.model_dump_json() for item in items}
        outlet_of = {item.id: item.outlet for item in items}
        with write_tx(self._engine, self._clock()) as ledger:
            known: dict[str, str] = {}
            for ids in _chunks(list(bodies)):
                rows = ledger.connection.execute(select(tables.items).where(tables.items.c.id.in_(ids)))
                known.update((row.id, row.body) for row in rows)
            change: dict[str, Change] = {
                id_: "created" if id_ not in known else "unchanged" if known[id_] == body else "updated"
                for id_, body in bodies.items()
            }
            changed = [id_ for id_, kind in change.items() if kind != "unchanged"]
            if changed:
                self._register(ledger, {outlet_of[id_] for id_ in changed})
                self._write_items(ledger, changed, change, bodies, outlet_of)
                detail = {"items": len(changed), "first": changed[:20]}
                ledger.record(by, "items.upsert", changed[0] if len(changed) == 1 else "", detail)
        return [change[item.id] for item in items]

    @staticmethod
    def _write_items(
        ledger: WriteTransaction,
        changed: Sequence[str],
        change: Mapping[str, Change],
        bodies: Mapping[str, str],
        outlet_of: Mapping[str, str],
    ) -> None:
        created: list[dict[str, object]] = []
        updated: list[dict[str, object]] = []
        for id_ in changed:
            row: dict[str, object] = {"revision": ledger.next(), "outlet": outlet_of[id_], "body": bodies[id_]}
            if change[id_] == "created":
                created.append({"id": id_, **row})
            else:
                updated.append({"key": id_, **row})
        if created:
            ledger.connection.execute(insert(tables.items), created)
        if updated:
            ledger.connection.execute(update(tables.items).where(tables.items.c.id == bindparam("key")), updated)

    def items_since(self, revision: int, limit: int = 1000) -> list[StoredItem]:
        """At most `limit` items that changed after `revision`, in the order of their last change."""
        wanted = (
            select(tables.items.c.revision, tables.items.c.body)
            .where(tables.items.c.revision > revision)
            .order_by(tables.items.c.revision)
            .limit(limit)
        )
        with read_tx(self._engine) as connection:
            return [StoredItem.read(row.revision, row.body) for row in connection.execute(wanted)]

    def item(self, item_id: str) -> StoredItem:
        """One item; raises NotFound."""
        with read_tx(self._engine) as connection:
            row = connection.execute(select(tables.items).where(tables.items.c.id == item_id)).first()
        if row is None:
            raise NotFound(message("item_not_found", item=item_id))
        return StoredItem.read(row.revision, row.body)

    # -- outlets

    def put_outlet(self, code: str, name: Mapping[str, str], by: str) -> Outlet:
        """Name an outlet (language -> text); it and its ancestors exist from then on."""
        with write_tx(self._engine, self._clock()) as ledger:
            self._register(ledger, {code})
            revision, text = ledger.next(), json.dumps(dict(name), ensure_ascii=False)
            ledger.connection.execute(
                update(tables.outlets).where(tables.outlets.c.code == code).values(revision=revision, name=text)
            )
            ledger.record(by, "outlet.put", code, {"name": dict(name)})
            return Outlet(code, dict(name), revision)

    def outlets(self, since: int = 0) -> list[Outlet]:
        """Outlets that changed after a revision, parents before children."""
        wanted = select(tables.outlets).where(tables.outlets.c.revision > since).order_by(tables.outlets.c.code)
        with read_tx(self._engine) as connection:
            return [Outlet(row.code, json.loads(row.name), row.revision) for row in connection.execute(wanted)]

    @staticmethod
    def _register(ledger: WriteTransaction, codes: Iterable[str]) -> None:
        """An outlet that somebody speaks of exists, and so do its ancestors."""
        wanted = {lineage for code in codes for lineage in ancestry(code)}
        known: set[str] = set()
        for some in _chunks(sorted(wanted)):
            known.update(
                ledger.connection.execute(
                    select(tables.outlets.c.code).where(tables.outlets.c.code.in_(some))
                ).scalars()
            )
        missing = [{"code": code, "revision": ledger.next(), "name": "{}"} for code in sorted(wanted - known)]
        if missing:
            ledger.connection.execute(insert(tables.outlets), missing)

    # -- policies

    def draft(self, outlet: str, text: str, author: str, note: str, base_version: int) -> PolicyVersion:
        """Append a version. `base_version` is the newest the author has seen (0: none).

        Raises Conflict when somebody else saved one since.
        """
        with write_tx(self._engine, self._clock()) as ledger:
            newest = self._newest(ledger.connection, outlet)
            if base_version != newest:
                raise Conflict(message("version_outdated", outlet=outlet, newest=newest, base=base_version))
            self._register(ledger, {outlet})
            version = PolicyVersion(outlet, newest + 1, text, author, note, ledger.at)
            columns = {c.name: getattr(version, c.name) for c in tables.policies.columns}
            ledger.connection.execute(insert(tables.policies).values(**columns))
            ledger.next()
            ledger.record(author, "policy.draft", outlet, {"version": version.version, "note": note})
            return version

    def publish(
        self, outlet: str, version: int, author: str, base_version: int | None = None, action: str = "policy.publish"
    ) -> PublishedPolicy:
        """Put a version in force. `base_version`, when given, is the one the author believes in force (0: none).

        Raises NotFound for a version that was never saved, Conflict when another is in force or this one already is.
        """
        with write_tx(self._engine, self._clock()) as ledger:
            saved = self._saved(ledger.connection, outlet, version)
            active = self._active_version(ledger.connection, outlet)
            if base_version is not None and base_version != active:
                raise Conflict(message("version_not_active", outlet=outlet, active=active, expected=base_version))
            if active == version:
                raise Conflict(message("version_already_active", outlet=outlet, version=version))
            revision = ledger.next()
            ledger.connection.execute(
                insert(tables.publications).values(
                    revision=revision, outlet=outlet, version=version, author=author, at=ledger.at
                )
            )
            ledger.record(author, action, outlet, {"version": version, "instead_of": active})
            return PublishedPolicy(outlet, version, str(saved["text"]), str(saved["author"]), revision)

    def rollback(self, outlet: str, version: int, author: str, base_version: int | None = None) -> PublishedPolicy:
        """Put a version in force that was in force before; raises InvalidInput for one that never was."""
        with read_tx(self._engine) as connection:
            self._saved(connection, outlet, version)
            was = select(func.count()).where(
                tables.publications.c.outlet == outlet, tables.publications.c.version == version
            )
            if not connection.execute(was).scalar_one():
                raise InvalidInput(message("version_never_active", outlet=outlet, version=version))
        return self.publish(outlet, version, author, base_version, action="policy.rollback")

    def version(self, outlet: str, version: int) -> PolicyVersion:
        """One saved version; raises NotFound."""
        found = [kept for kept in self.history(outlet) if kept.version == version]
        if not found:
            raise NotFound(message("version_not_found", outlet=outlet, version=version))
        return found[0]

    def history(self, outlet: str) -> list[PolicyVersion]:
        """Every version ever saved, newest first; empty for an outlet that never had one."""
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
        """The versions in force of all outlets whose policy changed after `revision`."""
        with read_tx(self._engine) as connection:
            rows = connection.execute(_in_force().where(tables.publications.c.revision > revision)).mappings()
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
        wanted = select(tables.policies).where(tables.policies.c.outlet == outlet, tables.policies.c.version == version)
        row = connection.execute(wanted).mappings().first()
        if row is None:
            raise NotFound(message("version_not_found", outlet=outlet, version=version))
        return row

    # -- audit

    def audit(
        self, after: int = 0, limit: int = 100, before: int | None = None, newest_first: bool = False
    ) -> list[AuditRow]:
        """At most `limit` audit rows between two sequence numbers, neither included; oldest first unless said."""
        seq = tables.audit.c.seq
        wanted = select(tables.audit).where(seq > after).order_by(desc(seq) if newest_first else seq).limit(limit)
        if before is not None:
            wanted = wanted.where(seq < before)
        with read_tx(self._engine) as connection:
            rows = connection.execute(wanted).mappings().all()
        return [AuditRow(**{**row, "detail": json.loads(row["detail"])}) for row in rows]

    def audit_break(self) -> int | None:
        """The first sequence number whose row is missing, altered or out of the chain; None when all of it holds."""
        expected, previous = 1, ""
        while rows := self.audit(after=expected - 1, limit=1000):
            for row in rows:
                if row.seq != expected or row.previous != previous or row.hash != row.computed_hash():
                    return expected
                expected, previous = expected + 1, row.hash
        return None


def _in_force() -> Select[tuple[str, int, str, str, int]]:
    """Of each outlet its newest publication, with the policy's text."""
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
