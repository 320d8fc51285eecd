"""No spool at all, for a stream that is durable on this machine: all who wait share one of its transactions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future

from features.events.spool.group_commit import GroupCommit
from features.events.spool.port import SpoolState
from features.events.stream.port import Record, Stream


class DirectSpool:
    """Straight into the stream. What the stream refuses, the sender hears of at once."""

    def __init__(
        self, stream: Stream, topic: str, on_delivered: Callable[[Mapping[int, int]], object] = lambda marks: None
    ) -> None:
        self._group = GroupCommit(lambda records: on_delivered(stream.publish(topic, records)), "stream-writer")

    def put(self, records: Sequence[Record]) -> Future[None]:
        """Done when the stream has them; fails with what the stream said."""
        return self._group.put(records)

    def state(self) -> SpoolState:
        """Nothing waits here."""
        return SpoolState(0, 0, None)

    def redeliver(self) -> None:
        """Nothing is kept here."""

    def start(self) -> None:
        """Begin."""
        self._group.start()

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what waits, and end."""
        self._group.close(timeout_s)
