"""The garbage collector is paused during a step of the worker and restored to its earlier state afterwards."""

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
from tests.features.worker.test_worker import TOPIC, Crash, FragileStore, Fuse, play_record


def test_gc_is_enabled_again_after_a_step_even_if_the_step_failed(tmp_path: Any) -> None:
    stream = MemoryStream(partitions=1)
    stream.publish(TOPIC, [play_record("e1"), play_record("e2")])
    gc_enabled: list[bool] = []

    class GcRecordingStore(MemoryStore):
        def compare_and_set(self, entries: Mapping[str, CasEntry], ttl_s: float | None = None) -> list[str]:
            if not any(key.startswith(LOG_EPOCHS) for key in entries):  # written when the worker joins, before the step
                gc_enabled.append(gc.isenabled())
            return super().compare_and_set(entries, ttl_s)

    for store in (FragileStore(GcRecordingStore(), Fuse(2)), GcRecordingStore()):
        worker = Worker(stream, store, EventLog(tmp_path), topic=TOPIC, group="g", batch=1)
        with suppress(Crash):
            worker.step(wait_s=0)
        worker.close()
        assert gc.isenabled()
    assert gc_enabled
    assert not any(gc_enabled)
    gc.disable()
    try:
        Worker(stream, MemoryStore(), EventLog(tmp_path), topic=TOPIC, group="g", batch=1).step(wait_s=0)
        assert not gc.isenabled(), "a collector that was disabled before the step stays disabled"
    finally:
        gc.enable()
