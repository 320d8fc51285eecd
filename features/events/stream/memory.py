"""The stream in memory: for tests and for one process."""

from __future__ import annotations

import threading
import time
import uuid
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence

from features.events.stream.partitioner import has_shrunk, partition_of
from features.events.stream.port import Backlog, KeyFilter, Message, Record, Retention
from recsys.domain.errors import Conflict


class MemoryStream:
    """Lists under one lock. One member of a group holds all partitions; others stand by until it closes."""

    def __init__(self, partitions: int = 4, clock: Callable[[], float] = time.time) -> None:
        self._partitions, self._identity, self._clock = partitions, uuid.uuid4().hex, clock
        self._logs: dict[str, list[list[Message]]] = {}
        self._written: dict[tuple[str, int], dict[int, float]] = {}  # by offset, unix seconds
        self._left: dict[tuple[str, int], int] = {}  # the newest offset that has left
        self._committed: dict[tuple[str, str], dict[int, int]] = {}
        self._members: dict[tuple[str, str], list[MemoryConsumer]] = {}
        self._changed = threading.Condition()

    @property
    def retention(self) -> Retention:
        """This log itself."""
        return self

    def publish(self, topic: str, records: Sequence[Record]) -> Mapping[int, int]:
        """Append."""
        newest: dict[int, int] = {}
        with self._changed:
            logs = self._topic(topic)
            for record in records:
                partition = partition_of(record.key, len(logs))
                offset = newest[partition] = self._end(topic, partition)
                logs[partition].append(Message(topic, partition, offset, record.key, record.value))
                self._written.setdefault((topic, partition), {})[offset] = self._clock()
            self._changed.notify_all()
        return newest

    def consumer(self, topic: str, group: str) -> MemoryConsumer:
        """Join a group."""
        with self._changed:
            self._topic(topic)
            member = MemoryConsumer(self, topic, group)
            self._members.setdefault((topic, group), []).append(member)
            return member

    def read(self, topic: str, partition: int, offset: int, limit: int) -> list[Message]:
        """Messages of one partition from an offset on."""
        with self._changed:
            return _read_after(self._topic(topic)[partition], offset, limit)

    def partitions(self, topic: str) -> int:
        """How many partitions the topic has; it is created when missing."""
        with self._changed:
            return len(self._topic(topic))

    def identity(self, topic: str) -> str:
        """Which log this is."""
        return self._identity

    def identity_mismatch(self, topic: str, newest: Mapping[int, int]) -> str | None:
        """Why this cannot be the log that gave out these offsets."""
        with self._changed:
            there = range(len(self._logs.get(topic, [])))
            return has_shrunk(topic, newest, {partition: self._end(topic, partition) for partition in there})

    def committed(self, topic: str, group: str) -> Mapping[int, int]:
        """Up to and including which offset a group is done."""
        with self._changed:
            return dict(self._committed.get((topic, group), {}))

    def oldest(self, topic: str, partition: int) -> int:
        """Offset of the oldest message that is still there; of the next one to come when there is none."""
        with self._changed:
            log = self._topic(topic)[partition]
            return log[0].offset if log else self._end(topic, partition)

    def apply_retention(self, topic: str, before: float, groups: Sequence[str] = ()) -> int:
        """Let go of what was written before then and what all groups are done with."""
        written = self._written
        return sum(
            self._delete(
                topic, partition, groups, lambda one: written[topic, one.partition].get(one.offset, 0) < before
            )
            for partition in range(len(self._logs.get(topic, ())))
        )

    def delete_key(self, topic: str, key: str, groups: Sequence[str] = (), about: KeyFilter | None = None) -> int:
        """Take away the messages of a key that all groups are done with; how many are left."""
        partition = partition_of(key, self.partitions(topic))

        def meant(one: Message) -> bool:
            return one.key == key and (about is None or about(one.value))

        self._delete(topic, partition, groups, meant)
        with self._changed:
            return sum(map(meant, self._topic(topic)[partition]))

    def backlog(
        self, topic: str, before: float, groups: Sequence[str] = (), key: str | None = None
    ) -> Mapping[str, Backlog]:
        """What groups are not done with, of what was written before then."""
        found: dict[str, Backlog] = {}
        with self._changed:
            for group in sorted({g for t, g in self._committed if t == topic} | set(groups)):
                done = self._committed.get((topic, group), {})
                waits = [
                    at
                    for log in self._logs.get(topic, [])
                    for one in log
                    if key in (None, one.key) and one.offset > done.get(one.partition, -1)
                    if (at := self._written[topic, one.partition][one.offset]) < before
                ]
                if waits:
                    found[group] = Backlog(len(waits), min(waits))
        return found

    def delete_group(self, topic: str, group: str) -> bool:
        """Forget how far a group is."""
        with self._changed:
            if self._members.get((topic, group)):
                raise Conflict(f"{group} reads {topic} at this moment: stop it first")
            return self._committed.pop((topic, group), None) is not None

    def close(self) -> None:
        """Nothing to let go."""

    def _delete(self, topic: str, partition: int, groups: Sequence[str], goes: Callable[[Message], bool]) -> int:
        with self._changed:
            log, known = self._topic(topic)[partition], {g for t, g in self._committed if t == topic} | set(groups)
            done = [self._committed.get((topic, group), {}).get(partition, -1) for group in known]
            gone = [one for one in log if goes(one) and one.offset <= min(done, default=one.offset)]
            if gone:
                self._left[topic, partition] = max(self._left.get((topic, partition), -1), gone[-1].offset)
                log[:] = [one for one in log if one not in gone]
            return len(gone)

    def _end(self, topic: str, partition: int) -> int:
        log = self._topic(topic)[partition]
        return max(log[-1].offset if log else -1, self._left.get((topic, partition), -1)) + 1

    def _topic(self, topic: str) -> list[list[Message]]:
        return self._logs.setdefault(topic, [[] for _ in range(self._partitions)])


class MemoryConsumer:
    """A member of a group of a `MemoryStream`."""

    def __init__(self, stream: MemoryStream, topic: str, group: str) -> None:
        self._stream, self._topic, self._group = stream, topic, (topic, group)
        self._next: dict[int, int] | None = None  # known once this member holds the partitions

    def poll(self, limit: int, timeout_s: float) -> list[Message]:
        """At most `limit` messages; empty when none came in time, or while another member holds the partitions."""
        deadline = time.monotonic() + timeout_s
        changed = self._stream._changed
        with changed:
            while True:
                batch = self._next_batch(limit)
                left = deadline - time.monotonic()
                if batch or left <= 0:
                    return batch
                changed.wait(left)

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Everything up to and including these offsets is done."""
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
        if self._next is None:
            self._next = {p: o + 1 for p, o in self._stream._committed.get(self._group, {}).items()}
        batch: list[Message] = []
        for partition, log in enumerate(self._stream._logs[self._topic]):
            start = self._next.get(partition, 0)
            taken = _read_after(log, start, limit - len(batch))
            self._next[partition] = taken[-1].offset + 1 if taken else start
            batch += taken
        return batch


def _read_after(log: Sequence[Message], offset: int, limit: int) -> list[Message]:
    """At most `limit` messages from an offset on."""
    first = bisect_left(log, offset, key=lambda one: one.offset)
    return list(log[first : first + limit])
