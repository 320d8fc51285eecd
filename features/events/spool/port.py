"""The port `Spool`: keeps records durably until the stream acknowledges them.

`DurableSpool` is for a stream on another machine: it appends records to files and fsyncs them before it acknowledges.
`DirectSpool` is for a stream that is already durable on this machine: it only groups concurrent writes.

Every adapter passes the contract suite `tests/contracts/test_spool.py`. A completed future means that the records are
durable, even through `kill -9` and an outage of the stream. Durable records reach the stream at least once, and the
records of one key in order. Records that cannot be accepted fail with Unavailable; the spool recovers by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from features.events.stream.port import Record


@dataclass(frozen=True)
class SpoolState:
    """The backlog of a spool, and the reason why it cannot be delivered."""

    records: int
    size: int  # bytes
    fault: str | None  # why delivery to the stream fails; None while it works


class Spool(Protocol):
    """A port that accepts records for one topic. Its methods may be called from several threads."""

    def put(self, records: Sequence[Record]) -> Future[None]:
        """Accept records; the future completes when all of them are durable.

        The future fails with Unavailable if they may not be durable; then send them again later. It cannot be
        cancelled: accepted records are written whether or not the caller still waits.
        """

    def state(self) -> SpoolState:
        """Return the current backlog, without I/O."""

    def redeliver(self) -> None:
        """Send all retained records again, delivered or not, because the stream lost its log."""

    def start(self) -> None:
        """Start the delivery."""

    def close(self, timeout_s: float = 5.0) -> None:
        """Deliver as much as possible within `timeout_s` and release resources; the rest stays durable. Idempotent."""
