"""Rebuilding gives the bytes there were; what is erased is in no file, never comes back, and takes nobody along."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from features.events.dead_letters import DeadLetterCounter, dead_topic
from features.events.decode import encode
from features.events.schema import ViewerEvent
from features.events.stream.memory import MemoryStream
from features.events.stream.port import Record
from features.events.stream.sqlite import SqliteStream
from features.history.compaction import compact
from features.history.erasures import FILE_NAME
from features.history.event_log import EventLog
from features.history.privacy import erase_viewer, export_viewer
from features.settings import Settings
from features.state.codec import decode_item, encode_item, viewer_key
from features.state.exposure_counts import TRAFFIC_TTL_S
from features.state.keys import ERASURES, ITEMS, LOG_EPOCHS, REBUILD_STARTED, TRAFFIC, VIEWERS
from features.state.online.memory import MemoryStore
from features.state.online.port import CasEntry, OnlineStore
from features.state.online.sqlite import SqliteStore
from features.state.votes import LoggedEvent
from features.worker.commands import EXIT_INCONCLUSIVE, apply_retention
from features.worker.main import UNHEARD, main
from features.worker.rebuild import expire_idle, from_log, from_stream, rebuild
from features.worker.verify import find_differences
from features.worker.worker import Worker
from recsys.domain.decay import DAY_S, LANDMARK
from recsys.domain.errors import Unavailable

TOPIC, TTL_S = "t", 50_000.0
END = LANDMARK + 100_000.0


@pytest.fixture(scope="module", autouse=True)
def _a_fast_disk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("os.fsync", lambda handle: None)
        yield


def happened(chance: random.Random, count: int) -> list[ViewerEvent]:
    """Of eight viewers; some ids come again, some viewers stay away for longer than they are remembered."""
    events = []
    for n in range(count):
        kind = chance.choice(["play", "complete", "like", "click", "impression", "ping", "hide"])
        items = tuple(f"i{i}" for i in chance.sample(range(9), 3))
        about = {"items": items, "attention": (1.0, 0.5, 0.2), "placement": "cn-tv-home"}
        about |= {"context": {"seed": n, "features": "AAAA", "targets": {"cn/a": [round(n / 7, 3), 1.7, n % 3]}}}
        about = about if kind == "impression" else {"item_id": items[0], "position_s": 3.0}
        events.append(
            ViewerEvent(
                id=f"e{n if chance.random() < 0.9 else n // 2}",
                kind=kind,
                viewer_id=f"viewer-{int(chance.paretovariate(0.9)) % 8}",
                at=LANDMARK + round(n / count * 100_000.0, 3),
                region="cn.zj",
                **about,
            )
        )
    return events


def published(stream: MemoryStream | SqliteStream, events: Sequence[ViewerEvent], topic: str = TOPIC) -> None:
    stream.publish(topic, [Record(event.viewer_id, encode(event)) for event in events])


def worker(stream: MemoryStream, online: OnlineStore, log: EventLog, batch: int = 17) -> Worker:
    return Worker(stream, online, log, topic=TOPIC, group="g", viewer_ttl_s=TTL_S, batch=batch)


def folded(stream: MemoryStream, online: OnlineStore, log: EventLog, batch: int = 17) -> None:
    with closing(worker(stream, online, log, batch)) as one:
        while one.step(wait_s=0):
            pass


def dump(store: OnlineStore) -> dict[str, bytes]:
    return {key: raw for key, raw in store.scan("") if not key.startswith((ERASURES, LOG_EPOCHS))}


@settings(
    max_examples=8,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.generate],  # each example opens databases: shrinking takes minutes
)
@given(st.integers(0, 10**6), st.booleans(), st.booleans())
def test_a_rebuilt_store_has_the_bytes_of_the_one_it_replaces(
    tmp_path_factory: pytest.TempPathFactory, seed: int, from_parquet: bool, compacted: bool
) -> None:
    chance = random.Random(seed)
    stream, online, log = MemoryStream(partitions=3), MemoryStore(), EventLog(tmp_path_factory.mktemp("events"))
    published(stream, happened(chance, 150))
    stream.publish(TOPIC, [Record("viewer-1", b"rubbish")])
    folded(stream, online, log, chance.choice([7, 40]))
    expected = dump(online)
    if compacted:
        compact(log)
    if from_parquet:
        sources = from_log(log)
    else:
        log = EventLog(tmp_path_factory.mktemp("lost"))  # the Parquet files are lost as well
        unreadable: list[object] = []
        sources = from_stream(stream, log, TOPIC, unreadable.append)
    online.put({viewer_key("stray"): b"?", "other:key": b"kept"})
    assert rebuild(worker(stream, online, log), online, sources, LANDMARK, TTL_S) == 150
    assert dump(online) == expected | {"other:key": b"kept", REBUILD_STARTED: repr(LANDMARK).encode()}
    assert len({(p.source, p.offset) for source in log.sources() for p in log.by_offset(source)}) == 150
    now = END + TTL_S / 2
    assert rebuild(worker(stream, online, log), online, from_log(log), now, TTL_S) == 150
    assert {key for key in expected if key not in dump(online)} == {
        viewer_key(viewer)
        for viewer in {p.event.viewer_id for p in log.replay()}
        if now - max(p.event.at for p in log.replay() if p.event.viewer_id == viewer) > TTL_S
    }


@settings(
    max_examples=8,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.generate],
)
@given(st.integers(0, 10**6), st.integers(0, 120), st.booleans())
def test_an_erased_viewer_comes_back_from_nowhere_and_takes_nobody_along(
    tmp_path_factory: pytest.TempPathFactory, seed: int, before: int, compacted: bool
) -> None:
    """Erased when some of the events are folded and others still wait in the stream."""
    chance, home = random.Random(seed), tmp_path_factory.mktemp("events")
    stream, online, log = MemoryStream(partitions=3), MemoryStore(), EventLog(home)
    others, everything = MemoryStore(), happened(chance, 120)
    published(stream, everything[:before])
    folded(stream, online, log)
    if compacted:
        compact(log)
    published(stream, everything[before:])
    erase_viewer(log, online, "viewer-1", END)
    folded(stream, online, log)
    for store in (online, rebuilt := MemoryStore()):
        if store is rebuilt:
            rebuild(worker(stream, rebuilt, log), rebuilt, from_stream(stream, log, TOPIC, print), END, 1e9)
        assert viewer_key("viewer-1") not in dump(store)
    assert b"viewer-1" not in b"".join(file.read_bytes() for file in home.rglob("*") if file.is_file())
    alone = MemoryStream(partitions=3)
    published(alone, everything)
    folded(alone, others, EventLog(tmp_path_factory.mktemp("others")))
    states = {key: raw for key, raw in dump(others).items() if key.startswith(VIEWERS)}
    states.pop(viewer_key("viewer-1"), None)
    assert {key: raw for key, raw in dump(online).items() if key.startswith(VIEWERS)} == states
    again = ViewerEvent(id="new", kind="play", viewer_id="viewer-1", at=END + 1, item_id="i0")
    published(stream, [again])
    folded(stream, online, log)
    state = [json.loads(line) for line in export_viewer(log, online, "viewer-1")]
    assert [one["event"]["id"] for one in state[1:]] == ["new"]  # a stranger, from the beginning
    assert state[0]["state"]["counts"] == {"play": 1}


def test_an_export_holds_what_was_set_aside_of_the_viewer_and_of_nobody_else(tmp_path: Path) -> None:
    stream, online, log = MemoryStream(partitions=2), MemoryStore(), EventLog(tmp_path)
    early, other = (
        ViewerEvent(id=id, kind="play", viewer_id=viewer, at=LANDMARK, client_at=LANDMARK + 9e6, item_id="i0")
        for id, viewer in (("e", "viewer-1"), ("o", "viewer-2"))
    )
    stream.publish(TOPIC, [Record(one.viewer_id, encode(one)) for one in (early, other)] + [Record("viewer-1", b"?")])
    folded(stream, online, log)
    lines = [json.loads(line) for line in export_viewer(log, online, "viewer-1", stream=stream, topic=TOPIC)]
    assert sorted(b64decode(line["dead_letter"]["raw"]) for line in lines[1:]) == sorted([encode(early), b"?"])
    erase_viewer(log, online, "viewer-1", END, stream=stream, topic=TOPIC)
    assert len([*export_viewer(log, online, "viewer-1", stream=stream, topic=TOPIC)]) == 1


class Racing(MemoryStore):
    """A store in which a viewer is erased between two of a worker's calls."""

    def __init__(self, log: EventLog, after: int) -> None:
        super().__init__()
        self._log, self._after, self.erased = log, after, False

    def _tick(self) -> None:
        self._after -= 1
        if self._after == 0:
            self.erased = True
            erase_viewer(self._log, self, "viewer-1", END)

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        found = super().get(keys)
        self._tick()
        return found

    def swap(self, entries: Mapping[str, CasEntry], ttl_s: float | None = None) -> list[str]:
        self._tick()
        return super().compare_and_set(entries, ttl_s)


@pytest.mark.parametrize("after", range(1, 18, 2))
def test_whenever_a_viewer_is_erased_beside_a_worker_nothing_is_left(tmp_path: Path, after: int) -> None:
    stream, log = MemoryStream(partitions=1), EventLog(tmp_path)
    online = Racing(log, after)
    published(stream, happened(random.Random(after), 60))
    one = worker(stream, online, log, batch=20)
    while True:
        try:
            if not one.step(wait_s=0):
                break
        except Unavailable:
            one.close()
    assert online.erased
    assert viewer_key("viewer-1") not in dump(online)
    assert b"viewer-1" not in b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


def test_a_worker_that_died_after_writing_an_erased_viewer_is_cleared_up_after(tmp_path: Path) -> None:
    stream, online, log = MemoryStream(partitions=1), MemoryStore(), EventLog(tmp_path)
    event = ViewerEvent(id="e", kind="play", viewer_id="viewer-1", at=LANDMARK, item_id="i0")
    published(stream, [event])
    worker(stream, online, log).refold([LoggedEvent(f"{TOPIC}/0", 0, event)])  # written, not committed
    late = dump(online)
    erase_viewer(log, online, "viewer-1", END)
    online.put(late)
    folded(stream, online, log)
    assert viewer_key("viewer-1") not in dump(online)


def test_no_byte_of_an_erased_viewer_is_left_in_the_embedded_store(tmp_path: Path) -> None:
    stream, log = MemoryStream(partitions=2), EventLog(tmp_path / "events")
    published(stream, happened(random.Random(3), 400))
    with closing(SqliteStore(f"{tmp_path}/online.db")) as online:
        folded(stream, online, log, batch=30)
        with closing(SqliteStore(f"{tmp_path}/online.db")) as elsewhere:
            erase_viewer(log, elsewhere, "viewer-1", END)
        files = [file for file in tmp_path.rglob("*") if file.is_file()]
        assert not [file for file in files if b"viewer-1" in file.read_bytes()]
        assert [file for file in files if b"viewer-2" in file.read_bytes()]


def test_each_difference_is_named(tmp_path: Path) -> None:
    stream, online, log = MemoryStream(partitions=1), MemoryStore(), EventLog(tmp_path)
    published(stream, happened(random.Random(5), 80))
    folded(stream, online, log)
    replay = MemoryStore()
    replay.put(dump(online))
    assert list(find_differences(online, replay, END, TTL_S)) == []
    one, two = sorted(
        key for key in dump(online) if key.startswith(VIEWERS)
    )[:2]  # fmt: skip
    online.put({one: dump(online)[two], viewer_key("stray"): b"?"})
    replay.put({"item:{new}:t/0": b"?"})
    found = dict(find_differences(online, replay, END, TTL_S))
    assert found.pop(one).startswith("differs in viewer_id, recent")
    assert found == {viewer_key("stray"): "is not in the replay", "item:{new}:t/0": "is missing online"}


def test_traffic_of_long_ago_is_missed_by_nobody(tmp_path: Path) -> None:
    stream, online, log = MemoryStream(partitions=1), MemoryStore(), EventLog(tmp_path)
    published(stream, happened(random.Random(6), 80))
    folded(stream, online, log)
    later = END + TRAFFIC_TTL_S + DAY_S
    with_traffic, replay = dump(online), MemoryStore()
    replay.put(with_traffic)
    expire_idle(replay, later, TTL_S)
    assert any(key.startswith(TRAFFIC) for key in with_traffic)
    assert not any(key.startswith(TRAFFIC) for key in dump(replay))
    for kept in (with_traffic, {key: raw for key, raw in with_traffic.items() if not key.startswith(TRAFFIC)}):
        store = MemoryStore()
        store.put(kept)
        assert list(find_differences(store, replay, later, TTL_S)) == []


@pytest.fixture
def home(tmp_path: Path) -> str:
    stream = SqliteStream(f"{tmp_path}/stream.db", 2)
    published(stream, happened(random.Random(9), 100), "viewer-events")
    stream.close()
    assert main(["--home", str(tmp_path), "--until-idle", "0", "--viewer-ttl-days", "100000"]) == 0
    return str(tmp_path)


def test_the_commands_keep_and_forget(home: str, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*command: str) -> tuple[int, str]:
        capsys.readouterr()
        code = main(["--home", home, "--viewer-ttl-days", "100000", *command])
        return code, capsys.readouterr().out

    assert said("verify")[0] == 0
    assert said("compact") == (0, "2 files became 2\n")  # two partitions, two days
    code, lines = said("export", "viewer-1")
    assert code == 0
    assert {json.loads(line)["event"]["subject"] for line in lines.splitlines()[1:]} == {"viewer-1"}
    assert said("rebuild")[1].startswith("rebuilt from 100 events of the log in ")
    assert said("verify") == (0, "0 differences against 100 events of the log\n")
    code, told = said("erase", "viewer-1")
    assert code == 0
    assert told == f"erased the state and {len(lines.splitlines()) - 1} events; 2 files of the log were written anew\n"
    assert said("export", "viewer-1") == (0, '{"state":null}\n')
    assert said("rebuild", "--from", "stream")[0] == 0
    assert said("verify")[0] == 0
    with closing(SqliteStore(f"{home}/online.db")) as online:
        assert viewer_key("viewer-1") not in dump(online)
        online.put({viewer_key("viewer-2"): b"?"})
    code, told = said("verify")
    assert code == 1
    assert told.startswith("viewer:{viewer-2}\tstate of version 3f")
    Path(home, "events", FILE_NAME).unlink()  # the log has lost its erasures, the store has not
    assert said("rebuild", "--from", "stream")[0] == 0
    assert said("export", "viewer-1") == (0, '{"state":null}\n')


def test_an_erasure_excuses_items_until_the_next_rebuild_and_no_longer(
    home: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*command: str) -> tuple[int, str]:
        capsys.readouterr()
        return main(["--home", home, "--viewer-ttl-days", "100000", *command]), capsys.readouterr().out

    def spoil() -> None:
        with closing(SqliteStore(f"{home}/online.db")) as online:
            key, raw = next(iter(sorted(online.scan(ITEMS))))
            online.put({key: encode_item(msgspec.structs.replace(decode_item(raw), visits=1e9))})

    spoil()
    code, told = said("verify")
    assert code == 1, "nobody was erased"
    assert "not judged" not in told
    assert said("erase", "nobody-here")[0] == 0
    assert said("verify")[0] == 1, "who never was has added nothing"
    assert said("rebuild")[0] == 0
    assert said("erase", "viewer-1")[0] == 0
    assert said("erase", "nobody-here")[0] == 0
    assert said("erase", "viewer-1")[0] == 0, "said again, when nothing is held any more"
    code, told = said("verify")
    assert code == EXIT_INCONCLUSIVE, told
    assert "not judged, since they may hold what 1 viewers added who were erased after the last rebuild" in told
    assert said("rebuild")[0] == 0
    assert said("verify")[0] == 0
    spoil()
    assert said("verify")[0] == 1, "the erasure was before the rebuild: it explains nothing"


@pytest.mark.parametrize("command", [["export", "viewer-1"], ["verify"]])
def test_a_reader_who_has_had_enough_ends_a_command_without_a_word(home: str, command: list[str]) -> None:
    asked = [sys.executable, "-m", "features.worker.main", "--home", home, *command]
    with subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == UNHEARD


def test_the_stream_lets_go_of_what_is_old_and_of_the_erased(home: str, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*command: str) -> tuple[int, str]:
        capsys.readouterr()
        return main(["--home", home, "--viewer-ttl-days", "100000", *command]), capsys.readouterr().out

    topic = "viewer-events"
    with closing(SqliteStream(f"{home}/stream.db", 2)) as stream:
        stream.publish(topic, [Record("viewer-1", b"poison"), Record("viewer-2", b"poison")])
        assert main(["--home", home, "--until-idle", "0", "--viewer-ttl-days", "100000"]) == 0
        stream.publish(topic, [Record("viewer-1", encode(happened(random.Random(1), 1)[0]))])  # waits
        assert DeadLetterCounter(stream, topic).refresh() == 2
        code, told = said("erase", "viewer-1")
        assert code == 0
        assert "1 messages of the viewer stay in the stream until these groups have passed them: features (1 m" in told
        for name, left in ((topic, 1), (dead_topic(topic), 0)):
            kept = [m for p in range(2) for m in stream.read(name, p, 0, 1000) if m.key == "viewer-1"]
            assert len(kept) == left
        assert main(["--home", home, "--until-idle", "0", "--viewer-ttl-days", "100000"]) == 0
        assert said("erase", "viewer-1")[1].count("\n") == 1
        apply_retention(stream, Settings(home=home, stream_days=1), time.time() + 3 * DAY_S)
        assert [stream.read(name, p, 0, 1000) for p in range(2) for name in (topic, dead_topic(topic))] == [[]] * 4
        assert DeadLetterCounter(stream, topic).refresh() == 0
    code, told = said("verify")
    assert code == EXIT_INCONCLUSIVE, told
    code, told = said("rebuild", "--from", "stream")
    assert code == 0
    assert f"{topic}/0 begins at " in told
    assert "rebuild --from log" in told
    assert said("rebuild")[0] == 0
    assert said("verify")[0] == 0
