"""Publication of control plane changes on the stream, in the order of their revisions.

One process per home directory publishes: the process that holds the lease of the directory. A cursor file in this
directory stores the last published revision. After a crash, the last changes are published again under the same ids.
With several hosts, each host publishes every change.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from features.control.plane import ControlPlane
from features.events.change_feed import Change, changes_topic, item_change, policy_change, to_record
from features.events.spool.lease import DeliveryCursor, DirectoryLease
from features.events.stream.port import Stream
from recsys.domain.errors import Unavailable

BATCH_SIZE = 500
"""Maximum number of item changes that are read from the control plane at once."""


class ChangePublisher:
    """The outbox of the control plane."""

    def __init__(
        self, control: ControlPlane, stream: Stream, topic: str, directory: str | Path, clock: Callable[[], float]
    ) -> None:
        self._control, self._stream, self._topic = control, stream, changes_topic(topic)
        self._directory, self._clock = Path(directory), clock
        self._lease: DirectoryLease | None = None
        self._cursor: DeliveryCursor | None = None

    def step(self) -> int:
        """Publish all changes after the cursor and return their number; 0 if another process holds the lease.

        Raises Unavailable.
        """
        cursor = self._acquire()
        if cursor is None:
            return 0
        count = 0
        while self._control.revision() > max(cursor.number, 0):
            changes, until_revision = self._changes_since(max(cursor.number, 0))
            at = self._clock()
            if changes:
                self._stream.publish(self._topic, [to_record(change, at) for change in changes])
            cursor.advance(until_revision)
            count += len(changes)
        return count

    def close(self) -> None:
        """Release the lease, so that another process can publish; idempotent."""
        if self._cursor is not None:
            self._cursor.close()
        if self._lease is not None:
            self._lease.release()
            self._lease = self._cursor = None

    def _acquire(self) -> DeliveryCursor | None:
        """Return the cursor of the directory, or None if another process holds the lease."""
        if self._lease is None:
            try:
                self._lease = DirectoryLease.acquire(self._directory)
                self._cursor = DeliveryCursor(self._directory) if self._lease else None
            except OSError as error:
                raise Unavailable(f"{self._directory}: {error}") from error
        return self._cursor

    def _changes_since(self, revision: int) -> tuple[list[Change], int]:
        """Return changes after a revision, in order, and the revision up to which they are complete."""
        newest = self._control.revision()
        items = self._control.items_since(revision, BATCH_SIZE)
        until_revision = items[-1].revision if len(items) == BATCH_SIZE else newest
        changes = [item_change(stored.item, stored.revision) for stored in items if stored.revision <= until_revision]
        changes += [
            policy_change(p.outlet, p.version, p.text, p.author, p.revision)
            for p in self._control.policies_since(revision)
            if p.revision <= until_revision
        ]
        return sorted(changes, key=lambda change: change.revision), until_revision
