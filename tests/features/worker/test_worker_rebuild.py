"""A worker that runs during a rebuild of the online store waits, and the rebuilt store lacks nothing."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.events.stream.memory import MemoryStream
from features.events.stream.port import Record
from features.history.event_log import EventLog
from features.state.keys import REBUILD_IN_PROGRESS, VIEWERS
from features.state.online.memory import MemoryStore
from features.state.online.port import CasEntry, OnlineStore
from features.state.online.sqlite import SqliteStore
from features.state.votes import LoggedEvent
from features.worker.main import main
from features.worker.rebuild import from_log, rebuild
from features.worker.worker import Worker
from recsys.domain.decay import LANDMARK
from recsys.domain.errors import Unavailable
from tests.features.worker.test_worker import TOPIC, Fuse, event_records, expected_contents, play_record, store_contents
from tests.features.worker.test_worker_asleep import SuspendingStore

YEAR_S = 3.2e7
TIMEOUT_S = 30.0


@pytest.fixture(scope="module", autouse=True)
def _no_fsync() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("os.fsync", lambda handle: None)
        yield


class PausedStore(SuspendingStore):
    """A store that pauses before the n-th read or write, except for writes of viewers (see `rebuild_fence`)."""

    def compare_and_set(self, entries: Mapping[str, CasEntry], ttl_s: float | None = None) -> list[str]:
        write = (
            self._store.compare_and_set
            if all(key.startswith(VIEWERS) for key in entries)
            else self.__getattr__("compare_and_set")
        )
        return write(entries, ttl_s)  # type: ignore[no-any-return]


class PausedLog(EventLog):
    """An event log that pauses before or after an append."""

    fuse = Fuse(-1)
    pause: Callable[[], None]

    def append(self, source: str, first: int, last: int, placed: Sequence[LoggedEvent]) -> None:
        if self.fuse.trip():
            self.pause()
        super().append(source, first, last, placed)
        if self.fuse.trip():
            self.pause()


def run_worker(stream: MemoryStream, store: OnlineStore, log: EventLog) -> None:
    """Fold everything by an undisturbed worker."""
    worker = Worker(stream, store, log, topic=TOPIC, group="g")
    while worker.step(wait_s=0):
        pass
    worker.close()


@settings(max_examples=150, deadline=None)
@given(
    event_records(),
    event_records(),
    st.integers(0, 16),
    st.sampled_from(["store wiped", "log read", "rebuild finished"]),
)
def test_nothing_is_lost_whenever_a_rebuild_begins_and_the_worker_resumes(
    before: list[Record], after: list[Record], pause_at: int, until: str
) -> None:
    """The worker pauses anywhere in its step, a rebuild begins, and the worker resumes after one of its stages."""
    stream, store = MemoryStream(partitions=2), MemoryStore()
    paused, resume, stepped = threading.Event(), threading.Event(), threading.Event()

    def pause() -> None:
        paused.set()
        assert resume.wait(TIMEOUT_S)

    def sources() -> Iterator[Iterator[LoggedEvent]]:
        if until == "store wiped":
            resume.set()
            assert stepped.wait(TIMEOUT_S)
        sources_read = [list(source) for source in from_log(log)]
        if until == "log read":
            resume.set()
            assert stepped.wait(TIMEOUT_S)
        yield from map(iter, sources_read)

    with tempfile.TemporaryDirectory() as directory:
        log, paused_log = EventLog(directory), PausedLog(directory)
        stream.publish(TOPIC, before)
        run_worker(stream, store, log)
        stream.publish(TOPIC, after)
        paused_log.fuse, paused_log.pause = Fuse(pause_at), pause  # type: ignore[method-assign]
        worker = Worker(stream, PausedStore(store, paused_log.fuse, pause), paused_log, topic=TOPIC, group="g")

        def step() -> None:
            with suppress(Unavailable):
                worker.step(wait_s=0)
            worker.close()
            stepped.set()
            paused.set()

        running = threading.Thread(target=step)
        running.start()
        assert paused.wait(TIMEOUT_S)
        if not stepped.is_set():
            rebuilder = Worker(stream, store, log, topic=TOPIC, group="none")
            rebuild(rebuilder, store, sources(), LANDMARK, YEAR_S)
        resume.set()
        running.join(TIMEOUT_S)
        assert stepped.is_set()
        run_worker(stream, store, EventLog(directory))
        assert store_contents(store) == expected_contents(stream)


def test_a_rebuild_includes_a_source_that_began_right_before_it(tmp_path: Any) -> None:
    stream, store, log = MemoryStream(partitions=1), MemoryStore(), EventLog(tmp_path)
    sources = from_log(log)
    stream.publish(TOPIC, [play_record("e1")])
    run_worker(stream, store, log)
    rebuilder = Worker(stream, store, log, topic=TOPIC, group="none")
    assert rebuild(rebuilder, store, sources, LANDMARK, YEAR_S) == 1
    assert store_contents(store) == expected_contents(stream)


def test_a_worker_waits_while_a_rebuild_is_in_progress(tmp_path: Any) -> None:
    stream, store, log = MemoryStream(partitions=1), MemoryStore(), EventLog(tmp_path)
    worker = Worker(stream, store, log, topic=TOPIC, group="g")
    stream.publish(TOPIC, [play_record("e1")])
    store.put({REBUILD_IN_PROGRESS: b"1"})
    with pytest.raises(Unavailable, match=r"rebuild in progress.*recsys-worker rebuild"):
        worker.step(wait_s=0)
    worker.close()
    assert stream.committed(TOPIC, "g") == {}
    assert dict(store.scan("viewer:")) == {}
    store.delete([REBUILD_IN_PROGRESS])
    run_worker(stream, store, log)
    assert store_contents(store) == expected_contents(stream)


def test_a_worker_does_not_start_on_a_partially_rebuilt_store(
    tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    home = str(tmp_path)
    with closing(SqliteStore(f"{home}/online.db")) as online:
        online.put({REBUILD_IN_PROGRESS: b"1"})
    assert main(["--home", home, "--until-idle", "0"]) == 1
    assert "recsys-worker rebuild" in capsys.readouterr().err
    assert main(["--home", home, "rebuild"]) == 0
    assert main(["--home", home, "--until-idle", "0"]) == 0
