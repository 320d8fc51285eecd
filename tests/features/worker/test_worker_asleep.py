"""A worker that was suspended during a rebalance (SIGSTOP, a paused machine) overwrites nothing when it resumes."""

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
from tests.features.worker.test_worker import TOPIC, Fuse, event_records, expected_contents, play_record, store_contents


@pytest.fixture(scope="module", autouse=True)
def _no_fsync() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("os.fsync", lambda handle: None)
        yield


class SuspendingStore:
    """A store that runs `meanwhile` before its n-th read or write, as if the process had been suspended."""

    def __init__(self, store: OnlineStore, fuse: Fuse, meanwhile: Callable[[], None]) -> None:
        self._store, self._fuse, self._meanwhile = store, fuse, meanwhile

    def __getattr__(self, name: str) -> Any:
        if name in ("get", "compare_and_set", "put") and self._fuse.trip():
            self._meanwhile()
        return getattr(self._store, name)


@settings(max_examples=60, deadline=None)
@given(event_records(), event_records(), st.integers(0, 14), st.integers(1, 30), st.integers(1, 30))
def test_a_suspended_worker_does_not_overwrite_what_another_worker_wrote(
    before: list[Record], after: list[Record], suspend_at: int, batch: int, peer_batch: int
) -> None:
    """It is suspended before any of its reads and writes; its peer folds the same messages, and more, to the end."""
    stream, store = MemoryStream(partitions=2), MemoryStore()
    stream.publish(TOPIC, before)
    suspended = Event()

    def meanwhile() -> None:
        suspended.set()
        stream.publish(TOPIC, after)
        peer = Worker(stream, store, EventLog(directory), topic=TOPIC, group="the same partitions", batch=peer_batch)
        while peer.step(wait_s=0):
            pass

    with tempfile.TemporaryDirectory() as directory:
        suspending = SuspendingStore(store, Fuse(suspend_at), meanwhile)
        worker = Worker(stream, suspending, EventLog(directory), topic=TOPIC, group="g", batch=batch)
        while not suspended.is_set() and worker.step(wait_s=0):
            pass  # after the step in which it was suspended, the stream refuses its commit
        assert store_contents(store) == expected_contents(stream)


def test_a_suspended_worker_does_not_restore_an_erased_viewer(tmp_path: Any) -> None:
    stream, store = MemoryStream(partitions=1), MemoryStore()
    log = EventLog(tmp_path)
    worker = Worker(stream, store, log, topic=TOPIC, group="g")
    stream.publish(TOPIC, [play_record("e1"), play_record("e2")])
    worker.step(wait_s=0)
    worker.close()
    for suspend_at in (2, 3, 4, 5, 6):  # after it read the viewer
        stream.publish(TOPIC, [play_record(f"later{suspend_at}")])
        suspending = SuspendingStore(store, Fuse(suspend_at), lambda: store.delete([viewer_key("v")]))
        worker = Worker(stream, suspending, log, topic=TOPIC, group="g")
        worker.step(wait_s=0)
        worker.close()
        raw = store.get([viewer_key("v")])[0]
        assert raw is not None
        assert decode_viewer(raw).counts == {"play": 1}
