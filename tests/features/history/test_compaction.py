"""Compaction and erasure rewrite the log under its readers: reads stay the same, wherever a rewrite crashes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from features.events.schema import ViewerEvent
from features.history import compaction as module
from features.history import files
from features.history.compaction import CompactionResult, compact, purge
from features.history.erasures import FILE_NAME, ErasureList, viewer_hash
from features.history.event_log import REWRITING, WRITING, EventLog
from features.state.online.memory import MemoryStore
from features.state.votes import LoggedEvent

DAY_S = 86_400.0
START = 20_000 * DAY_S
MakeLog = Callable[[st.DataObject], EventLog]


@pytest.fixture(scope="module", autouse=True)
def _a_fast_disk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("os.fsync", lambda handle: None)
        yield


@pytest.fixture
def make_log(tmp_path_factory: pytest.TempPathFactory) -> MakeLog:
    """Return a factory of logs: two sources over four days, with duplicates, redeliveries and late events."""

    def make(data: st.DataObject) -> EventLog:
        log = EventLog(tmp_path_factory.mktemp("events"))
        for partition in range(2):
            source = f"t/{partition}"
            logged = [
                LoggedEvent(
                    source, offset, _event(f"e{data.draw(st.integers(0, offset))}", f"viewer-{partition}-{viewer}", at)
                )
                for offset, (viewer, at) in enumerate(
                    data.draw(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 15)), max_size=10))
                )
            ]
            position = 0
            while position < len(logged):
                start = data.draw(st.integers(0, position))
                position = data.draw(st.integers(position + 1, len(logged)))
                log.append(source, start, position - 1, logged[start:position])
        return log

    return make


def _event(id: str, viewer: str, quarter: int) -> ViewerEvent:
    return ViewerEvent(id=id, kind="play", viewer_id=viewer, at=START + quarter * DAY_S / 4, item_id="a")


def contents(log: EventLog) -> tuple[list[LoggedEvent], list[list[LoggedEvent]]]:
    return list(log.replay()), [list(log.by_offset(source)) for source in log.sources()]


def test_an_erasure_takes_as_many_queries_for_many_small_files_as_for_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_connections = {}
    connect = module.duckdb.connect
    for n_files in (2, 60):
        log = EventLog(tmp_path / str(n_files))
        for n in range(n_files):
            events = [LoggedEvent("t/0", 2 * n + v, _event(f"e{n}-{v}", f"v{v}", 0)) for v in range(2)]
            log.append("t/0", 2 * n, 2 * n + 1, events)
        log.erasures.add(viewer_hash("v0"), START + DAY_S)
        counter = Mock(side_effect=connect)
        with monkeypatch.context() as patched:
            patched.setattr(module.duckdb, "connect", counter)
            assert purge(log, "v0") == n_files
        n_connections[n_files] = counter.call_count
        assert {logged.event.viewer_id for logged in log.replay()} == {"v1"}
        assert len(list(log.replay())) == n_files
    assert n_connections[60] == n_connections[2]


class Stopped(Exception):
    """The simulated process crashes."""


@contextmanager
def stopped_at(step: int) -> Iterator[None]:
    """Crash the compaction at step number `step`: before a file is written, synced or deleted."""
    steps_left = [step]

    def fragile(real: Callable[..., Any]) -> Callable[..., Any]:
        def stop_or_run(*args: Any, **kwargs: Any) -> Any:
            if steps_left[0] == 0:
                raise Stopped
            steps_left[0] -= 1
            return real(*args, **kwargs)

        return stop_or_run

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(files, "write", fragile(files.write))
        patched.setattr(files, "sync", fragile(files.sync))
        patched.setattr(module, "_write_day", fragile(module._write_day))
        patched.setattr(Path, "unlink", fragile(Path.unlink))
        with suppress(Stopped):
            yield


@settings(
    max_examples=12,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.generate],  # each example opens a database several times: shrinking takes minutes
)
@given(st.data(), st.integers(0, 25))
def test_a_compaction_that_crashes_anywhere_changes_no_reads(make_log: MakeLog, data: st.DataObject, step: int) -> None:
    log = make_log(data)
    before = contents(log)
    with stopped_at(step):
        compact(log)
    assert contents(log) == before
    compact(log)
    assert contents(log) == before
    names = [Path(name) for name in log.files()]
    assert len(names) == len({name.parent for name in names})  # one file per day
    for name in names:
        assert name.stem.rpartition(files.UNTIL)[2] == name.parent.name.removeprefix("day=")
    assert compact(log) == CompactionResult()


@settings(
    max_examples=12,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.generate],  # each example opens a database several times: shrinking takes minutes
)
@given(st.data(), st.integers(0, 15), st.booleans())
def test_erasure_removes_every_byte_of_a_viewer_and_nothing_else(
    make_log: MakeLog, data: st.DataObject, quarter: int, compacted: bool
) -> None:
    log = make_log(data)
    if compacted:
        compact(log)
    by_source = contents(log)[1]
    at, viewer = START + quarter * DAY_S / 4, "viewer-0-1"
    expected = [
        [logged for logged in events if logged.event.viewer_id != viewer or logged.event.at > at]
        for events in by_source
    ]
    log.erasures.add(viewer_hash(viewer), at)
    assert contents(log)[1] == [events for events in expected if events]  # at once, before any file is rewritten
    purge(log, viewer)
    assert contents(log)[1] == [events for events in expected if events]
    has_later_events = any(logged.event.viewer_id == viewer for events in expected for logged in events)
    if not has_later_events:
        assert not [
            file for file in log.directory.rglob("*") if file.is_file() and viewer.encode() in file.read_bytes()
        ]
    for events in by_source:
        log.append(events[0].source, 0, 99, events)  # redelivered by the stream
    assert contents(log)[1] == [events for events in expected if events]
    assert has_later_events or viewer.encode() not in b"".join(f.read_bytes() for f in log.directory.rglob("*.parquet"))


def test_readers_find_events_that_a_compaction_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = EventLog(tmp_path)
    for n in range(5):
        log.append("t/0", n, n, [LoggedEvent("t/0", n, _event(f"e{n}", "v", n))])
    list_files, pending = files.list_files, [True]

    def list_and_compact(*args: Any) -> list[str]:
        paths = list_files(*args)
        if pending.pop() if pending else False:
            compact(log)
        return paths

    monkeypatch.setattr(files, "list_files", list_and_compact)
    assert [logged.event.id for logged in log.replay()] == [f"e{n}" for n in range(5)]
    assert not pending


@pytest.mark.parametrize("compact_at", range(4))
def test_listing_is_repeated_when_it_misses_a_compacted_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compact_at: int
) -> None:
    """A listing during a compaction may miss both the parts and the merged file; `compact_at` selects the listing."""
    log = EventLog(tmp_path)
    for n in range(4):  # in two days
        log.append("t/0", n, n, [LoggedEvent("t/0", n, _event(f"e{n}", "v", 4 * (n % 2)))])
    scan, n_scans = files._scan, [0]

    def scan_during_compaction(*args: Any) -> set[str]:
        n_scans[0] += 1
        before = scan(*args)
        if n_scans[0] - 1 == compact_at:
            compact(log)
            return before & scan(*args)  # neither deleted nor new files are listed
        return before

    monkeypatch.setattr(files, "_scan", scan_during_compaction)
    for _ in range(2):
        assert sorted(logged.event.id for logged in log.replay()) == [f"e{n}" for n in range(4)]
    assert n_scans[0] > compact_at


def test_compactions_are_exclusive_and_erasure_waits_for_writers(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    log.append("t/0", 0, 0, [LoggedEvent("t/0", 0, _event("e", "v", 0))])
    with files.locked(tmp_path, REWRITING):
        assert compact(log).busy
    log.erasures.add(viewer_hash("v"), START + DAY_S)
    with files.locked(tmp_path, WRITING, shared=True):  # a worker is writing a file
        eraser = threading.Thread(target=purge, args=(log, "v"))
        eraser.start()
        eraser.join(0.2)
        assert eraser.is_alive()
        draft = next(tmp_path.glob("day=*")) / f".left-by-a-crashed-writer{files.DRAFT}"
        draft.write_bytes(b"v")
    eraser.join()
    assert not draft.exists()
    assert log.files() == []


def test_erasures_survive_loss_of_a_copy_and_a_torn_line(tmp_path: Path) -> None:
    erasures, online = ErasureList(tmp_path), MemoryStore()
    erasures.add(viewer_hash("v"), 5.0)
    erasures.add(viewer_hash("v"), 3.0)
    with (tmp_path / FILE_NAME).open("ab") as file:
        file.write(b'{"viewer_hash": "torn')
    erasures.add(viewer_hash("v"), 5.5, had_data=False)
    erasures.add(viewer_hash("w"), 4.0)
    erasures.add(viewer_hash("x"), 4.5, had_data=False)
    expected = {viewer_hash("v"): 5.5, viewer_hash("w"): 4.0, viewer_hash("x"): 4.5}
    assert erasures.all() == expected
    assert erasures.with_data() == {viewer_hash("v"): 5.0, viewer_hash("w"): 4.0}
    erasures.sync_with(online)
    (tmp_path / FILE_NAME).unlink()
    assert erasures.all() == {}
    restored = ErasureList(tmp_path)
    restored.sync_with(online)
    assert restored.all() == expected
    assert restored.with_data().keys() == {viewer_hash("v"), viewer_hash("w")}
    restored.sync_with(empty_store := MemoryStore())
    assert dict(empty_store.scan("")) == dict(online.scan(""))
