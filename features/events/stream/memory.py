"""The stream adapter in memory, for tests and single-process use."""

from __future__ import annotations

import threading
import time
import uuid
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence

from features.events.stream.partitioner import has_shrunk, partition_of
from features.events.stream.port import Backlog, Message, Record, Retention, ValueFilter
from recsys.domain.errors import Conflict


class MemoryStream:
    """Lists of messages under one lock. One member of a group owns all partitions; the others wait until it closes."""

    def __init__(self, partitions: int = 4, clock: Callable[[], float] = time.time) -> None:
        self._partitions, self._identity, self._clock = partitions, uuid.uuid4().hex, clock
        self._logs: dict[str, list[list[Message]]] = {}
        self._written_at: dict[tuple[str, int], dict[int, float]] = {}  # offset -> unix seconds
        self._deleted_until: dict[tuple[str, int], int] = {}  # the newest deleted offset
        self._committed: dict[tuple[str, str], dict[int, int]] = {}
        self._members: dict[tuple[str, str], list[MemoryConsumer]] = {}
        self._changed = threading.Condition()

    @property
    def retention(self) -> Retention:
        """The stream itself."""
        return self

    def publish(self, topic: str, records: Sequence[Record]) -> Mapping[int, int]:
        """Append records; return the newest offset of each partition."""
        newest: dict[int, int] = {}
        with self._changed:
            logs = self._partition_logs(topic)
            for record in records:
                partition = partition_of(record.key, len(logs))
                offset = newest[partition] = self._log_end_offset(topic, partition)
                logs[partition].append(Message(topic, partition, offset, record.key, record.value))
                self._written_at.setdefault((topic, partition), {})[offset] = self._clock()
            self._changed.notify_all()
        return newest

    def consumer(self, topic: str, group: str) -> MemoryConsumer:
        """Join a consumer group."""
        with self._changed:
            self._partition_logs(topic)
            member = MemoryConsumer(self, topic, group)
            self._members.setdefault((topic, group), []).append(member)
            return member

    def read(self, topic: str, partition: int, offset: int, limit: int) -> list[Message]:
        """Read messages of one partition from an offset on."""
        with self._changed:
            return _read_from(self._partition_logs(topic)[partition], offset, limit)

    def partitions(self, topic: str) -> int:
        """Return the number of partitions of a topic, creating it if it is missing."""
        with self._changed:
            return len(self._partition_logs(topic))

    def identity(self, topic: str) -> str:
        """Return the identity of this log."""
        return self._identity

    def identity_mismatch(self, topic: str, newest: Mapping[int, int]) -> str | None:
        """Return why this cannot be the log that assigned these offsets; None if it can."""
        with self._changed:
            partitions = range(len(self._logs.get(topic, [])))
            return has_shrunk(
                topic, newest, {partition: self._log_end_offset(topic, partition) for partition in partitions}
            )

    def committed(self, topic: str, group: str) -> Mapping[int, int]:
        """Return the last committed offset of a group, by partition."""
        with self._changed:
            return dict(self._committed.get((topic, group), {}))

    def oldest(self, topic: str, partition: int) -> int:
        """Return the offset of the oldest message; the log end offset if there are no messages."""
        with self._changed:
            log = self._partition_logs(topic)[partition]
            return log[0].offset if log else self._log_end_offset(topic, partition)

    def apply_retention(self, topic: str, before: float, groups: Sequence[str] = ()) -> int:
        """Delete the messages written before unix second `before` that all groups have passed."""
        written = self._written_at
        return sum(
            self._delete(
                topic,
                partition,
                groups,
                lambda message: written[topic, message.partition].get(message.offset, 0) < before,
            )
            for partition in range(len(self._logs.get(topic, ())))
        )

    def delete_key(
        self, topic: str, key: str, groups: Sequence[str] = (), value_filter: ValueFilter | None = None
    ) -> int:
        """Delete the messages of a key that all groups have passed; return how many remain."""
        partition = partition_of(key, self.partitions(topic))

        def is_match(message: Message) -> bool:
            return message.key == key and (value_filter is None or value_filter(message.value))

        self._delete(topic, partition, groups, is_match)
        with self._changed:
            return sum(map(is_match, self._partition_logs(topic)[partition]))

    def backlog(
        self, topic: str, before: float, groups: Sequence[str] = (), key: str | None = None
    ) -> Mapping[str, Backlog]:
        """Return, by group, the messages written before unix second `before` that it has not passed."""
        backlogs: dict[str, Backlog] = {}
        with self._changed:
            for group in sorted({g for t, g in self._committed if t == topic} | set(groups)):
                committed = self._committed.get((topic, group), {})
                pending = [
                    at
                    for log in self._logs.get(topic, [])
                    for message in log
                    if key in (None, message.key) and message.offset > committed.get(message.partition, -1)
                    if (at := self._written_at[topic, message.partition][message.offset]) < before
                ]
                if pending:
                    backlogs[group] = Backlog(len(pending), min(pending))
        return backlogs

    def delete_group(self, topic: str, group: str) -> bool:
        """Delete the committed offsets of a group."""
        with self._changed:
            if self._members.get((topic, group)):
                raise Conflict(f"consumer group {group} is reading {topic}: stop its members first")
            return self._committed.pop((topic, group), None) is not None

    def close(self) -> None:
        """Do nothing: there are no resources to release."""

    def _delete(self, topic: str, partition: int, groups: Sequence[str], is_match: Callable[[Message], bool]) -> int:
        with self._changed:
            log = self._partition_logs(topic)[partition]
            all_groups = {g for t, g in self._committed if t == topic} | set(groups)
            committed = [self._committed.get((topic, group), {}).get(partition, -1) for group in all_groups]
            deleted = [m for m in log if is_match(m) and m.offset <= min(committed, default=m.offset)]
            if deleted:
                self._deleted_until[topic, partition] = max(
                    self._deleted_until.get((topic, partition), -1), deleted[-1].offset
                )
                log[:] = [message for message in log if message not in deleted]
            return len(deleted)

    def _log_end_offset(self, topic: str, partition: int) -> int:
        log = self._partition_logs(topic)[partition]
        return max(log[-1].offset if log else -1, self._deleted_until.get((topic, partition), -1)) + 1

    def _partition_logs(self, topic: str) -> list[list[Message]]:
        return self._logs.setdefault(topic, [[] for _ in range(self._partitions)])


class MemoryConsumer:
    """A member of a consumer group of a `MemoryStream`."""

    def __init__(self, stream: MemoryStream, topic: str, group: str) -> None:
        self._stream, self._topic, self._group = stream, topic, (topic, group)
        self._position: dict[int, int] | None = None  # set when this member owns the partitions

    def poll(self, limit: int, timeout_s: float) -> list[Message]:
        """Return at most `limit` messages; empty after `timeout_s`, or while another member owns the partitions."""
        deadline = time.monotonic() + timeout_s
        changed = self._stream._changed
        with changed:
            while True:
                batch = self._next_batch(limit)
                remaining_s = deadline - time.monotonic()
                if batch or remaining_s <= 0:
                    return batch
                changed.wait(remaining_s)

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Commit these offsets (inclusive)."""
        with self._stream._changed:
            self._stream._committed.setdefault(self._group, {}).update(offsets)

    def close(self) -> None:
        """Leave the group."""
        with self._stream._changed:
            members = self._stream._members[self._group]
            if self in members:
                members.remove(self)
            self._stream._changed.notify_all()

    def _next_batch(self, limit: int) -> list[Message]:
        members = self._stream._members[self._group]
        if not members or members[0] is not self:
            return []
        if self._position is None:
            self._position = {p: o + 1 for p, o in self._stream._committed.get(self._group, {}).items()}
        batch: list[Message] = []
        for partition, log in enumerate(self._stream._logs[self._topic]):
            start = self._position.get(partition, 0)
            messages = _read_from(log, start, limit - len(batch))
            self._position[partition] = messages[-1].offset + 1 if messages else start
            batch += messages
        return batch


def _read_from(log: Sequence[Message], offset: int, limit: int) -> list[Message]:
    """Return at most `limit` messages from an offset on."""
    first = bisect_left(log, offset, key=lambda message: message.offset)
    return list(log[first : first + limit])
