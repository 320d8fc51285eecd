"""The spool: where records wait, durably, until the stream has them. One port, two adapters, one law suite.

`DurableSpool` stands in front of a stream on another machine: files of our own, fsynced before anybody is told "taken".
`DirectSpool` is for a stream that is durable on this machine already: it only lets all who wait share one write.

Laws (`tests/contracts/test_spool.py`): a future that is done means durable, through `kill -9` and a dead stream; what
is durable reaches the stream at least once, the records of one key in their order; what cannot be taken is refused with
Unavailable, and the spool takes again by itself once it can.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from features.events.stream.port import Record


@dataclass(frozen=True)
class SpoolState:
    """How a spool is: what waits in it for the stream, and why it waits."""

    records: int
    size: int  # bytes
    fault: str | None  # why the stream does not take them; None while it does


class Spool(Protocol):
    """Takes records for one topic. Used by several threads."""

    def put(self, records: Sequence[Record]) -> Future[None]:
        """Done when all are durable; fails with Unavailable when they may not be: send them again later.

        It cannot be cancelled: what is taken is written, whether or not anybody still waits for it.
        """

    def state(self) -> SpoolState:
        """What waits now; asks nobody."""

    def redeliver(self) -> None:
        """The stream has lost its log: send again what is still here, delivered or not."""

    def start(self) -> None:
        """Begin to deliver."""

    def close(self, timeout_s: float = 5.0) -> None:
        """Deliver what can be delivered in this time, and let go; what is left stays durable. Idempotent."""
