"""Bytes that are no state cost nothing but themselves: set aside, made again from the log, named until all is well."""

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
from features.events.decode import ViewerEvent
from features.events.stream.memory import MemoryStream
from features.events.stream.sqlite import SqliteStream
from features.history.event_log import EventLog
from features.history.privacy import erase_viewer, export_viewer
from features.state.codec import VERSION, VERSIONS, NewerState, StateError, item_at, viewer_at, viewer_key
from features.state.corrupt_state import LOG_EVERY_S, CorruptStateCounter
from features.state.exposure_counts import count_at, read_traffic, traffic_at
from features.state.item_columns import read_stats
from features.state.keys import COUNTS, ITEMS, LOG_EPOCHS, QUARANTINE, TRAFFIC, VIEWERS
from features.state.online.connect import open_online
from features.state.online.memory import MemoryStore
from features.state.online.port import OnlineStore
from features.state.online.sqlite import SqliteStore
from features.state.quarantine import QUARANTINE_TTL_S, CorruptState, discard, quarantine, quarantined
from features.worker import repair as mend
from features.worker.worker import Worker
from recsys.domain.catalog import Catalog
from recsys.domain.errors import Unavailable
from recsys.domain.viewer import LANDMARK
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


def spoilt(chance: random.Random, raw: bytes, others: bytes) -> bytes:
    """Cut short, overwritten, longer, of no version, another's, empty."""
    at = chance.randrange(len(raw))
    return chance.choice([raw[:at], raw[:at] + bytes(9) + raw[at:], raw + b"?", b"\xff" + raw[1:], others, b""])


def spoil(chance: random.Random, store: OnlineStore, count: int) -> dict[str, bytes]:
    """Damage some values of each kind; those that are states still (or of a newer version) are left alone."""
    there, bad = dump(store), {}
    for prefix in READ:
        keys = sorted(key for key in there if key.startswith(prefix) and is_state(key, there[key]))
        for key in chance.sample(keys, min(count, len(keys))):
            raw = spoilt(chance, there[key], there[chance.choice(keys)])
            if not is_state(key, raw):
                bad[key] = raw
    store.put(bad)
    return bad


@settings(
    max_examples=4,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.generate],
)
@given(st.integers(0, 10**6))
def test_damage_met_by_the_fold_is_mended_byte_for_byte(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    """Two lives of the log, workers that come and go, damage between any two batches."""
    chance, everything = random.Random(seed), happened(random.Random(seed), 100)
    sound, hurt = MemoryStore(), MemoryStore()
    logs = [EventLog(tmp_path_factory.mktemp(name)) for name in ("sound", "hurt")]
    bad: dict[str, bytes] = {}
    met = set()
    for half in (everything[:50], everything[50:]):  # each in a log of its own: the second broker was wiped
        stream = MemoryStream(partitions=2)
        published(stream, half)
        folded(stream, sound, logs[0], batch=chance.choice([5, 40]))
        stream = MemoryStream(partitions=2)
        published(stream, half)
        while True:
            with closing(worker(stream, hurt, logs[1], batch=chance.choice([5, 11, 40]))) as one:
                steps = [one.step(wait_s=0) for _ in range(chance.randrange(1, 3))]
            now = dump(hurt)
            met |= {(key, raw) for key, raw in bad.items() if now.get(key) != raw}
            bad = {key: raw for key, raw in bad.items() if now.get(key) == raw}
            if not steps[-1]:
                break
            bad |= spoil(chance, hurt, 1)
    expected, found = dump(sound), dump(hurt)
    assert expected.keys() == found.keys()
    assert {key for key in expected if expected[key] != found[key]} == bad.keys()
    assert {(one.key, one.raw) for one in quarantined(hurt)} == met
    assert all(one.repaired for one in quarantined(hurt))


@pytest.mark.parametrize("prefix", [VIEWERS, ITEMS, COUNTS, TRAFFIC])
def test_a_state_of_a_newer_engine_stops_the_worker_and_is_left_alone(tmp_path: Path, prefix: str) -> None:
    stream, online, log = MemoryStream(partitions=1), MemoryStore(), EventLog(tmp_path)
    events = happened(random.Random(4), 80)
    published(stream, events[:60])
    folded(stream, online, log)
    newer = {key: bytes([VERSION + 1]) + b"what nobody knows yet" for key in dump(online) if key.startswith(prefix)}
    online.put(newer)
    published(stream, events[60:])
    with closing(worker(stream, online, log)) as one, pytest.raises(NewerState) as told:
        one.run(Event(), until_idle_s=0.0)
    assert f"{prefix}{{" in str(told.value)
    assert f"version {VERSION + 1}" in str(told.value)
    assert "mainstay rebuild" in str(told.value)
    assert {k: dump(online)[k] for k in newer} == newer
    assert list(quarantined(online)) == []


@given(st.binary(max_size=60), st.sampled_from(sorted(READ)))
def test_whatever_the_bytes_they_are_a_state_or_a_state_error(raw: bytes, prefix: str) -> None:
    for mark in (b"", bytes([VERSION]), bytes([VERSION + 1])):
        try:
            READ[prefix](f"{prefix}{{x}}", mark + raw)
        except NewerState:
            assert VERSION < (mark + raw)[0] < VERSIONS
        except StateError:
            pass


@pytest.fixture
def home(tmp_path: Path) -> str:
    with closing(SqliteStream(f"{tmp_path}/stream.db", 2)) as stream:
        published(stream, happened(random.Random(9), 100), "viewer-events")
    assert main(["worker", "--home", str(tmp_path), "--until-idle", "0", "--viewer-ttl-days", "100000"]) == 0
    return str(tmp_path)


def test_what_begins_anew_is_named_until_a_rebuild(
    home: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*command: str) -> tuple[int, str]:
        capsys.readouterr()
        return main([*command, "--home", home, "--viewer-ttl-days", "100000"]), capsys.readouterr().out

    assert said("quarantine", "list") == (0, "")
    assert said("viewers", "erase", "viewer-3")[0] == 0  # from now on differences of items may be its doing
    with closing(SqliteStore(f"{home}/online.db")) as online:
        keys = [key for key in dump(online) if key.startswith(ITEMS)]
        online.put(dict.fromkeys(keys, b"no state"))
    with closing(SqliteStream(f"{home}/stream.db", 2)) as stream:
        late = [event for event in happened(random.Random(10), 30) if event.viewer_id != "viewer-3"]
        published(stream, late, "viewer-events")
    monkeypatch.setattr(mend, "EVENTS_MAX", 0)
    assert main(["worker", "--home", home, "--until-idle", "0", "--viewer-ttl-days", "100000"]) == 0
    code, told = said("verify")
    assert code == 1
    assert "quarantined and restarted empty at 20" in told
    code, told = said("quarantine", "list")
    listed = [line.partition("\t")[0] for line in told.splitlines()]
    assert len(set(listed)) == len(listed) > 0
    assert set(listed) <= set(keys)
    assert told.count("restarted empty: run `mainstay rebuild`") == len(listed)
    assert b64encode(b"no state").decode() in said("quarantine", "show", listed[0])[1]
    assert said("rebuild")[0] == 0
    assert said("quarantine", "list") == (0, "")
    assert said("verify")[0] == 0


def test_an_erasure_takes_what_was_set_aside_and_nobody_elses(tmp_path: Path) -> None:
    online, log = MemoryStore(), EventLog(tmp_path)
    keys = [viewer_key(viewer) for viewer in ("a", "a}:b", "b")]
    quarantine(online, [CorruptState(key, "why", 1.0, True, key.encode()) for key in keys])
    lines = [json.loads(line) for line in export_viewer(log, online, "a")]
    assert lines[1:] == [{"damaged": {"cause": "why", "at": 1.0, "raw": b64encode(keys[0].encode()).decode()}}]
    erase_viewer(log, online, "a", END)
    assert sorted(one.key for one in quarantined(online)) == sorted(keys[1:])


def test_a_damaged_state_of_an_erased_viewer_is_kept_nowhere(tmp_path: Path) -> None:
    stream, online, log = MemoryStream(partitions=1), MemoryStore(), EventLog(tmp_path)
    published(stream, [ViewerEvent(id="e", kind="play", viewer_id="v", at=LANDMARK, item_id="i")])
    folded(stream, online, log)
    erase_viewer(log, online, "v", LANDMARK + 1)
    for at in (LANDMARK, LANDMARK + 2):  # one of before, one of the stranger who came back
        online.put({viewer_key("v"): b"a worker wrote it that died"})
        published(stream, [ViewerEvent(id=f"e{at}", kind="play", viewer_id="v", at=at, item_id="i")])
        folded(stream, online, log)
        assert list(quarantined(online)) == []
        assert not [raw for _, raw in online.scan("") if b"a worker wrote it" in raw]
    raw = online.get([viewer_key("v")])[0]
    assert raw is not None
    assert viewer_at(viewer_key("v"), raw).counts == {"play": 1}


class ErasedMeanwhile(MemoryStore):
    """A store in which viewer `v` is erased just before damaged bytes are set aside; the worker may die after that."""

    def __init__(self, log: EventLog, dies: bool) -> None:
        super().__init__()
        self._log, self._dies = log, dies

    def put(self, entries: Mapping[str, bytes], ttl_s: float | None = None) -> None:
        meanwhile = any(key.startswith(QUARANTINE) for key in entries) and self._log.erased.of("v") < 0
        if meanwhile:
            erase_viewer(self._log, self, "v", LANDMARK + 1)
        super().put(entries, ttl_s)
        if meanwhile and self._dies:
            raise Unavailable("the worker dies here")


@pytest.mark.parametrize("dies", [False, True])
def test_damaged_bytes_of_a_viewer_who_is_erased_meanwhile_are_kept_nowhere(tmp_path: Path, dies: bool) -> None:
    stream, log = MemoryStream(partitions=1), EventLog(tmp_path)
    online = ErasedMeanwhile(log, dies)
    online.put({viewer_key("v"): b"no state"})
    published(stream, [ViewerEvent(id="e", kind="play", viewer_id="v", at=LANDMARK, item_id="i")])
    with pytest.raises(Unavailable), closing(worker(stream, online, log)) as one:
        one.step(wait_s=0)
    assert len(list(quarantined(online))) == (1 if dies else 0)
    folded(stream, online, log)
    assert list(quarantined(online)) == []
    assert viewer_key("v") not in dump(online)


def test_letting_go_takes_what_was_found_at_these_keys(tmp_path: Path) -> None:
    online = MemoryStore()
    keys = [viewer_key(viewer) for viewer in "abcd"]
    quarantine(online, [CorruptState(key, "why", 1.0, True, key.encode()) for key in keys])
    assert [discard(online, some) for some in ([], keys[:1], keys[:3])] == [0, 1, 2]
    assert [one.key for one in quarantined(online)] == keys[3:]
    assert discard(online) == 1


def test_the_export_hands_out_what_nobody_can_read(tmp_path: Path) -> None:
    online = MemoryStore()
    for raw in (b"?", bytes([VERSION + 1]) + b"new"):
        online.put({viewer_key("v"): raw})
        state, unread = [json.loads(line) for line in export_viewer(EventLog(tmp_path), online, "v")]
        assert state == {"state": None}
        assert unread["damaged"]["raw"] == b64encode(raw).decode()


def test_readers_leave_out_what_is_damaged_and_count_it(caplog: pytest.LogCaptureFixture) -> None:
    now, skipped = [0.0], list[str]()
    unreadable = CorruptStateCounter(skipped.append, lambda: now[0])
    store = MemoryStore()
    store.put({"item:{a}:t/0": b"?", "traffic:{p|r}:3:t/0": b"\x01junk", "item:{b}:t/0": b""})
    with caplog.at_level(logging.WARNING):
        read_stats(store, Catalog.empty(), 0.0, unreadable)
        assert read_traffic(store, unreadable) == []
        assert skipped == ["item", "item", "traffic"]
        assert len(caplog.records) == 1
        now[0] = LOG_EVERY_S
        read_stats(store, Catalog.empty(), 0.0, unreadable)
    assert len(caplog.records) == 2
    assert "3 time(s)" in caplog.text


@pytest.mark.parametrize("adapter", ["sqlite", "redis"])
def test_what_is_set_aside_is_found_and_let_go_in_every_store(
    adapter: str, request: pytest.FixtureRequest, tmp_path: Path, unique: str
) -> None:
    where = f"sqlite:///{tmp_path}/online.db"
    if adapter == "redis":
        where = f"{request.getfixturevalue('redis_url')}?prefix={unique}"
    with closing(open_online(where, 5.0)) as online:
        one = CorruptState(viewer_key("v"), "why", 1.0, False, b"\x00\xff")
        quarantine(online, [one, one])
        assert list(quarantined(online)) == list(quarantined(online, viewer_key("v"))) == [one]
        assert list(quarantined(online, viewer_key("w"))) == []
        stream, log = MemoryStream(partitions=1), EventLog(tmp_path / "events")
        published(stream, [ViewerEvent(id="e", kind="play", viewer_id="w", at=LANDMARK, item_id="i")])
        online.put({viewer_key("w"): b"?"})
        with closing(Worker(stream, online, log, topic=TOPIC, group="g", viewer_ttl_s=1e9)) as made:
            made.step(wait_s=0)
        assert {one.key for one in quarantined(online)} == {viewer_key("v"), viewer_key("w")}
        erase_viewer(log, online, "v", END)
        assert {key.partition(":")[0] + ":" for key, _ in online.scan("")} >= {VIEWERS, QUARANTINE, LOG_EPOCHS}
        assert {one.key for one in quarantined(online)} == {viewer_key("w")}
    assert QUARANTINE_TTL_S > 0
