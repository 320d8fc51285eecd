"""Editors' overrides of running exposure targets: one row per target, with a revision and an audit row per change."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict

from sqlalchemy import delete, insert, select

from features.control import tables
from features.control.transactions import Database, read_tx, write_tx
from recsys.pacing.tracker import TargetOverride


class TargetOverrides:
    """The overrides of all targets. Every method raises Unavailable if the database does not answer."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    def update(
        self,
        target: str,
        change: Callable[[TargetOverride], TargetOverride],
        author: str,
        action: str,
        detail: Mapping[str, object],
    ) -> TargetOverride:
        """Change the override of a target (`outlet/control`). Concurrent changes apply one after the other."""
        with write_tx(self._database, self._clock()) as tx:
            row = tx.connection.execute(
                select(tables.target_orders.c.body).where(tables.target_orders.c.target == target)
            ).first()
            override = change(_read(row.body) if row else TargetOverride())
            tx.connection.execute(delete(tables.target_orders).where(tables.target_orders.c.target == target))
            body = json.dumps(asdict(override))
            tx.connection.execute(insert(tables.target_orders).values(target=target, revision=tx.next(), body=body))
            tx.record(author, action, target, {**detail, "order": asdict(override)})
            return override

    def since(self, revision: int = 0) -> dict[str, TargetOverride]:
        """Return the overrides that changed after a revision, by target."""
        query = select(tables.target_orders).where(tables.target_orders.c.revision > revision)
        with read_tx(self._database.engine) as connection:
            return {row.target: _read(row.body) for row in connection.execute(query)}


def _read(body: str) -> TargetOverride:
    return TargetOverride(**json.loads(body))
