"""A step of the worker looks for no circles of objects, and leaves the search as it found it."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from features.events.stream.memory import MemoryStream
from features.history.event_log import EventLog
from features.state.keys import LOG_EPOCHS
from features.state.online.memory import MemoryStore
from features.state.online.port import CasEntry
from features.worker.worker import Worker
from tests.features.worker.test_worker import TOPIC, Crash, FragileStore, Fuse, played


def test_circles_are_looked_for_again_after_a_step_also_after_one_that_failed(tmp_path: Any) -> None:
    stream = MemoryStream(partitions=1)
    stream.publish(TOPIC, [played("e1"), played("e2")])
    searching: list[bool] = []

    class Watching(MemoryStore):
        def compare_and_set(self, entries: Mapping[str, CasEntry], ttl_s: float | None = None) -> list[str]:
            if not any(key.startswith(LOG_EPOCHS) for key in entries):  # noted when a log is joined, before the step
                searching.append(gc.isenabled())
            return super().compare_and_set(entries, ttl_s)

    for store in (FragileStore(Watching(), Fuse(2)), Watching()):
        worker = Worker(stream, store, EventLog(tmp_path), topic=TOPIC, group="g", batch=1)
        with suppress(Crash):
            worker.step(wait_s=0)
        worker.close()
        assert gc.isenabled()
    assert searching
    assert not any(searching)
    gc.disable()
    try:
        Worker(stream, MemoryStore(), EventLog(tmp_path), topic=TOPIC, group="g", batch=1).step(wait_s=0)
        assert not gc.isenabled(), "who had switched it off wants it off"
    finally:
        gc.enable()
