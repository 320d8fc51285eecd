"""Compaction and erasure rewrite the log under its readers: what can be read stays the same, wherever they stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from features.events.decode import ViewerEvent
from features.history import compaction as module
from features.history import files
from features.history.compaction import CompactionResult, compact, purge
from features.history.erasures import FILE_NAME, ErasureList, viewer_hash
from features.history.event_log import REWRITING, WRITING, EventLog
from features.state.fold import LoggedEvent
from features.state.online.memory import MemoryStore

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
    """Logs of two sources over four days, with repeats, redelivered ranges, batches over midnight and late events."""

    def make(data: st.DataObject) -> EventLog:
        log = EventLog(tmp_path_factory.mktemp("events"))
        for partition in range(2):
            source = f"t/{partition}"
            placed = [
                LoggedEvent(
                    source, offset, _event(f"e{data.draw(st.integers(0, offset))}", f"viewer-{partition}-{who}", at)
                )
                for offset, (who, at) in enumerate(
                    data.draw(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 15)), max_size=10))
                )
            ]
            position = 0
            while position < len(placed):
                again = data.draw(st.integers(0, position))
                position = data.draw(st.integers(position + 1, len(placed)))
                log.append(source, again, position - 1, placed[again:position])
        return log

    return make


def _event(id: str, viewer: str, quarter: int) -> ViewerEvent:
    return ViewerEvent(id=id, kind="play", viewer_id=viewer, at=START + quarter * DAY_S / 4, item_id="a")


def told(log: EventLog) -> tuple[list[LoggedEvent], list[list[LoggedEvent]]]:
    return list(log.replay()), [list(log.by_offset(source)) for source in log.sources()]


class Stopped(Exception):
    """The process ends here."""


@contextmanager
def stopped_at(step: int) -> Iterator[None]:
    """The compaction dies at its step number `step`: before a file is written, renamed or taken away."""
    left = [step]

    def fragile(real: Callable[..., Any]) -> Callable[..., Any]:
        def dying(*said: Any, **more: Any) -> Any:
            if left[0] == 0:
                raise Stopped
            left[0] -= 1
            return real(*said, **more)

        return dying

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(files, "write", fragile(files.write))
        patched.setattr(files, "sync", fragile(files.sync))
        patched.setattr(module, "_fill", fragile(module._write_day))
        patched.setattr(Path, "unlink", fragile(Path.unlink))
        with suppress(Stopped):
            yield


@settings(
    max_examples=12,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.generate],  # each example opens a database several times: shrinking takes minutes
)
@given(st.data(), st.integers(0, 25))
def test_a_compaction_stopped_anywhere_changes_nothing_that_is_read(
    make_log: MakeLog, data: st.DataObject, step: int
) -> None:
    log = make_log(data)
    before = told(log)
    with stopped_at(step):
        compact(log)
    assert told(log) == before
    compact(log)
    assert told(log) == before
    names = [Path(name) for name in log.files()]
    assert len(names) == len({name.parent for name in names})  # one file a day
    for name in names:
        assert name.stem.rpartition(files.UNTIL)[2] == name.parent.name.removeprefix("day=")
    assert compact(log) == CompactionResult()


@settings(
    max_examples=12,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.generate],  # each example opens a database several times: shrinking takes minutes
)
@given(st.data(), st.integers(0, 15), st.booleans())
def test_an_erased_viewer_is_in_no_byte_of_the_log_and_others_are_as_they_were(
    make_log: MakeLog, data: st.DataObject, quarter: int, compacted: bool
) -> None:
    log = make_log(data)
    if compacted:
        compact(log)
    places = told(log)[1]
    at, viewer = START + quarter * DAY_S / 4, "viewer-0-1"
    left = [[p for p in one if p.event.viewer_id != viewer or p.event.at > at] for one in places]
    log.erasures.add(viewer_hash(viewer), at)
    assert told(log)[1] == [one for one in left if one]  # at once, before any file is written anew
    purge(log, viewer)
    assert told(log)[1] == [one for one in left if one]
    later = any(p.event.viewer_id == viewer for one in left for p in one)
    if not later:
        assert not [
            file for file in log.directory.rglob("*") if file.is_file() and viewer.encode() in file.read_bytes()
        ]
    for one in places:
        log.append(one[0].source, 0, 99, one)  # redelivered by the stream
    assert told(log)[1] == [one for one in left if one]
    assert later or viewer.encode() not in b"".join(f.read_bytes() for f in log.directory.rglob("*.parquet"))


def test_a_reader_finds_in_its_new_place_what_was_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = EventLog(tmp_path)
    for n in range(5):
        log.append("t/0", n, n, [LoggedEvent("t/0", n, _event(f"e{n}", "v", n))])
    listed, meanwhile = files.list_files, [True]

    def and_then_compacted(*said: Any) -> list[str]:
        found = listed(*said)
        if meanwhile.pop() if meanwhile else False:
            compact(log)
        return found

    monkeypatch.setattr(files, "listed", and_then_compacted)
    assert [one.event.id for one in log.replay()] == [f"e{n}" for n in range(5)]
    assert not meanwhile


@pytest.mark.parametrize("which", range(4))
def test_a_listing_that_missed_both_old_and_new_is_taken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: int
) -> None:
    """A directory that changes while it is read may show neither the parts nor the whole: at whichever reading."""
    log = EventLog(tmp_path)
    for n in range(4):  # of two days
        log.append("t/0", n, n, [LoggedEvent("t/0", n, _event(f"e{n}", "v", 4 * (n % 2)))])
    look, readings = files._scan, [0]

    def overtaken(*said: Any) -> set[str]:
        readings[0] += 1
        before = look(*said)
        if readings[0] - 1 == which:
            compact(log)
            return before & look(*said)  # what went away is not seen any more, what came is not seen yet
        return before

    monkeypatch.setattr(files, "_look", overtaken)
    for _ in range(2):
        assert sorted(one.event.id for one in log.replay()) == [f"e{n}" for n in range(4)]
    assert readings[0] > which


def test_one_works_at_a_time_and_an_erasure_waits_for_who_is_writing(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    log.append("t/0", 0, 0, [LoggedEvent("t/0", 0, _event("e", "v", 0))])
    with files.locked(tmp_path, REWRITING):
        assert compact(log).busy
    log.erasures.add(viewer_hash("v"), START + DAY_S)
    with files.locked(tmp_path, WRITING, shared=True):  # a worker in the middle of a file
        eraser = threading.Thread(target=purge, args=(log, "v"))
        eraser.start()
        eraser.join(0.2)
        assert eraser.is_alive()
        draft = next(tmp_path.glob("day=*")) / f".left-by-a-dead-writer{files.DRAFT}"
        draft.write_bytes(b"v")
    eraser.join()
    assert not draft.exists()
    assert log.files() == []


def test_erasures_survive_the_loss_of_either_copy_and_a_torn_line(tmp_path: Path) -> None:
    here, online = ErasureList(tmp_path), MemoryStore()
    here.add(viewer_hash("v"), 5.0)
    here.add(viewer_hash("v"), 3.0)
    with (tmp_path / FILE_NAME).open("ab") as file:
        file.write(b'{"who": "torn')
    here.add(viewer_hash("v"), 5.5, held=False)
    here.add(viewer_hash("w"), 4.0)
    here.add(viewer_hash("x"), 4.5, held=False)
    known = {viewer_hash("v"): 5.5, viewer_hash("w"): 4.0, viewer_hash("x"): 4.5}
    assert here.all() == known
    assert here.with_data() == {viewer_hash("v"): 5.0, viewer_hash("w"): 4.0}
    here.sync_with(online)
    (tmp_path / FILE_NAME).unlink()
    assert here.all() == {}
    again = ErasureList(tmp_path)
    again.sync_with(online)
    assert again.all() == known
    assert again.with_data().keys() == {viewer_hash("v"), viewer_hash("w")}
    again.sync_with(other := MemoryStore())
    assert dict(other.scan("")) == dict(online.scan(""))
