"""The worker: exactly once in effect after a crash at any point; unreadable messages become dead letters."""

from __future__ import annotations

import json
import tempfile
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from threading import Event
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.cli import main
from features.events.dead_letters import MAX_PAYLOAD_BYTES, DeadLetterCounter, dead_topic, read_dead_letters, replay
from features.events.decode import decode, encode
from features.events.schema import ViewerEvent
from features.events.stream.memory import MemoryStream
from features.events.stream.port import Record
from features.events.stream.sqlite import SqliteStream
from features.history.event_log import EventLog
from features.state.codec import decode_viewer, encode_item, encode_viewer, item_key, viewer_key
from features.state.fold import deduplicate_and_fold, fold_item, fold_viewer
from features.state.keys import LOG_EPOCHS, REBUILD_STARTED
from features.state.online.memory import MemoryStore
from features.state.online.port import CasEntry, OnlineStore
from features.state.votes import LoggedEvent, items_of
from features.worker.worker import Worker
from recsys.domain.decay import LANDMARK
from recsys.domain.errors import EventError, Unavailable
from recsys.domain.item_statistics import ItemState
from recsys.domain.viewer import ViewerState

TOPIC = "t"


@pytest.fixture(scope="module", autouse=True)
def _no_fsync() -> Iterator[None]:
    """Skip fsync: `test_worker_crash.py` kills real processes on a real disk."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("os.fsync", lambda handle: None)
        yield


class Crash(Exception):
    """A crash of the process."""


class Fuse:
    """A countdown that fires once, at the n-th operation."""

    def __init__(self, after: int) -> None:
        self.remaining = after

    def trip(self) -> bool:
        self.remaining -= 1
        return self.remaining == -1


class FragileStore:
    """A store whose process may crash during a write, after half of the entries, or right after it."""

    def __init__(self, store: OnlineStore, fuse: Fuse) -> None:
        self._store, self._fuse = store, fuse

    def compare_and_set(self, entries: Mapping[str, CasEntry], ttl_s: float | None = None) -> list[str]:
        if self._fuse.trip():
            half = dict(list(entries.items())[: len(entries) // 2])
            self._store.compare_and_set(half, ttl_s)
            raise Crash
        refused = self._store.compare_and_set(entries, ttl_s)
        if self._fuse.trip():
            raise Crash
        return refused

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class FragileLog(EventLog):
    """An event log whose process may crash before or after an append."""

    fuse = Fuse(-1)

    def append(self, source: str, first: int, last: int, events: Sequence[LoggedEvent]) -> None:
        if self.fuse.trip():
            raise Crash
        super().append(source, first, last, events)
        if self.fuse.trip():
            raise Crash  # before the commit


def store_contents(store: OnlineStore) -> dict[str, bytes]:
    """Return all entries of the store, except for log epochs and the time of the last rebuild."""
    return {key: raw for key, raw in store.scan("") if key != REBUILD_STARTED and not key.startswith(LOG_EPOCHS)}


def expected_contents(stream: MemoryStream) -> dict[str, bytes]:
    """Fold the whole log at once, straight from the definition: the oracle."""
    viewers: dict[str, list[LoggedEvent]] = {}
    items: dict[tuple[str, str], list[LoggedEvent]] = {}
    for partition in range(stream.partitions(TOPIC)):
        for message in stream.read(TOPIC, partition, 0, 10**6):
            logged = LoggedEvent(f"{TOPIC}/{partition}", message.offset, decode(message.value))
            viewers.setdefault(logged.event.viewer_id, []).append(logged)
    contents = {}
    for viewer_id, events in viewers.items():
        contents[viewer_key(viewer_id)] = encode_viewer(fold_viewer(ViewerState(viewer_id), events))
        for weighted in deduplicate_and_fold(ViewerState(viewer_id), events).new_events:
            for item_id in items_of(weighted.event):
                items.setdefault((item_id, weighted.source), []).append(weighted)
    for (item_id, source), events in items.items():
        events.sort(key=lambda event: event.offset)
        contents[item_key(item_id, source)] = encode_item(fold_item(ItemState(item_id), events))
    return contents


@st.composite
def event_records(draw: st.DrawFn) -> list[Record]:
    """Draw records of three viewers, with duplicates."""
    records = []
    for number in range(draw(st.integers(1, 25))):
        viewer = f"v{draw(st.integers(0, 2))}"
        kind = draw(st.sampled_from(["play", "like", "impression", "click"]))
        fields: dict[str, Any] = (
            {"items": ("a", "b"), "context": {"seed": 1}}
            if kind == "impression"
            else {"item_id": draw(st.sampled_from("ab"))}
        )
        id = f"e{draw(st.integers(max(0, number - 4), number))}"
        records.append(
            Record(viewer, encode(ViewerEvent(id=id, kind=kind, viewer_id=viewer, at=LANDMARK + number, **fields)))
        )
    return records


@settings(max_examples=40, deadline=None)
@given(event_records(), st.lists(st.tuples(st.integers(0, 12), st.integers(1, 8)), max_size=6))
def test_crashes_at_any_point_lead_to_the_replayed_state(records: list[Record], runs: list[tuple[int, int]]) -> None:
    """Each run of the worker has its own batch size and crashes at a different operation; the last run finishes."""
    stream, store = MemoryStream(partitions=2), MemoryStore()
    stream.publish(TOPIC, records)
    with tempfile.TemporaryDirectory() as directory:
        for fuse_length, batch in [*runs, (10**6, 3)]:
            fuse = Fuse(fuse_length)
            log = FragileLog(directory)
            log.fuse = fuse
            worker = Worker(stream, FragileStore(store, fuse), log, topic=TOPIC, group="g", batch=batch)
            with suppress(Crash):
                while worker.step(wait_s=0):
                    pass
            worker.close()
        assert store_contents(store) == expected_contents(stream)
        logged = [(event.event.viewer_id, event.event.id) for event in EventLog(directory).replay()]
    published = {(record.key, decode(record.value).id) for record in records}
    assert len(logged) == len(set(logged))
    assert set(logged) == published


def test_a_duplicate_differs_from_a_redelivery_even_after_its_id_was_evicted(tmp_path: Any) -> None:
    """An id is evicted within one batch, its duplicate is in the same batch, and the worker crashes."""
    stream, store = MemoryStream(partitions=1), MemoryStore()
    stream.publish(TOPIC, [play_record("first"), play_record("first"), *(play_record(f"e{i}") for i in range(600))])
    for fuse_length in (0, 1, 2, 3, 4, 10**6):
        fuse = Fuse(fuse_length)
        worker = Worker(stream, FragileStore(store, fuse), EventLog(tmp_path), topic=TOPIC, group="g")
        with suppress(Crash):
            worker.step(wait_s=0)
        worker.close()
    assert store_contents(store) == expected_contents(stream)


def play_record(id: str, viewer: str = "v", **fields: Any) -> Record:
    return Record(viewer, encode(ViewerEvent(id=id, kind="play", viewer_id=viewer, at=LANDMARK, item_id="a", **fields)))


POISON = [
    b"",
    b"not json",
    b"\xff\xfe\x00",
    b"[]",
    b'{"specversion": "1.0"}',
    b'{"data":' * 3000,
    encode(ViewerEvent(id="x", kind="play", viewer_id="v", at=1.0, item_id="a")).replace(b"viewer.play", b"viewer.fly"),
    encode(ViewerEvent(id="x", kind="play", viewer_id="someone-else", at=1.0, item_id="a")),
    b"x" * (MAX_PAYLOAD_BYTES + 1),
    b'{"specversion":"1.0","id":"' + b"x" * (2 << 20) + b'"}',
    b'{"data":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    encode(ViewerEvent(id="x", kind="play", viewer_id="v", at=1.0, item_id="a", slot=1)).replace(b"1}", b'"1"}'),
    encode(ViewerEvent(id="x", kind="play", viewer_id="v", at=1.0, item_id="a", slot=1)).replace(
        b"1}", b"9" * 400 + b"}"
    ),
    encode(ViewerEvent(id="x", kind="play", viewer_id="v", at=1.0, item_id="a", client_at=302.0)),
]


def test_poison_becomes_dead_letters_with_cause_and_location_and_later_events_are_not_lost(tmp_path: Any) -> None:
    stream, store, log = MemoryStream(partitions=1), MemoryStore(), EventLog(tmp_path)
    records = []
    for number, poison in enumerate(POISON):
        records += [play_record(f"before{number}"), Record("v", poison)]
    records.append(play_record("last"))
    stream.publish(TOPIC, records)
    worker = Worker(stream, store, log, topic=TOPIC, group="g", batch=4)
    while worker.step(wait_s=0):
        pass

    raw = store.get([viewer_key("v")])[0]
    assert raw is not None
    assert decode_viewer(raw).counts == {"play": len(POISON) + 1}
    assert log.events().num_rows == len(POISON) + 1
    dead_letters = [json.loads(message.value) for message in stream.read(dead_topic(TOPIC), 0, 0, 100)]
    for number, (poison, dead_letter) in enumerate(zip(POISON, dead_letters, strict=True)):
        assert (dead_letter["topic"], dead_letter["partition"], dead_letter["offset"]) == (TOPIC, 0, 2 * number + 1)
        assert dead_letter["sha256"] == sha256(poison).hexdigest()
        assert b64decode(dead_letter["raw"]) == poison[:MAX_PAYLOAD_BYTES]
        assert dead_letter["size"] == len(poison)
        assert dead_letter["cause"]
    assert "unknown kind 'mainstay.viewer.fly'" in dead_letters[6]["cause"]
    assert "the viewer is someone-else" in dead_letters[7]["cause"]


def test_poison_at_the_start_the_end_and_five_hundred_in_a_row_does_not_stall_a_partition(tmp_path: Any) -> None:
    """Goal E6: every unreadable message becomes a dead letter with cause and offset, every event is applied."""
    stream, store = MemoryStream(partitions=1), MemoryStore()
    records = [Record("v", POISON[0])]
    for number in range(600):
        poison = POISON[number % len(POISON)] if 50 <= number < 550 or number % 100 == 7 else None
        records.append(play_record(f"e{number}") if poison is None else Record("v", poison))
    records.append(Record("v", POISON[1]))
    stream.publish(TOPIC, records)
    worker = Worker(stream, store, EventLog(tmp_path), topic=TOPIC, group="g", batch=100)
    while worker.step(wait_s=0):
        pass
    poison_offsets = [offset for offset, record in enumerate(records) if record.value in POISON]
    dead_letters = list(read_dead_letters(stream, TOPIC))
    assert [dead_letter.offset for dead_letter in dead_letters] == poison_offsets
    assert all(dead_letter.cause for dead_letter in dead_letters)
    raw = store.get([viewer_key("v")])[0]
    assert raw is not None
    assert decode_viewer(raw).counts == {"play": len(records) - len(poison_offsets)}
    assert worker.n_dead_letters == len(poison_offsets) == 503
    assert DeadLetterCounter(stream, TOPIC).refresh() == len(poison_offsets)


def test_a_truncated_dead_letter_is_replayed_from_the_stream_if_the_message_is_unchanged(tmp_path: Any) -> None:
    stream, store = MemoryStream(partitions=1), MemoryStore()
    long_event = ViewerEvent(
        id="x", kind="impression", viewer_id="owner", at=LANDMARK, items=("a",), context={"x": "y" * MAX_PAYLOAD_BYTES}
    )
    stream.publish(TOPIC, [Record("other", encode(long_event))])
    worker = Worker(stream, store, EventLog(tmp_path), topic=TOPIC, group="g")
    worker.step(wait_s=0)
    (dead_letter,) = read_dead_letters(stream, TOPIC)
    assert dead_letter.size > MAX_PAYLOAD_BYTES == len(dead_letter.value)
    replay(stream, dead_letter)
    worker.step(wait_s=0)
    raw = store.get([viewer_key("owner")])[0]
    assert raw is not None
    assert decode_viewer(raw).counts == {"impression": 1}
    stream._logs[TOPIC][0][0] = stream._logs[TOPIC][0][1].__class__(TOPIC, 0, 0, "other", b"another")
    with pytest.raises(EventError, match="the message is no longer in the log"):
        replay(stream, dead_letter)


def test_events_from_the_future_are_replayed_without_their_client_time_on_request(tmp_path: Any) -> None:
    stream, store = MemoryStream(partitions=1), MemoryStore()
    stream.publish(TOPIC, [play_record("ahead", client_at=LANDMARK + 3600), play_record("good", client_at=LANDMARK)])
    worker = Worker(stream, store, EventLog(tmp_path), topic=TOPIC, group="g")
    worker.step(wait_s=0)
    (dead_letter,) = read_dead_letters(stream, TOPIC)
    assert "3,600 s ahead" in dead_letter.cause
    with pytest.raises(EventError, match="ahead"):
        replay(stream, dead_letter)
    for _ in range(2):
        replay(stream, dead_letter, without_client_time=True)
    worker.step(wait_s=0)
    raw = store.get([viewer_key("v")])[0]
    assert raw is not None
    assert decode_viewer(raw).counts == {"play": 2}


def test_foreign_records_in_the_dead_letter_topic_do_not_hide_dead_letters(tmp_path: Any) -> None:
    stream = MemoryStream(partitions=1)
    stream.publish(TOPIC, [Record("v", b"x")])
    stream.publish(dead_topic(TOPIC), [Record("v", b"not a dead letter")])
    Worker(stream, MemoryStore(), EventLog(tmp_path), topic=TOPIC, group="g").step(wait_s=0)
    causes = [dead_letter.cause.partition(":")[0] for dead_letter in read_dead_letters(stream, TOPIC)]
    assert causes == ["not a dead letter", "not JSON"]


def test_unreadable_messages_are_logged_in_one_line_per_batch(tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    stream = MemoryStream(partitions=1)
    stream.publish(TOPIC, [play_record("good"), *(Record("v", b"x") for _ in range(5))])
    worker = Worker(stream, MemoryStore(), EventLog(tmp_path), topic=TOPIC, group="g", batch=4)
    worker.step(wait_s=0)
    worker.step(wait_s=0)
    assert worker.n_dead_letters == 5
    lines = [record.getMessage() for record in caplog.records]
    assert [line.partition(" ")[0] for line in lines] == ["3", "2"]
    assert "first t/0@1: not JSON" in lines[0]
    assert "first t/0@4: not JSON" in lines[1]


def test_a_batch_of_nothing_but_poison_is_committed(tmp_path: Any) -> None:
    stream, store = MemoryStream(partitions=1), MemoryStore()
    stream.publish(TOPIC, [Record("v", b"x"), Record("v", b"y")])
    worker = Worker(stream, store, EventLog(tmp_path), topic=TOPIC, group="g")
    assert worker.step(wait_s=0) == 2
    worker.close()
    assert worker.step(wait_s=0) == 0
    assert store_contents(store) == {}


def test_dead_letters_are_listed_once_and_replayed_under_their_viewer(tmp_path: Any) -> None:
    stream, store = MemoryStream(partitions=2), MemoryStore()
    misplaced = encode(ViewerEvent(id="x", kind="play", viewer_id="owner", at=LANDMARK, item_id="a"))
    stream.publish(TOPIC, [Record("other", misplaced), Record("other", b"rubbish")])
    fuse = Fuse(2)  # the write of the log epoch succeeds
    worker = Worker(stream, FragileStore(store, fuse), EventLog(tmp_path), topic=TOPIC, group="g")
    with pytest.raises(Crash):
        worker.step(wait_s=0)  # the dead letters are written, the batch is not committed
    worker.close()
    worker.step(wait_s=0)
    dead_letters = list(read_dead_letters(stream, TOPIC))
    assert len(dead_letters) == 2
    replay(stream, dead_letters[0])
    replay(stream, dead_letters[0])
    with pytest.raises(EventError):
        replay(stream, dead_letters[1])
    worker.step(wait_s=0)
    raw = store.get([viewer_key("owner")])[0]
    assert raw is not None
    assert decode_viewer(raw).counts == {"play": 1}


def test_a_worker_retries_until_the_store_answers(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("features.worker.worker.RETRY_FIRST_S", 0.01)

    class FlakyStore(MemoryStore):
        failures = 3

        def compare_and_set(self, entries: Mapping[str, CasEntry], ttl_s: float | None = None) -> list[str]:
            if self.failures:
                self.failures -= 1
                raise Unavailable("the store is down")
            return super().compare_and_set(entries, ttl_s)

    stream, store = MemoryStream(partitions=2), FlakyStore()
    stream.publish(TOPIC, [play_record(f"e{i}", f"v{i}") for i in range(9)])
    ready_calls: list[str] = []
    worker = Worker(stream, store, EventLog(tmp_path), topic=TOPIC, group="g", batch=4)
    assert worker.run(Event(), until_idle_s=0.0, ready=lambda: ready_calls.append("ready")) == 9
    assert ready_calls == ["ready"]
    assert store_contents(store) == expected_contents(stream)


def test_viewers_expire_after_their_ttl_and_items_do_not(tmp_path: Any) -> None:
    now = [1000.0]
    stream, store = MemoryStream(partitions=1), MemoryStore(clock=lambda: now[0])
    stream.publish(TOPIC, [play_record("e")])
    Worker(stream, store, EventLog(tmp_path), topic=TOPIC, group="g", viewer_ttl_s=50).step(wait_s=0)
    assert len(store_contents(store)) == 2
    now[0] += 51
    assert list(store_contents(store)) == [item_key("a", "t/0")]


@pytest.fixture
def home(tmp_path: Any) -> str:
    stream = SqliteStream(f"{tmp_path}/stream.db", 2)
    stream.publish("viewer-events", [play_record("e1"), Record("v", b"rubbish \xff"), play_record("e2")])
    stream.close()
    return str(tmp_path)


def test_the_command_folds_events_and_manages_dead_letters(home: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["worker", "--home", home, "--until-idle", "0"]) == 0
    lines = ["worker ready", "worker stopped after 3 messages, 1 of them unreadable (mainstay dlq list)"]
    assert capsys.readouterr().out.splitlines() == lines
    assert main(["dlq", "list", "--home", home]) == 0
    location, size, cause = capsys.readouterr().out.strip().split("\t")
    assert (location.partition("/")[0], size) == ("viewer-events", "9 bytes")
    assert cause.startswith("not JSON")
    assert main(["dlq", "show", location, "--home", home]) == 0
    assert "rubbish \\xff" in capsys.readouterr().out
    assert main(["dlq", "replay", "--home", home]) == 1
    assert "still unreadable" in capsys.readouterr().out
    assert main(["dlq", "show", "viewer-events/0@99", "--home", home]) == 1
    assert "no dead letter" in capsys.readouterr().err


def test_the_command_reports_invalid_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["worker", "--stream", "ftp://x"]) == 1
    assert "ftp://x" in capsys.readouterr().err
    assert main(["worker", "--partitions", "0"]) == 2
    assert "partitions" in capsys.readouterr().err
