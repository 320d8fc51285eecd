"""The batch size of a worker follows the duration of its steps."""

from __future__ import annotations

from typing import Any

from features.events.decode import encode
from features.events.schema import ViewerEvent
from features.events.stream.memory import MemoryStream
from features.events.stream.port import Record
from features.history.event_log import EventLog
from features.state.online.memory import MemoryStore
from features.worker.worker import FIRST_BATCH, Worker
from recsys.domain.decay import LANDMARK

TOPIC = "t"


def play_record(id: str) -> Record:
    return Record("v", encode(ViewerEvent(id=id, kind="play", viewer_id="v", at=LANDMARK, item_id="a")))


def test_batches_shrink_after_slow_steps_and_grow_after_fast_ones(tmp_path: Any) -> None:
    stream, now = MemoryStream(1), [0.0]
    stream.publish(TOPIC, [play_record(f"e{n}") for n in range(3000)])
    for each_s, expected in ((0.01, [200, 200, 200, 200]), (1e-5, [800, 800, 600, 0]), (1 / 512, [512, 512, 512, 512])):
        logged = EventLog(tmp_path / f"{each_s}")
        worker = Worker(stream, MemoryStore(), logged, topic=TOPIC, group=f"{each_s}", batch=800, clock=lambda: now[0])
        append = logged.append

        def slow(*args: Any, append: Any = append, each_s: float = each_s) -> None:
            now[0] += each_s * (args[2] - args[1] + 1)
            append(*args)

        logged.append = slow  # type: ignore[method-assign]
        first, *rest = [worker.step(wait_s=0) for _ in range(5)]
        assert first == 800  # the configured maximum; later sizes follow the measured duration
        assert rest == expected
    worker = Worker(stream, MemoryStore(), EventLog(tmp_path / "first"), topic=TOPIC, group="first")
    assert worker.step(wait_s=0) == FIRST_BATCH
