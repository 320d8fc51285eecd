"""Corrupt states are quarantined, refolded from the event log, and reported until they are repaired."""

from __future__ import annotations

import json
import logging
import random
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from threading import Event

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from features.cli import main
from features.events.schema import ViewerEvent
from features.events.stream.memory import MemoryStream
from features.events.stream.sqlite import SqliteStream
from features.history.event_log import EventLog
from features.history.privacy import erase_viewer, export_viewer
from features.state.codec import VERSION, NewerState, StateError, frame, item_at, viewer_at, viewer_key
from features.state.exposure_counts import count_at, read_traffic, traffic_at
from features.state.item_columns import read_stats
from features.state.keys import COUNTS, ITEMS, LOG_EPOCHS, QUARANTINE, TRAFFIC, VIEWERS
from features.state.online.connect import open_online
from features.state.online.memory import MemoryStore
from features.state.online.port import OnlineStore
from features.state.online.sqlite import SqliteStore
from features.state.quarantine import (
    LOG_EVERY_S,
    QUARANTINE_TTL_S,
    CorruptState,
    CorruptStateCounter,
    discard,
    quarantine,
    quarantined,
)
from features.worker import repair
from features.worker.worker import Worker
from recsys.domain.catalog import Catalog
from recsys.domain.decay import LANDMARK
from recsys.domain.errors import Unavailable
from tests.features.worker.runs import END, TOPIC, folded, happened, published, worker

READ = {VIEWERS: viewer_at, ITEMS: item_at, COUNTS: count_at, TRAFFIC: traffic_at}


@pytest.fixture(scope="module", autouse=True)
def _a_fast_disk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("os.fsync", lambda handle: None)
        yield


def dump(store: OnlineStore) -> dict[str, bytes]:
    return {key: raw for prefix in READ for key, raw in store.scan(prefix)}


def is_state(key: str, raw: bytes) -> bool:
    try:
        next(read for prefix, read in READ.items() if key.startswith(prefix))(key, raw)
    except NewerState:
        return True
    except StateError:
        return False
    return True


def corrupted(chance: random.Random, raw: bytes, other_state: bytes) -> bytes:
    """Return the bytes truncated, overwritten, extended, with an invalid version, replaced or empty."""
    at = chance.randrange(len(raw))
    return chance.choice([raw[:at], raw[:at] + bytes(9) + raw[at:], raw + b"?", b"\xff" + raw[1:], other_state, b""])


def corrupt_some(chance: random.Random, store: OnlineStore, count: int) -> dict[str, bytes]:
    """Corrupt some values of each kind; skip a change that still decodes or has a newer version number."""
    states, corrupt = dump(store), {}
    for prefix in READ:
        keys = sorted(key for key in states if key.startswith(prefix) and is_state(key, states[key]))
        for key in chance.sample(keys, min(count, len(keys))):
            raw = corrupted(chance, states[key], states[chance.choice(keys)])
            if not is_state(key, raw):
                corrupt[key] = raw
    store.put(corrupt)
    return corrupt


@settings(
    max_examples=4,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.generate],
)
@given(st.integers(0, 10**6))
def test_corrupt_states_are_refolded_byte_for_byte(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    """There are two log epochs, a new worker every few batches, and corruption between batches."""
    chance, events = random.Random(seed), happened(random.Random(seed), 100)
    intact, damaged_store = MemoryStore(), MemoryStore()
    logs = [EventLog(tmp_path_factory.mktemp(name)) for name in ("sound", "hurt")]
    corrupt: dict[str, bytes] = {}
    quarantined_pairs = set()
    for half in (events[:50], events[50:]):  # each in a log epoch of its own, as after a wiped broker
        stream = MemoryStream(partitions=2)
        published(stream, half)
        folded(stream, intact, logs[0], batch=chance.choice([5, 40]))
        stream = MemoryStream(partitions=2)
        published(stream, half)
        while True:
            with closing(worker(stream, damaged_store, logs[1], batch=chance.choice([5, 11, 40]))) as worker_:
                steps = [worker_.step(wait_s=0) for _ in range(chance.randrange(1, 3))]
            now = dump(damaged_store)
            quarantined_pairs |= {(key, raw) for key, raw in corrupt.items() if now.get(key) != raw}
            corrupt = {key: raw for key, raw in corrupt.items() if now.get(key) == raw}
            if not steps[-1]:
                break
            corrupt |= corrupt_some(chance, damaged_store, 1)
    expected, actual = dump(intact), dump(damaged_store)
    assert expected.keys() == actual.keys()
    assert {key for key in expected if expected[key] != actual[key]} == corrupt.keys()
    assert {(worker_.key, worker_.raw) for worker_ in quarantined(damaged_store)} == quarantined_pairs
    assert all(worker_.repaired for worker_ in quarantined(damaged_store))


@pytest.mark.parametrize("prefix", [VIEWERS, ITEMS, COUNTS, TRAFFIC])
def test_a_state_of_a_newer_version_stops_the_worker_and_stays_unchanged(tmp_path: Path, prefix: str) -> None:
    stream, online, log = MemoryStream(partitions=1), MemoryStore(), EventLog(tmp_path)
    events = happened(random.Random(4), 80)
    published(stream, events[:60])
    folded(stream, online, log)
    newer = {key: frame(b"an unknown format", VERSION + 1) for key in dump(online) if key.startswith(prefix)}
    online.put(newer)
    published(stream, events[60:])
    with closing(worker(stream, online, log)) as worker_, pytest.raises(NewerState) as error:
        worker_.run(Event(), until_idle_s=0.0)
    assert f"{prefix}{{" in str(error.value)
    assert f"version {VERSION + 1}" in str(error.value)
    assert "mainstay rebuild" in str(error.value)
    assert {k: dump(online)[k] for k in newer} == newer
    assert list(quarantined(online)) == []


@given(st.binary(max_size=60), st.sampled_from(sorted(READ)))
def test_any_bytes_decode_or_raise_state_error(raw: bytes, prefix: str) -> None:
    for stored in (raw, frame(raw), frame(raw, VERSION + 1)):
        try:
            READ[prefix](f"{prefix}{{x}}", stored)
        except NewerState:
            assert stored[0] > VERSION
            assert stored == frame(stored[5:], stored[0])
        except StateError:
            pass


@pytest.fixture
def home(tmp_path: Path) -> str:
    with closing(SqliteStream(f"{tmp_path}/stream.db", 2)) as stream:
        published(stream, happened(random.Random(9), 100), "viewer-events")
    assert main(["worker", "--home", str(tmp_path), "--until-idle", "0", "--viewer-ttl-days", "100000"]) == 0
    return str(tmp_path)


def test_incomplete_states_are_reported_until_a_rebuild(
    home: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*command: str) -> tuple[int, str]:
        capsys.readouterr()
        return main([*command, "--home", home, "--viewer-ttl-days", "100000"]), capsys.readouterr().out

    assert run("quarantine", "list") == (0, "")
    assert run("viewers", "erase", "viewer-3")[0] == 0  # from now on differences of items may result from the erasure
    with closing(SqliteStore(f"{home}/online.db")) as online:
        keys = [key for key in dump(online) if key.startswith(ITEMS)]
        online.put(dict.fromkeys(keys, b"no state"))
    with closing(SqliteStream(f"{home}/stream.db", 2)) as stream:
        late_events = [event for event in happened(random.Random(10), 30) if event.viewer_id != "viewer-3"]
        published(stream, late_events, "viewer-events")
    monkeypatch.setattr(repair, "EVENTS_MAX", 0)
    assert main(["worker", "--home", home, "--until-idle", "0", "--viewer-ttl-days", "100000"]) == 0
    code, output = run("verify")
    assert code == 1
    assert "quarantined and restarted empty at 20" in output
    code, output = run("quarantine", "list")
    listed = [line.partition("\t")[0] for line in output.splitlines()]
    assert len(set(listed)) == len(listed) > 0
    assert set(listed) <= set(keys)
    assert output.count("restarted empty: run `mainstay rebuild`") == len(listed)
    assert b64encode(b"no state").decode() in run("quarantine", "show", listed[0])[1]
    assert run("rebuild")[0] == 0
    assert run("quarantine", "list") == (0, "")
    assert run("verify")[0] == 0


def test_erasure_discards_only_the_viewers_quarantined_states(tmp_path: Path) -> None:
    online, log = MemoryStore(), EventLog(tmp_path)
    keys = [viewer_key(viewer) for viewer in ("a", "a}:b", "b")]
    quarantine(online, [CorruptState(key, "cause", 1.0, True, key.encode()) for key in keys])
    lines = [json.loads(line) for line in export_viewer(log, online, "a")]
    assert lines[1:] == [{"corrupt_state": {"cause": "cause", "at": 1.0, "raw": b64encode(keys[0].encode()).decode()}}]
    erase_viewer(log, online, "a", END)
    assert sorted(state.key for state in quarantined(online)) == sorted(keys[1:])


def test_corrupt_states_of_erased_viewers_are_not_quarantined(tmp_path: Path) -> None:
    stream, online, log = MemoryStream(partitions=1), MemoryStore(), EventLog(tmp_path)
    published(stream, [ViewerEvent(id="e", kind="play", viewer_id="v", at=LANDMARK, item_id="i")])
    folded(stream, online, log)
    erase_viewer(log, online, "v", LANDMARK + 1)
    for at in (LANDMARK, LANDMARK + 2):  # an event before the erasure, and one of the viewer who returned
        online.put({viewer_key("v"): b"written by a crashed worker"})
        published(stream, [ViewerEvent(id=f"e{at}", kind="play", viewer_id="v", at=at, item_id="i")])
        folded(stream, online, log)
        assert list(quarantined(online)) == []
        assert not [raw for _, raw in online.scan("") if b"written by a crashed worker" in raw]
    raw = online.get([viewer_key("v")])[0]
    assert raw is not None
    assert viewer_at(viewer_key("v"), raw).counts == {"play": 1}


class ErasingStore(MemoryStore):
    """A store that erases viewer `v` just before corrupt bytes are quarantined; the worker may crash after that."""

    def __init__(self, log: EventLog, crashes: bool) -> None:
        super().__init__()
        self._log, self._crashes = log, crashes

    def put(self, entries: Mapping[str, bytes], ttl_s: float | None = None) -> None:
        erases_now = any(key.startswith(QUARANTINE) for key in entries) and self._log.erasures.erased_at("v") < 0
        if erases_now:
            erase_viewer(self._log, self, "v", LANDMARK + 1)
        super().put(entries, ttl_s)
        if erases_now and self._crashes:
            raise Unavailable("the worker crashes")


@pytest.mark.parametrize("crashes", [False, True])
def test_corrupt_states_are_not_kept_when_the_viewer_is_erased_concurrently(tmp_path: Path, crashes: bool) -> None:
    stream, log = MemoryStream(partitions=1), EventLog(tmp_path)
    online = ErasingStore(log, crashes)
    online.put({viewer_key("v"): b"no state"})
    published(stream, [ViewerEvent(id="e", kind="play", viewer_id="v", at=LANDMARK, item_id="i")])
    with pytest.raises(Unavailable), closing(worker(stream, online, log)) as worker_:
        worker_.step(wait_s=0)
    assert len(list(quarantined(online))) == (1 if crashes else 0)
    folded(stream, online, log)
    assert list(quarantined(online)) == []
    assert viewer_key("v") not in dump(online)


def test_discard_deletes_only_the_given_keys(tmp_path: Path) -> None:
    online = MemoryStore()
    keys = [viewer_key(viewer) for viewer in "abcd"]
    quarantine(online, [CorruptState(key, "cause", 1.0, True, key.encode()) for key in keys])
    assert [discard(online, part) for part in ([], keys[:1], keys[:3])] == [0, 1, 2]
    assert [state.key for state in quarantined(online)] == keys[3:]
    assert discard(online) == 1


def test_export_contains_corrupt_states(tmp_path: Path) -> None:
    online = MemoryStore()
    for raw in (b"?", frame(b"new", VERSION + 1)):
        online.put({viewer_key("v"): raw})
        state, corrupt = [json.loads(line) for line in export_viewer(EventLog(tmp_path), online, "v")]
        assert state == {"state": None}
        assert corrupt["corrupt_state"]["raw"] == b64encode(raw).decode()


def test_readers_skip_and_count_corrupt_states(caplog: pytest.LogCaptureFixture) -> None:
    now, skipped = [0.0], list[str]()
    corrupt_states = CorruptStateCounter(skipped.append, lambda: now[0])
    store = MemoryStore()
    store.put({"item:{a}:t/0": b"?", "traffic:{p|r}:3:t/0": b"\x01junk", "item:{b}:t/0": b""})
    with caplog.at_level(logging.WARNING):
        read_stats(store, Catalog.empty(), 0.0, corrupt_states)
        assert read_traffic(store, corrupt_states) == []
        assert skipped == ["item", "item", "traffic"]
        assert len(caplog.records) == 1
        now[0] = LOG_EVERY_S
        read_stats(store, Catalog.empty(), 0.0, corrupt_states)
    assert len(caplog.records) == 2
    assert "3 corrupt state(s) skipped" in caplog.text


@pytest.mark.parametrize("adapter", ["sqlite", "redis"])
def test_quarantine_works_in_every_store(
    adapter: str, request: pytest.FixtureRequest, tmp_path: Path, unique: str
) -> None:
    url = f"sqlite:///{tmp_path}/online.db"
    if adapter == "redis":
        url = f"{request.getfixturevalue('redis_url')}?prefix={unique}"
    with closing(open_online(url, 5.0)) as online:
        state = CorruptState(viewer_key("v"), "cause", 1.0, False, b"\x00\xff")
        quarantine(online, [state, state])
        assert list(quarantined(online)) == list(quarantined(online, viewer_key("v"))) == [state]
        assert list(quarantined(online, viewer_key("w"))) == []
        stream, log = MemoryStream(partitions=1), EventLog(tmp_path / "events")
        published(stream, [ViewerEvent(id="e", kind="play", viewer_id="w", at=LANDMARK, item_id="i")])
        online.put({viewer_key("w"): b"?"})
        with closing(Worker(stream, online, log, topic=TOPIC, group="g", viewer_ttl_s=1e9)) as worker_:
            worker_.step(wait_s=0)
        assert {state.key for state in quarantined(online)} == {viewer_key("v"), viewer_key("w")}
        erase_viewer(log, online, "v", END)
        assert {key.partition(":")[0] + ":" for key, _ in online.scan("")} >= {VIEWERS, QUARANTINE, LOG_EPOCHS}
        assert {state.key for state in quarantined(online)} == {viewer_key("w")}
    assert QUARANTINE_TTL_S > 0
