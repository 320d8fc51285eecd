"""What editors tell exposure targets that run: one row each, numbered and on the record like every other change."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict

from sqlalchemy import Engine, delete, insert, select

from features.control import tables
from features.control.transactions import read_tx, write_tx
from recsys.pacing.tracker import TargetOverride


class TargetOverrides:
    """The orders of all targets. Every method raises Unavailable when the database does not answer."""

    def __init__(self, engine: Engine, clock: Callable[[], float]) -> None:
        self._engine = engine
        self._clock = clock

    def update(
        self,
        target: str,
        change: Callable[[TargetOverride], TargetOverride],
        author: str,
        action: str,
        detail: Mapping[str, object],
    ) -> TargetOverride:
        """Change the order of a target (`outlet/control`); two changes at once both count, one after the other."""
        with write_tx(self._engine, self._clock()) as ledger:
            row = ledger.connection.execute(
                select(tables.target_orders.c.body).where(tables.target_orders.c.target == target)
            ).first()
            order = change(_read(row.body) if row else TargetOverride())
            ledger.connection.execute(delete(tables.target_orders).where(tables.target_orders.c.target == target))
            body = json.dumps(asdict(order))
            ledger.connection.execute(
                insert(tables.target_orders).values(target=target, revision=ledger.next(), body=body)
            )
            ledger.record(author, action, target, {**detail, "order": asdict(order)})
            return order

    def since(self, revision: int = 0) -> dict[str, TargetOverride]:
        """The orders that changed after a revision, by target."""
        wanted = select(tables.target_orders).where(tables.target_orders.c.revision > revision)
        with read_tx(self._engine) as connection:
            return {row.target: _read(row.body) for row in connection.execute(wanted)}


def _read(body: str) -> TargetOverride:
    return TargetOverride(**json.loads(body))
