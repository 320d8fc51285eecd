"""A worker that runs while the online store is made anew waits, and nothing is missing from the store afterwards."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.cli import main
from features.events.stream.memory import MemoryStream
from features.events.stream.port import Record
from features.history.event_log import EventLog
from features.state.fold import LoggedEvent
from features.state.keys import UNFINISHED, VIEWERS
from features.state.online.memory import MemoryStore
from features.state.online.port import CasEntry, OnlineStore
from features.state.online.sqlite import SqliteStore
from features.worker.rebuild import from_log, rebuild
from features.worker.worker import Worker
from recsys.domain.errors import Unavailable
from recsys.domain.viewer import LANDMARK
from tests.features.worker.test_worker import TOPIC, Fuse, held, played, replayed, sent
from tests.features.worker.test_worker_asleep import SleepyStore

YEAR_S = 3.2e7
PATIENCE_S = 30.0


@pytest.fixture(scope="module", autouse=True)
def _a_fast_disk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("os.fsync", lambda handle: None)
        yield


class PausedStore(SleepyStore):
    """Pauses before the n-th read or write, but for that of viewers (`features.worker.rebuild_fence` says why)."""

    def swap(self, entries: Mapping[str, CasEntry], ttl_s: float | None = None) -> list[str]:
        swap = self._store.swap if all(key.startswith(VIEWERS) for key in entries) else self.__getattr__("swap")
        return swap(entries, ttl_s)  # type: ignore[no-any-return]


class PausedLog(EventLog):
    """The same before and after it is written to."""

    fuse = Fuse(-1)
    pause: Callable[[], None]

    def append(self, source: str, first: int, last: int, placed: Sequence[LoggedEvent]) -> None:
        if self.fuse.burn():
            self.pause()
        super().append(source, first, last, placed)
        if self.fuse.burn():
            self.pause()


def folded(stream: MemoryStream, store: OnlineStore, log: EventLog) -> None:
    """Everything, by a worker that nobody disturbs."""
    worker = Worker(stream, store, log, topic=TOPIC, group="g")
    while worker.step(wait_s=0):
        pass
    worker.close()


@settings(max_examples=150, deadline=None)
@given(sent(), sent(), st.integers(0, 16), st.sampled_from(["it was wiped", "the log was read", "all is done"]))
def test_whenever_a_rebuild_begins_and_however_far_it_gets_nothing_is_missing(
    before: list[Record], after: list[Record], paused_at: int, until: str
) -> None:
    """The worker pauses anywhere in its step, a rebuild begins, and the worker goes on after one of its stages."""
    stream, store = MemoryStream(partitions=2), MemoryStore()
    paused, go_on, stepped = threading.Event(), threading.Event(), threading.Event()

    def pause() -> None:
        paused.set()
        assert go_on.wait(PATIENCE_S)

    def sources() -> Iterator[Iterator[LoggedEvent]]:
        if until == "it was wiped":
            go_on.set()
            assert stepped.wait(PATIENCE_S)
        had = [list(source) for source in from_log(log)]
        if until == "the log was read":
            go_on.set()
            assert stepped.wait(PATIENCE_S)
        yield from map(iter, had)

    with tempfile.TemporaryDirectory() as directory:
        log, theirs = EventLog(directory), PausedLog(directory)
        stream.publish(TOPIC, before)
        folded(stream, store, log)
        stream.publish(TOPIC, after)
        theirs.fuse, theirs.pause = Fuse(paused_at), pause  # type: ignore[method-assign]
        worker = Worker(stream, PausedStore(store, theirs.fuse, pause), theirs, topic=TOPIC, group="g")

        def step() -> None:
            with suppress(Unavailable):
                worker.step(wait_s=0)
            worker.close()
            stepped.set()
            paused.set()

        running = threading.Thread(target=step)
        running.start()
        assert paused.wait(PATIENCE_S)
        if not stepped.is_set():
            again = Worker(stream, store, log, topic=TOPIC, group="none")
            rebuild(again, store, sources(), LANDMARK, YEAR_S)
        go_on.set()
        running.join(PATIENCE_S)
        assert stepped.is_set()
        folded(stream, store, EventLog(directory))
        assert held(store) == replayed(stream)


def test_a_source_that_begins_right_before_a_rebuild_is_in_it(tmp_path: Any) -> None:
    stream, store, log = MemoryStream(partitions=1), MemoryStore(), EventLog(tmp_path)
    sources = from_log(log)
    stream.publish(TOPIC, [played("e1")])
    folded(stream, store, log)
    again = Worker(stream, store, log, topic=TOPIC, group="none")
    assert rebuild(again, store, sources, LANDMARK, YEAR_S) == 1
    assert held(store) == replayed(stream)


def test_a_worker_waits_as_long_as_the_store_is_made_anew(tmp_path: Any) -> None:
    stream, store, log = MemoryStream(partitions=1), MemoryStore(), EventLog(tmp_path)
    worker = Worker(stream, store, log, topic=TOPIC, group="g")
    stream.publish(TOPIC, [played("e1")])
    store.put({UNFINISHED: b"1"})
    with pytest.raises(Unavailable, match=r"rebuild in progress.*mainstay rebuild"):
        worker.step(wait_s=0)
    worker.close()
    assert stream.committed(TOPIC, "g") == {}
    assert dict(store.scan("viewer:")) == {}
    store.delete([UNFINISHED])
    folded(stream, store, log)
    assert held(store) == replayed(stream)


def test_a_worker_does_not_start_on_half_a_store(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    home = str(tmp_path)
    with closing(SqliteStore(f"{home}/online.db")) as online:
        online.put({UNFINISHED: b"1"})
    assert main(["worker", "--home", home, "--until-idle", "0"]) == 1
    assert "mainstay rebuild" in capsys.readouterr().err
    assert main(["rebuild", "--home", home]) == 0
    assert main(["worker", "--home", home, "--until-idle", "0"]) == 0
