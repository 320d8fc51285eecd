"""The spool for a stream that is durable on this machine: it stores nothing and only groups concurrent writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future

from features.events.spool.group_commit import GroupCommit
from features.events.spool.port import SpoolState
from features.events.stream.port import Record, Stream


class DirectSpool:
    """A spool that publishes directly to the stream. Errors of the stream fail the sender's future at once."""

    def __init__(
        self, stream: Stream, topic: str, on_delivered: Callable[[Mapping[int, int]], object] = lambda offsets: None
    ) -> None:
        self._group = GroupCommit(lambda records: on_delivered(stream.publish(topic, records)), "stream-writer")

    def put(self, records: Sequence[Record]) -> Future[None]:
        """Accept records; the future completes when the stream has them, or fails with the stream's error."""
        return self._group.put(records)

    def state(self) -> SpoolState:
        """Return an empty state: this spool has no backlog."""
        return SpoolState(0, 0, None)

    def redeliver(self) -> None:
        """Do nothing: this spool retains no records."""

    def start(self) -> None:
        """Start the writer thread."""
        self._group.start()

    def close(self, timeout_s: float = 5.0) -> None:
        """Write the pending records and stop."""
        self._group.close(timeout_s)
