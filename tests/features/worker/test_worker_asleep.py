"""A worker that slept through the loss of its partitions (SIGSTOP, a paused machine) undoes nothing on waking up."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from threading import Event
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.events.stream.memory import MemoryStream
from features.events.stream.port import Record
from features.history.event_log import EventLog
from features.state.codec import decode_viewer, viewer_key
from features.state.online.memory import MemoryStore
from features.state.online.port import OnlineStore
from features.worker.worker import Worker
from tests.features.worker.test_worker import TOPIC, Fuse, held, played, replayed, sent


@pytest.fixture(scope="module", autouse=True)
def _a_fast_disk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("os.fsync", lambda handle: None)
        yield


class SleepyStore:
    """A store whose process sleeps before its n-th read or write, while `meanwhile` happens."""

    def __init__(self, store: OnlineStore, fuse: Fuse, meanwhile: Callable[[], None]) -> None:
        self._store, self._fuse, self._meanwhile = store, fuse, meanwhile

    def __getattr__(self, name: str) -> Any:
        if name in ("get", "compare_and_set", "put") and self._fuse.burn():
            self._meanwhile()
        return getattr(self._store, name)


@settings(max_examples=60, deadline=None)
@given(sent(), sent(), st.integers(0, 14), st.integers(1, 30), st.integers(1, 30))
def test_a_worker_that_slept_while_another_went_on_undoes_nothing(
    before: list[Record], after: list[Record], asleep_at: int, batch: int, others: int
) -> None:
    """It sleeps before any of its reads and writes; the other one folds the same messages, and more, to the end."""
    stream, store = MemoryStream(partitions=2), MemoryStore()
    stream.publish(TOPIC, before)
    slept = Event()

    def meanwhile() -> None:
        slept.set()
        stream.publish(TOPIC, after)
        other = Worker(stream, store, EventLog(directory), topic=TOPIC, group="the same partitions", batch=others)
        while other.step(wait_s=0):
            pass

    with tempfile.TemporaryDirectory() as directory:
        sleepy = SleepyStore(store, Fuse(asleep_at), meanwhile)
        worker = Worker(stream, sleepy, EventLog(directory), topic=TOPIC, group="g", batch=batch)
        while not slept.is_set() and worker.step(wait_s=0):
            pass  # after the step in which it slept, the log refuses its commit
        assert held(store) == replayed(stream)


def test_an_erased_viewer_does_not_come_back_by_a_worker_that_slept(tmp_path: Any) -> None:
    stream, store = MemoryStream(partitions=1), MemoryStore()
    log = EventLog(tmp_path)
    worker = Worker(stream, store, log, topic=TOPIC, group="g")
    stream.publish(TOPIC, [played("e1"), played("e2")])
    worker.step(wait_s=0)
    worker.close()
    for asleep_at in (2, 3, 4, 5, 6):  # after it has read the viewer
        stream.publish(TOPIC, [played(f"later{asleep_at}")])
        sleepy = SleepyStore(store, Fuse(asleep_at), lambda: store.delete([viewer_key("v")]))
        worker = Worker(stream, sleepy, log, topic=TOPIC, group="g")
        worker.step(wait_s=0)
        worker.close()
        raw = store.get([viewer_key("v")])[0]
        assert raw is not None
        assert decode_viewer(raw).counts == {"play": 1}
