"""The ports `Stream` and `Retention`: a partitioned, ordered, durable log of raw bytes.

Every adapter passes the contract suite `tests/contracts/test_stream.py`:
* Messages with the same key share a partition and keep their order. Offsets start at 0 and increase by one.
* A log keeps its identity; a recreated log has a different one.
* A group that has committed offset `o` continues at `o + 1` after a crash; uncommitted messages are delivered again.
* Retention may delete messages. The other offsets do not change, and a read that starts at a deleted offset returns the
  messages after it.

Every adapter implements `Stream`. Embedded logs also implement `Retention`: they delete old messages and the messages
of a key, report the backlog of consumer groups, and delete groups. `Stream.retention` is None for a broker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

ValueFilter: TypeAlias = Callable[[bytes], bool]
"""A predicate over the value of a message."""


@dataclass(frozen=True, slots=True)
class Record:
    """A message to publish. All records with the same key go to the same partition, in order."""

    key: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Message:
    """A delivered message. `damaged` means that its bytes are not those that were published."""

    topic: str
    partition: int
    offset: int
    key: str
    value: bytes
    damaged: bool = False


@dataclass(frozen=True, slots=True)
class Backlog:
    """The messages that a consumer group has not passed and that are therefore retained.

    messages  number of messages
    since     when the oldest of them was written, in unix seconds, accurate to ten minutes
    """

    messages: int
    since: float


class Consumer(Protocol):
    """A member of a consumer group. It must not be shared between threads."""

    def poll(self, limit: int, timeout_s: float) -> list[Message]:
        """Return at most `limit` messages, in offset order per partition; empty if none arrive within `timeout_s`."""

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Commit these offsets (partition -> offset, inclusive). The commit is durable on return."""

    def close(self) -> None:
        """Leave the group without committing; idempotent."""


class Stream(Protocol):
    """A set of topics, each a log. `publish` may be called from several threads."""

    @property
    def retention(self) -> Retention | None:
        """Retention of an embedded log; None for a broker, which applies its own."""

    def publish(self, topic: str, records: Sequence[Record]) -> Mapping[int, int]:
        """Append records durably; return the newest offset of each partition that received any.

        Raises Unavailable unless all records were written; some of them may be written then.
        """

    def consumer(self, topic: str, group: str) -> Consumer:
        """Join a consumer group. A group without committed offsets starts at the oldest message."""

    def read(self, topic: str, partition: int, offset: int, limit: int) -> list[Message]:
        """Read messages of one partition from an offset on, without a consumer group.

        The result is shorter than `limit` only at the log end offset. Raises Unavailable.
        """

    def partitions(self, topic: str) -> int:
        """Return the number of partitions of a topic, creating it if it is missing."""

    def identity(self, topic: str) -> str:
        """Return the identity of the topic's log; empty if it is unknown. The topic is created if it is missing.

        The identity survives restarts. A recreated log, which restarts at offset 0, has a different one. Raises
        Unavailable.
        """

    def identity_mismatch(self, topic: str, newest: Mapping[int, int]) -> str | None:
        """Return why this cannot be the log that assigned these offsets (partition -> offset); None if it can.

        It queries the log itself and creates nothing. Raises Unavailable.
        """

    def committed(self, topic: str, group: str) -> Mapping[int, int]:
        """Return the last committed offset of a group, by partition. Raises Unavailable."""

    def oldest(self, topic: str, partition: int) -> int:
        """Return the offset of the oldest message; the log end offset if there are no messages. Raises Unavailable."""

    def close(self) -> None:
        """Flush and release resources; idempotent."""


class Retention(Protocol):
    """Retention of an embedded log.

    Unlike a broker, it waits for consumer groups: a message stays until every group has passed it. This includes each
    group that ever committed in the topic and each group listed in the argument `groups`.
    """

    def apply_retention(self, topic: str, before: float, groups: Sequence[str] = ()) -> int:
        """Delete the messages written before unix second `before` that all groups have passed, in small steps.

        Returns the number of deleted messages. Raises Unavailable.
        """

    def delete_key(
        self, topic: str, key: str, groups: Sequence[str] = (), value_filter: ValueFilter | None = None
    ) -> int:
        """Delete the messages of a key that all groups have passed; return how many remain.

        value_filter  selects messages of the key by their value; None selects all

        Raises Unavailable.
        """

    def backlog(
        self, topic: str, before: float, groups: Sequence[str] = (), key: str | None = None
    ) -> Mapping[str, Backlog]:
        """Return, by group, the backlog of messages written before unix second `before`; of all keys if `key` is None.

        Groups without a backlog are omitted. Raises Unavailable.
        """

    def delete_group(self, topic: str, group: str) -> bool:
        """Delete the committed offsets of a group, so that it no longer retains messages.

        If the group joins again, it starts at the oldest message. Returns False if it never committed. Raises Conflict
        while the group has members, and Unavailable.
        """
