"""The worker: exactly once in effect, whatever breaks between any two of its steps; poison goes aside."""

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

from features.events.dead_letters import MAX_PAYLOAD_BYTES, DeadLetterCounter, dead_topic, read_dead_letters, replay
from features.events.decode import ViewerEvent, decode, encode
from features.events.stream.memory import MemoryStream
from features.events.stream.port import Record
from features.history.event_log import EventLog
from features.state.codec import decode_viewer, encode_item, encode_viewer, item_key, viewer_key
from features.state.fold import LoggedEvent, deduplicate_and_fold, fold_item, fold_viewer, items_of
from features.state.keys import LOG_EPOCHS, REBUILT
from features.state.online.memory import MemoryStore
from features.state.online.port import CasEntry, OnlineStore
from features.worker.main import main
from features.worker.worker import Worker
from recsys.domain.errors import EventError, Unavailable
from recsys.domain.viewer import LANDMARK, ItemState, ViewerState

TOPIC = "t"


@pytest.fixture(scope="module", autouse=True)
def _a_fast_disk() -> Iterator[None]:
    """No power is cut here: `test_worker_crash.py` kills real processes on a real disk."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("os.fsync", lambda handle: None)
        yield


class Crash(Exception):
    """The process is gone."""


class Fuse:
    """Blows at the n-th thing that happens."""

    def __init__(self, after: int) -> None:
        self.left = after

    def burn(self) -> bool:
        self.left -= 1
        return self.left == -1


class FragileStore:
    """A store whose process may die in the middle of a write: some entries are written then."""

    def __init__(self, store: OnlineStore, fuse: Fuse) -> None:
        self._store, self._fuse = store, fuse

    def swap(self, entries: Mapping[str, CasEntry], ttl_s: float | None = None) -> list[str]:
        if self._fuse.burn():
            half = dict(list(entries.items())[: len(entries) // 2])
            self._store.compare_and_set(half, ttl_s)
            raise Crash
        refused = self._store.compare_and_set(entries, ttl_s)
        if self._fuse.burn():
            raise Crash
        return refused

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class FragileLog(EventLog):
    fuse = Fuse(-1)

    def append(self, source: str, first: int, last: int, placed: Sequence[LoggedEvent]) -> None:
        if self.fuse.burn():
            raise Crash
        super().append(source, first, last, placed)
        if self.fuse.burn():
            raise Crash  # before the commit


def held(store: OnlineStore) -> dict[str, bytes]:
    """All that the store holds, but for the names of the logs that it knows and the moment of a rebuild."""
    return {key: raw for key, raw in store.scan("") if key != REBUILT and not key.startswith(LOG_EPOCHS)}


def replayed(stream: MemoryStream) -> dict[str, bytes]:
    """The oracle: all of the log folded at once, straight from the definition."""
    viewers: dict[str, list[LoggedEvent]] = {}
    items: dict[tuple[str, str], list[LoggedEvent]] = {}
    for partition in range(stream.partitions(TOPIC)):
        for message in stream.read(TOPIC, partition, 0, 10**6):
            one = LoggedEvent(f"{TOPIC}/{partition}", message.offset, decode(message.value))
            viewers.setdefault(one.event.viewer_id, []).append(one)
    dump = {}
    for viewer_id, events in viewers.items():
        dump[viewer_key(viewer_id)] = encode_viewer(fold_viewer(ViewerState(viewer_id), events))
        for one in deduplicate_and_fold(ViewerState(viewer_id), events).new_events:
            for item_id in items_of(one.event):
                items.setdefault((item_id, one.source), []).append(one)
    for (item_id, source), events in items.items():
        events.sort(key=lambda one: one.offset)
        dump[item_key(item_id, source)] = encode_item(fold_item(ItemState(item_id), events))
    return dump


@st.composite
def sent(draw: st.DrawFn) -> list[Record]:
    """What three viewers sent, some of it twice."""
    records = []
    for number in range(draw(st.integers(1, 25))):
        viewer = f"v{draw(st.integers(0, 2))}"
        kind = draw(st.sampled_from(["play", "like", "impression", "click"]))
        about: dict[str, Any] = (
            {"items": ("a", "b"), "context": {"seed": 1}}
            if kind == "impression"
            else {"item_id": draw(st.sampled_from("ab"))}
        )
        id = f"e{draw(st.integers(max(0, number - 4), number))}"
        records.append(
            Record(viewer, encode(ViewerEvent(id=id, kind=kind, viewer_id=viewer, at=LANDMARK + number, **about)))
        )
    return records


@settings(max_examples=40, deadline=None)
@given(sent(), st.lists(st.tuples(st.integers(0, 12), st.integers(1, 8)), max_size=6))
def test_crashes_anywhere_leave_the_state_of_a_pure_replay(records: list[Record], lives: list[tuple[int, int]]) -> None:
    """Each life of the worker has its own batch size and dies at another step; the last one finishes."""
    stream, store = MemoryStream(partitions=2), MemoryStore()
    stream.publish(TOPIC, records)
    with tempfile.TemporaryDirectory() as directory:
        for fuse_length, batch in [*lives, (10**6, 3)]:
            fuse = Fuse(fuse_length)
            log = FragileLog(directory)
            log.fuse = fuse
            worker = Worker(stream, FragileStore(store, fuse), log, topic=TOPIC, group="g", batch=batch)
            with suppress(Crash):
                while worker.step(wait_s=0):
                    pass
            worker.close()
        assert held(store) == replayed(stream)
        logged = [(one.event.viewer_id, one.event.id) for one in EventLog(directory).replay()]
    everything = {(record.key, decode(record.value).id) for record in records}
    assert len(logged) == len(set(logged))
    assert set(logged) == everything


def test_a_duplicate_is_told_from_a_redelivery_even_when_its_id_was_forgotten(tmp_path: Any) -> None:
    """An id leaves the state within one batch, its duplicate stands in the same batch, and the worker dies."""
    stream, store = MemoryStream(partitions=1), MemoryStore()
    stream.publish(TOPIC, [played("first"), played("first"), *(played(f"e{i}") for i in range(600))])
    for fuse_length in (0, 1, 2, 3, 4, 10**6):
        fuse = Fuse(fuse_length)
        worker = Worker(stream, FragileStore(store, fuse), EventLog(tmp_path), topic=TOPIC, group="g")
        with suppress(Crash):
            worker.step(wait_s=0)
        worker.close()
    assert held(store) == replayed(stream)


def played(id: str, viewer: str = "v", **said: Any) -> Record:
    return Record(viewer, encode(ViewerEvent(id=id, kind="play", viewer_id=viewer, at=LANDMARK, item_id="a", **said)))


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


def test_poison_goes_aside_with_cause_and_place_and_nothing_after_it_is_lost(tmp_path: Any) -> None:
    stream, store, log = MemoryStream(partitions=1), MemoryStore(), EventLog(tmp_path)
    records = []
    for number, poison in enumerate(POISON):
        records += [played(f"before{number}"), Record("v", poison)]
    records.append(played("last"))
    stream.publish(TOPIC, records)
    worker = Worker(stream, store, log, topic=TOPIC, group="g", batch=4)
    while worker.step(wait_s=0):
        pass

    raw = store.get([viewer_key("v")])[0]
    assert raw is not None
    assert decode_viewer(raw).counts == {"play": len(POISON) + 1}
    assert log.events().num_rows == len(POISON) + 1
    letters = [json.loads(message.value) for message in stream.read(dead_topic(TOPIC), 0, 0, 100)]
    for number, (poison, one) in enumerate(zip(POISON, letters, strict=True)):
        assert (one["topic"], one["partition"], one["offset"]) == (TOPIC, 0, 2 * number + 1)
        assert one["sha256"] == sha256(poison).hexdigest()
        assert b64decode(one["raw"]) == poison[:MAX_PAYLOAD_BYTES]
        assert one["size"] == len(poison)
        assert one["cause"]
    assert "unknown kind 'mainstay.viewer.fly'" in letters[6]["cause"]
    assert "not by its viewer someone-else" in letters[7]["cause"]


def test_a_partition_of_poison_at_its_beginning_its_end_and_five_hundred_in_a_row_does_not_stall(tmp_path: Any) -> None:
    """Goal E6: all set aside with cause and offset, every good one applied."""
    stream, store = MemoryStream(partitions=1), MemoryStore()
    records = [Record("v", POISON[0])]
    for number in range(600):
        poison = POISON[number % len(POISON)] if 50 <= number < 550 or number % 100 == 7 else None
        records.append(played(f"e{number}") if poison is None else Record("v", poison))
    records.append(Record("v", POISON[1]))
    stream.publish(TOPIC, records)
    worker = Worker(stream, store, EventLog(tmp_path), topic=TOPIC, group="g", batch=100)
    while worker.step(wait_s=0):
        pass
    bad = [offset for offset, one in enumerate(records) if one.value in POISON]
    letters = list(read_dead_letters(stream, TOPIC))
    assert [one.offset for one in letters] == bad
    assert all(one.cause for one in letters)
    raw = store.get([viewer_key("v")])[0]
    assert raw is not None
    assert decode_viewer(raw).counts == {"play": len(records) - len(bad)}
    assert worker.dead == len(bad) == 503
    assert DeadLetterCounter(stream, TOPIC).refresh() == len(bad)


def test_a_long_letter_is_revived_from_the_log_and_only_from_the_same_message(tmp_path: Any) -> None:
    stream, store = MemoryStream(partitions=1), MemoryStore()
    long = ViewerEvent(
        id="x", kind="impression", viewer_id="owner", at=LANDMARK, items=("a",), context={"x": "y" * MAX_PAYLOAD_BYTES}
    )
    stream.publish(TOPIC, [Record("other", encode(long))])
    worker = Worker(stream, store, EventLog(tmp_path), topic=TOPIC, group="g")
    worker.step(wait_s=0)
    (one,) = read_dead_letters(stream, TOPIC)
    assert one.size > MAX_PAYLOAD_BYTES == len(one.value)
    replay(stream, one)
    worker.step(wait_s=0)
    raw = store.get([viewer_key("owner")])[0]
    assert raw is not None
    assert decode_viewer(raw).counts == {"impression": 1}
    stream._logs[TOPIC][0][0] = stream._logs[TOPIC][0][1].__class__(TOPIC, 0, 0, "other", b"another")
    with pytest.raises(EventError, match="no longer in the log"):
        replay(stream, one)


def test_events_from_the_future_are_taken_without_their_clients_time_when_somebody_says_so(tmp_path: Any) -> None:
    stream, store = MemoryStream(partitions=1), MemoryStore()
    stream.publish(TOPIC, [played("ahead", client_at=LANDMARK + 3600), played("good", client_at=LANDMARK)])
    worker = Worker(stream, store, EventLog(tmp_path), topic=TOPIC, group="g")
    worker.step(wait_s=0)
    (one,) = read_dead_letters(stream, TOPIC)
    assert "3,600 s ahead" in one.cause
    with pytest.raises(EventError, match="ahead"):
        replay(stream, one)
    for _ in range(2):
        replay(stream, one, without_client_time=True)
    worker.step(wait_s=0)
    raw = store.get([viewer_key("v")])[0]
    assert raw is not None
    assert decode_viewer(raw).counts == {"play": 2}


def test_what_others_write_beside_the_letters_does_not_hide_them(tmp_path: Any) -> None:
    stream = MemoryStream(partitions=1)
    stream.publish(TOPIC, [Record("v", b"x")])
    stream.publish(dead_topic(TOPIC), [Record("v", b"not a letter")])
    Worker(stream, MemoryStore(), EventLog(tmp_path), topic=TOPIC, group="g").step(wait_s=0)
    assert [one.cause.partition(":")[0] for one in read_dead_letters(stream, TOPIC)] == [
        "not a dead letter",
        "not JSON",
    ]


def test_poison_is_one_line_of_the_log_for_a_batch(tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    stream = MemoryStream(partitions=1)
    stream.publish(TOPIC, [played("good"), *(Record("v", b"x") for _ in range(5))])
    worker = Worker(stream, MemoryStore(), EventLog(tmp_path), topic=TOPIC, group="g", batch=4)
    worker.step(wait_s=0)
    worker.step(wait_s=0)
    assert worker.dead == 5
    lines = [record.getMessage() for record in caplog.records]
    assert [line.partition(" ")[0] for line in lines] == ["3", "2"]
    assert "the first, t/0@1: not JSON" in lines[0]
    assert "the first, t/0@4: not JSON" in lines[1]


def test_a_batch_of_nothing_but_poison_is_committed(tmp_path: Any) -> None:
    stream, store = MemoryStream(partitions=1), MemoryStore()
    stream.publish(TOPIC, [Record("v", b"x"), Record("v", b"y")])
    worker = Worker(stream, store, EventLog(tmp_path), topic=TOPIC, group="g")
    assert worker.step(wait_s=0) == 2
    worker.close()
    assert worker.step(wait_s=0) == 0
    assert held(store) == {}


def test_letters_are_listed_once_and_revived_under_their_viewer(tmp_path: Any) -> None:
    stream, store = MemoryStream(partitions=2), MemoryStore()
    misplaced = encode(ViewerEvent(id="x", kind="play", viewer_id="owner", at=LANDMARK, item_id="a"))
    stream.publish(TOPIC, [Record("other", misplaced), Record("other", b"rubbish")])
    fuse = Fuse(2)  # what notes the name of the log goes well
    worker = Worker(stream, FragileStore(store, fuse), EventLog(tmp_path), topic=TOPIC, group="g")
    with pytest.raises(Crash):
        worker.step(wait_s=0)  # the letters are written, the batch is not committed
    worker.close()
    worker.step(wait_s=0)
    letters = list(read_dead_letters(stream, TOPIC))
    assert len(letters) == 2
    replay(stream, letters[0])
    replay(stream, letters[0])
    with pytest.raises(EventError):
        replay(stream, letters[1])
    worker.step(wait_s=0)
    raw = store.get([viewer_key("owner")])[0]
    assert raw is not None
    assert decode_viewer(raw).counts == {"play": 1}


def test_a_store_that_does_not_answer_is_waited_for(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("features.worker.worker.RETRY_FIRST_S", 0.01)

    class Moody(MemoryStore):
        failures = 3

        def swap(self, entries: Mapping[str, CasEntry], ttl_s: float | None = None) -> list[str]:
            if self.failures:
                self.failures -= 1
                raise Unavailable("store is away")
            return super().compare_and_set(entries, ttl_s)

    stream, store = MemoryStream(partitions=2), Moody()
    stream.publish(TOPIC, [played(f"e{i}", f"v{i}") for i in range(9)])
    heard: list[str] = []
    worker = Worker(stream, store, EventLog(tmp_path), topic=TOPIC, group="g", batch=4)
    assert worker.run(Event(), until_idle_s=0.0, ready=lambda: heard.append("ready")) == 9
    assert heard == ["ready"]
    assert held(store) == replayed(stream)


def test_viewers_are_forgotten_after_their_time_and_items_are_not(tmp_path: Any) -> None:
    now = [1000.0]
    stream, store = MemoryStream(partitions=1), MemoryStore(clock=lambda: now[0])
    stream.publish(TOPIC, [played("e")])
    Worker(stream, store, EventLog(tmp_path), topic=TOPIC, group="g", viewer_ttl_s=50).step(wait_s=0)
    assert len(held(store)) == 2
    now[0] += 51
    assert list(held(store)) == [item_key("a", "t/0")]


@pytest.fixture
def home(tmp_path: Any) -> str:
    from features.events.stream.sqlite import SqliteStream

    stream = SqliteStream(f"{tmp_path}/stream.db", 2)
    stream.publish("viewer-events", [played("e1"), Record("v", b"rubbish \xff"), played("e2")])
    stream.close()
    return str(tmp_path)


def test_the_command_folds_and_looks_after_dead_letters(home: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--home", home, "--until-idle", "0"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "worker ready",
        "worker stopped after 3 messages, 1 of them unreadable (recsys-worker dlq list)",
    ]
    assert main(["--home", home, "dlq", "list"]) == 0
    place, size, cause = capsys.readouterr().out.strip().split("\t")
    assert (place.partition("/")[0], size) == ("viewer-events", "9 bytes")
    assert cause.startswith("not JSON")
    assert main(["--home", home, "dlq", "show", place]) == 0
    assert "rubbish \\xff" in capsys.readouterr().out
    assert main(["--home", home, "dlq", "replay"]) == 1
    assert "still unreadable" in capsys.readouterr().out
    assert main(["--home", home, "dlq", "show", "viewer-events/0@99"]) == 1
    assert "no dead letter" in capsys.readouterr().err


def test_the_command_says_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--stream", "ftp://x"]) == 1
    assert "ftp://x" in capsys.readouterr().err
    assert main(["--partitions", "0"]) == 2
    assert "partitions" in capsys.readouterr().err
