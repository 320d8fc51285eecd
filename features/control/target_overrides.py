"""Editors' overrides of running exposure targets: one row per target, with a revision and an audit row per change."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict

from pydantic import TypeAdapter
from sqlalchemy import delete, insert, select

from features.checksum import decode_stored
from features.control import tables
from features.control.transactions import Database, read_tx, write_tx
from recsys.domain.errors import DamagedData
from recsys.pacing.tracker import TargetOverride

logger = logging.getLogger(__name__)
_overrides = TypeAdapter(TargetOverride)


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
            override = change(_read(target, row.body) if row else TargetOverride())
            tx.connection.execute(delete(tables.target_orders).where(tables.target_orders.c.target == target))
            body = json.dumps(asdict(override))
            tx.connection.execute(insert(tables.target_orders).values(target=target, revision=tx.next(), body=body))
            tx.record(author, action, target, {**detail, "order": asdict(override)})
            return override

    def since(self, revision: int = 0) -> dict[str, TargetOverride]:
        """Return the overrides that changed after a revision, by target."""
        query = select(tables.target_orders).where(tables.target_orders.c.revision > revision)
        with read_tx(self._database.engine) as connection:
            return {row.target: _read(row.target, row.body) for row in connection.execute(query)}


def _read(target: str, body: str) -> TargetOverride:
    """Return the override in this JSON text. A damaged one pauses its target, until an editor resumes or stops it."""
    try:
        return decode_stored(body, _overrides.validate_json)
    except DamagedData as error:
        logger.error(
            "control plane: the override of target %s is damaged; the target is paused: %s", ascii(target), error
        )
        return TargetOverride(paused=True)
