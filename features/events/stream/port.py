"""The stream: a partitioned, ordered, durable log of raw bytes. Two ports, three adapters, one law suite.

Laws (`tests/contracts/test_stream.py`): messages with one key keep their order and share a partition; offsets of a
partition rise by one message and start at 0; a log keeps its identity, and one that begins anew has another; a group
that has committed `o` continues at `o + 1` after any crash; an uncommitted message is delivered again; nothing is
decoded, nothing is lost. Messages may leave through retention; other offsets stay as they are, and a read that starts
at an offset that has left returns the messages after it.

`Stream` is what every adapter does. `Retention` is what an embedded log does in addition, because no broker does it:
trim old messages, delete the messages of a key, report the backlog of consumer groups and delete a group. Callers read
it from `Stream.retention`, which is None for a broker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

KeyFilter: TypeAlias = Callable[[bytes], bool]
"""Says of a message's bytes whether it is meant."""


@dataclass(frozen=True, slots=True)
class Record:
    """One message to send: all records of one key land in one partition, in their order."""

    key: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Message:
    """One message as delivered."""

    topic: str
    partition: int
    offset: int
    key: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Backlog:
    """What cannot leave a log for a group's sake: so many messages, the oldest written at `since` (unix seconds, to ten
    minutes)."""

    messages: int
    since: float


class Consumer(Protocol):
    """One member of a consumer group; not shared between threads."""

    def poll(self, limit: int, timeout_s: float) -> list[Message]:
        """At most `limit` messages, per partition in offset order; empty when none came within `timeout_s`."""

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Everything up to and including these offsets (partition -> offset) is done. Durable on return."""

    def close(self) -> None:
        """Leave the group; idempotent. Nothing is committed."""


class Stream(Protocol):
    """A log of topics. `publish` may be called from several threads."""

    @property
    def retention(self) -> Retention | None:
        """Retention of an embedded log; None for a broker, which applies its own."""

    def publish(self, topic: str, records: Sequence[Record]) -> Mapping[int, int]:
        """Append; durable on return. Returns the offset of the newest record in each partition that got any.

        Raises Unavailable when the log did not take *all* of them (some may be in it).
        """

    def consumer(self, topic: str, group: str) -> Consumer:
        """Join a group; a group without a committed offset starts at the oldest message."""

    def read(self, topic: str, partition: int, offset: int, limit: int) -> list[Message]:
        """Messages of one partition from an offset on, outside any group: for replay and for the dead-letter tool.

        Fewer than `limit` only where the partition has no more by now. Raises Unavailable.
        """

    def partitions(self, topic: str) -> int:
        """How many partitions the topic has; it is created when missing."""

    def identity(self, topic: str) -> str:
        """Which log stands under this name; empty when that cannot be told. The topic is created when missing.

        It outlives every restart, and a log that begins again at offset 0 has another. Raises Unavailable.
        """

    def identity_mismatch(self, topic: str, newest: Mapping[int, int]) -> str | None:
        """Why this cannot be the log that gave out these offsets (partition -> offset) any more; None while it can.

        Asks the log itself and creates nothing. Raises Unavailable.
        """

    def committed(self, topic: str, group: str) -> Mapping[int, int]:
        """Up to and including which offset a group is done, by partition. Raises Unavailable."""

    def oldest(self, topic: str, partition: int) -> int:
        """Offset of the oldest message that is still there; of the next one to come when there is none. Raises
        Unavailable."""

    def close(self) -> None:
        """Flush and release resources; idempotent."""


class Retention(Protocol):
    """Retention of an embedded log. Unlike a broker it waits for consumer groups: a message stays until every group
    has passed it, that is each group that ever committed in the topic and each one passed as `groups`."""

    def apply_retention(self, topic: str, before: float, groups: Sequence[str] = ()) -> int:
        """Delete the messages written before unix second `before` that no group needs, in small steps.

        Returns how many messages were deleted. Raises Unavailable.
        """

    def delete_key(self, topic: str, key: str, groups: Sequence[str] = (), about: KeyFilter | None = None) -> int:
        """Delete the messages of a key that no group needs; return how many remain.

        about  selects messages of the key by their bytes; all are selected when it is left out
        Raises Unavailable.
        """

    def backlog(
        self, topic: str, before: float, groups: Sequence[str] = (), key: str | None = None
    ) -> Mapping[str, Backlog]:
        """Return, by group, the messages written before unix second `before` that it has not passed, of one key or all.

        Groups without any are left out. Raises Unavailable.
        """

    def delete_group(self, topic: str, group: str) -> bool:
        """Delete the committed offsets of a group: it retains no message any more, and starts at the oldest message if
        it comes back. Returns False when it never committed. Raises Conflict while a member reads, Unavailable."""
