"""Tells the stream what changed in the control plane: the changes since the last ones told, in their order.

One process of a home does it, whoever holds the lock; how far it got stands in a file beside it. After a crash the last
ones are told again, under the same ids. Several hosts tell each change once each.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from features.control import ControlPlane
from features.events.change_feed import Change, changes_topic, item_change, policy_change, to_record
from features.events.spool.lease import DeliveryCursor, DirectoryLease
from features.events.stream.port import Stream
from recsys.domain.errors import Unavailable

AT_ONCE = 500


class ChangePublisher:
    """The outbox of the control plane."""

    def __init__(
        self, control: ControlPlane, stream: Stream, topic: str, directory: str | Path, clock: Callable[[], float]
    ) -> None:
        self._control, self._stream, self._topic = control, stream, changes_topic(topic)
        self._directory, self._clock = Path(directory), clock
        self._claim: DirectoryLease | None = None
        self._told: DeliveryCursor | None = None

    def step(self) -> int:
        """Tell what is new; how many changes that were. Raises Unavailable."""
        told = self._seat()
        if told is None:
            return 0  # another process of this home does it
        count = 0
        while self._control.revision() > max(told.number, 0):
            changes, upto = self._since(max(told.number, 0))
            at = self._clock()
            if changes:
                self._stream.publish(self._topic, [to_record(change, at) for change in changes])
            told.advance(upto)
            count += len(changes)
        return count

    def close(self) -> None:
        """Let another process go on; idempotent."""
        if self._told is not None:
            self._told.close()
        if self._claim is not None:
            self._claim.release()
            self._claim = self._told = None

    def _seat(self) -> DeliveryCursor | None:
        if self._claim is None:
            try:
                self._claim = DirectoryLease.acquire(self._directory)
                self._told = DeliveryCursor(self._directory) if self._claim else None
            except OSError as error:
                raise Unavailable(f"{self._directory}: {error}") from error
        return self._told

    def _since(self, revision: int) -> tuple[list[Change], int]:
        """Some changes after a revision in their order, and the revision up to which these are all."""
        newest = self._control.revision()
        items = self._control.items_since(revision, AT_ONCE)
        upto = items[-1].revision if len(items) == AT_ONCE else newest
        changes = [item_change(one.item, one.revision) for one in items if one.revision <= upto]
        changes += [
            policy_change(p.outlet, p.version, p.text, p.author, p.revision)
            for p in self._control.policies_since(revision)
            if p.revision <= upto
        ]
        return sorted(changes, key=lambda change: change.revision), upto
