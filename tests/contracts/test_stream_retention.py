"""The contract of retention, run against every embedded stream. `test_stream.py` covers all streams."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from operator import itemgetter
from pathlib import Path

import pytest

from features.events.stream.connect import open_stream
from features.events.stream.memory import MemoryStream
from features.events.stream.port import Backlog, Consumer, Record, Retention, Stream
from features.events.stream.sqlite import SqliteStream
from features.sqlite import transaction
from recsys.domain.errors import Conflict, Unavailable
from tests.contracts.streams import EMBEDDED, logged, newest_offsets, poll_until, records


def test_reads_start_at_the_oldest_message_that_the_broker_retains(
    kafka_url: str, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test broker cannot delete messages, so the beginning offset is patched."""
    with closing(open_stream(kafka_url, partitions=1)) as stream:
        stream.publish(unique, [Record("k", str(n).encode()) for n in range(10)])
        monkeypatch.setattr("features.events.stream.kafka._beginning_offset", lambda reader, offset: 4)
        assert stream.oldest(unique, 0) == 4
        assert [m.offset for m in stream.read(unique, 0, 0, 100)] == [4, 5, 6, 7, 8, 9]
        assert stream.read(unique, 0, 20, 100) == []


DAY_S = 86_400.0
STEPS = {
    "publish": 6, "poll": 6, "commit": 5, "crash": 1, "day": 4, "apply_retention": 3, "delete_key": 1,
    "second_group": 0.3, "backlog": 3, "delete_group": 1,
}  # fmt: skip
"""Steps of a random history and their weights."""


class Log:
    """A partition and its model: a dictionary from the offset of each retained message to its key and time."""

    def __init__(self, stream: MemoryStream | SqliteStream, now: list[float]) -> None:
        self.stream, self.now = stream, now
        self.consumer = stream.consumer("t", "g")
        self.model: dict[int, tuple[str, float]] = {}
        self.end, self.position, self.committed = 0, 0, 0
        self.groups = {"g": 0}

    def publish(self, keys: list[str]) -> None:
        self.stream.publish("t", [Record(key, f"{self.end + n}".encode()) for n, key in enumerate(keys)])
        self.model |= {self.end + n: (key, self.now[0]) for n, key in enumerate(keys)}
        self.end += len(keys)

    def poll(self) -> None:
        expected = [offset for offset in sorted(self.model) if offset >= self.position][:3]
        assert [(m.offset, m.value) for m in self.consumer.poll(3, 0)] == [(o, f"{o}".encode()) for o in expected]
        self.position = expected[-1] + 1 if expected else self.position

    def commit(self) -> None:
        if self.position:
            self.consumer.commit({0: self.position - 1})
            self.committed = self.position

    def crash(self) -> None:
        self.consumer.close()
        self.consumer = self.stream.consumer("t", "g")
        self.position = self.committed

    def day(self) -> None:
        self.now[0] += DAY_S

    def second_group(self) -> None:
        if not self.end:
            return
        with closing(self.stream.consumer("t", "h")) as consumer:
            expected = [offset for offset in sorted(self.model) if offset >= self.groups.get("h", 0)]
            assert [m.offset for _ in range(3) for m in consumer.poll(3, 0)] == expected[:9]
            consumer.commit({0: 0})
        self.groups["h"] = 1

    def backlog(self) -> None:
        self.groups["g"] = self.committed
        for key, before in ((None, self.now[0] - 3 * DAY_S), ("a", float("inf"))):
            pending = {
                group: [at for o, (k, at) in self.model.items() if o >= position and at < before and key in (None, k)]
                for group, position in self.groups.items()
            }
            expected = {group: Backlog(len(at), min(at)) for group, at in pending.items() if at}
            assert self.stream.backlog("t", before, ["g"], key) == expected

    def delete_group(self) -> None:
        with closing(self.stream.consumer("t", "h")) as consumer:
            consumer.poll(1, 0)
            with pytest.raises(Conflict, match="consumer group h is reading t"):
                self.stream.delete_group("t", "h")
        assert self.stream.delete_group("t", "h") == (self.groups.pop("h", None) is not None)

    def apply_retention(self) -> None:
        until_offset, before = self._committed_by_all(), self.now[0] - 3 * DAY_S
        deleted = {o for o, (_, at) in self.model.items() if o < until_offset and at < before}
        assert self.stream.apply_retention("t", before, ["g"]) == len(deleted)
        self._remove(deleted)

    def delete_key(self) -> None:
        until_offset = self._committed_by_all()
        remaining = sum(key == "a" for o, (key, _) in self.model.items() if o >= until_offset)
        assert self.stream.delete_key("t", "a", ["g"]) == remaining
        self._remove({o for o, (key, _) in self.model.items() if o < until_offset and key == "a"})

    def check(self) -> None:
        assert [m.offset for m in self.stream.read("t", 0, 0, 1000)] == sorted(self.model)
        assert self.stream.oldest("t", 0) == min(self.model, default=self.end)
        assert self.stream.identity_mismatch("t", {0: self.end - 1} if self.end else {}) is None

    def _committed_by_all(self) -> int:
        self.groups["g"] = self.committed
        return min(self.groups.values())

    def _remove(self, offsets: set[int]) -> None:
        self.model = {offset: message for offset, message in self.model.items() if offset not in offsets}


@pytest.mark.parametrize("seed", range(12))
def test_retention_matches_a_dictionary_model(tmp_path: Path, seed: int) -> None:
    """Days pass, and messages older than three days are deleted."""
    chance = random.Random(seed)
    steps = [
        (step, [[*chance.choices("abc", k=chance.randint(1, 4))]] if step == "publish" else [])
        for step in chance.choices(list(STEPS), list(STEPS.values()), k=80)
    ]
    for name in ("memory", "sqlite"):
        now = [0.0]
        clock = partial(itemgetter(0), now)
        file = f"{tmp_path}/{time.monotonic_ns()}.db"
        log = Log(MemoryStream(1, clock) if name == "memory" else SqliteStream(file, 1, clock), now)
        for step, arguments in steps:
            getattr(log, step)(*arguments)
            log.check()
        log.consumer.close()
        log.stream.close()


def test_a_failed_publish_adds_no_time_index_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk rolls back a publish; messages written afterwards must not inherit an earlier write time."""
    day, now = 86_400.0, [0.0]
    with closing(SqliteStream(f"{tmp_path}/stream.db", 1, lambda: now[0])) as stream:
        stream.publish("t.dead", records(1))
        now[0] = 40 * day
        with monkeypatch.context() as full:
            full.setattr("features.events.stream.sqlite.transaction", full_disk_transaction)
            with pytest.raises(Unavailable, match="disk is full"):
                stream.publish("t.dead", records(1))
        stream.publish("t.dead", records(1))
        assert stream.apply_retention("t.dead", now[0] - 30 * day) == 1
        assert len(stream.read("t.dead", 0, 0, 10)) == 1


@pytest.mark.parametrize(("seed", "restarts"), [(0, False), (1, True)])
def test_a_clock_that_was_temporarily_ahead_neither_blocks_retention_nor_loses_messages(
    tmp_path: Path, seed: int, restarts: bool
) -> None:
    """Messages are written on fifty days, and on some of them the clock is ten years ahead.

    Messages older than thirty days are deleted, except some with a wrong clock; newer messages stay.
    """
    chance, day, now = random.Random(seed), 86_400.0, [0.0]
    written: list[float] = []  # offset -> true time in seconds
    stream = SqliteStream(f"{tmp_path}/stream.db", 1, lambda: now[0])
    ahead = {0, 7, *chance.sample(range(50), 5)}
    for number in range(50):
        now[0] = number * day + (3650 * day if number in ahead else 0.0)
        stream.publish("t", records(1))
        written.append(number * day)
        if restarts:
            stream.close()
            stream = SqliteStream(f"{tmp_path}/stream.db", 1, lambda: now[0])
    with closing(stream):
        now[0] = 50 * day
        stream.apply_retention("t", 20 * day)
        remaining = {message.offset for message in stream.read("t", 0, 0, 100)}
        young = {offset for offset, at in enumerate(written) if at >= 20 * day}
        assert young <= remaining
        assert remaining - young <= ahead
        now[0] = 5000 * day
        assert stream.apply_retention("t", 4000 * day) == len(remaining)


@contextmanager
def full_disk_transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Fail at the end of the transaction, which is rolled back."""
    with transaction(db):
        yield
        raise sqlite3.OperationalError("database or disk is full")


def test_deleted_messages_are_overwritten_in_the_file(tmp_path: Path) -> None:
    with closing(SqliteStream(f"{tmp_path}/stream.db", 2)) as stream:
        stream.publish("t", records(3000))
        assert stream.delete_key("t", "viewer-1") == 0
        content = b"".join(file.read_bytes() for file in tmp_path.iterdir())
        assert b"viewer-1" not in content
        assert b"viewer-2" in content


@pytest.mark.parametrize("url", EMBEDDED, indirect=True)
def test_messages_with_the_tombstone_key_are_not_tombstones(
    stream: Stream, retention: Retention, join: Callable[..., Consumer], unique: str
) -> None:
    sent = [Record(key, f"of {key!a}".encode()) for key in ("\0gone", "\0", "a\0b", "\x85", "gone", " ")]
    stream.publish(unique, sent)
    with closing(join(unique, "g")) as member:
        member.commit(newest_offsets(poll_until(member, len(sent))))
    assert sorted(m.key for m in logged(stream, unique)) == sorted(record.key for record in sent)
    for record in sent:
        retention.delete_key(unique, record.key)
        stream.publish(unique, [record])
    messages = [(m.key, m.value) for m in logged(stream, unique)]
    assert sorted(set(messages)) == sorted((record.key, record.value) for record in sent)
    assert len(messages) == len(sent)
    assert retention.backlog(unique, time.time() + 9e5)["g"].messages == len(sent)


@pytest.mark.parametrize("url", EMBEDDED, indirect=True)
def test_retention_keeps_offsets_and_messages_that_groups_need(
    stream: Stream, retention: Retention, join: Callable[[str, str], Consumer], unique: str
) -> None:
    stream.publish(unique, records(30))
    parts = range(stream.partitions(unique))
    before = [stream.read(unique, partition, 0, 100) for partition in parts]
    assert [stream.oldest(unique, partition) for partition in parts] == [0] * len(parts)
    assert retention.apply_retention(unique, time.time() + 9e5, groups=["not joined yet"]) == 0
    first = join(unique, "g")
    messages = poll_until(first, 30, limit=5)
    finished = newest_offsets(messages[:17])
    first.commit(finished)
    n_deleted = retention.apply_retention(unique, time.time() + 9e5)
    assert n_deleted == sum(offset + 1 for offset in finished.values())
    for partition, original in enumerate(before):
        remaining = stream.read(unique, partition, 0, 100)
        assert remaining == original[len(original) - len(remaining) :]
        assert [m for m in original if m.offset > finished.get(partition, -1)] == remaining
        assert stream.oldest(unique, partition) == (remaining[0].offset if remaining else len(original))
    first.commit(newest_offsets(messages))
    retention.apply_retention(unique, time.time() + 9e5)  # all messages
    ends = stream.publish(unique, records(14))
    newest = poll_until(first, 14)
    n_new = {partition: sum(m.partition == partition for m in newest) for partition in parts}
    assert ends == {p: len(before[p]) + n_new[p] - 1 for p in parts if n_new[p]}
    first.close()
    received = poll_until(join(unique, "another"), 14)
    assert sorted(m.value for m in received if m.offset >= len(before[m.partition])) == sorted(
        record.value for record in records(14)
    )
    assert stream.identity_mismatch(unique, ends) is None


@pytest.mark.parametrize("url", EMBEDDED, indirect=True)
def test_messages_of_a_key_are_deleted_once_all_groups_have_passed_them(
    stream: Stream, retention: Retention, join: Callable[[str, str], Consumer], unique: str
) -> None:
    stream.publish(unique, records(28, keys=4))
    with closing(join(unique, "g")) as first:
        first.commit(newest_offsets(poll_until(first, 28)))
    stream.publish(unique, records(4, keys=4))
    before = logged(stream, unique)
    n_remaining = retention.delete_key(unique, "viewer-1")
    after = logged(stream, unique)
    assert n_remaining == 1
    assert [m for m in after if m.key != "viewer-1"] == [m for m in before if m.key != "viewer-1"]
    assert [m.value for m in after if m.key == "viewer-1"] == [b"message 1"]
    second = join(unique, "g")
    assert len(poll_until(second, 4)) == 4
    assert len(poll_until(join(unique, "another"), 25)) == 25


@pytest.mark.parametrize("url", EMBEDDED, indirect=True)
def test_a_filter_selects_which_messages_of_a_key_are_deleted(
    stream: Stream, retention: Retention, join: Callable[..., Consumer], unique: str
) -> None:
    stream.publish(unique, records(24, keys=2))
    with closing(join(unique, "g")) as first:
        first.commit(newest_offsets(poll_until(first, 24)))
    stream.publish(unique, records(24, keys=2))
    before = logged(stream, unique)
    n_remaining = retention.delete_key(unique, "viewer-1", value_filter=lambda value: value.endswith(b"7"))
    deleted = [m.value for m in before if m not in logged(stream, unique)]
    assert (n_remaining, sorted(deleted)) == (2, [b"message 17", b"message 7"])
