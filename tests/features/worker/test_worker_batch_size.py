"""How many messages a worker takes in a step follows how long its steps take."""

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


def played(id: str) -> Record:
    return Record("v", encode(ViewerEvent(id=id, kind="play", viewer_id="v", at=LANDMARK, item_id="a")))


def test_slow_steps_are_followed_by_smaller_ones_and_quick_ones_by_larger(tmp_path: Any) -> None:
    stream, now = MemoryStream(1), [0.0]
    stream.publish(TOPIC, [played(f"e{n}") for n in range(3000)])
    for each_s, expected in ((0.01, [200, 200, 200, 200]), (1e-5, [800, 800, 600, 0]), (1 / 512, [512, 512, 512, 512])):
        logged = EventLog(tmp_path / f"{each_s}")
        worker = Worker(stream, MemoryStore(), logged, topic=TOPIC, group=f"{each_s}", batch=800, clock=lambda: now[0])
        append = logged.append

        def slow(*said: Any, append: Any = append, each_s: float = each_s) -> None:
            now[0] += each_s * (said[2] - said[1] + 1)
            append(*said)

        logged.append = slow  # type: ignore[method-assign]
        first, *later = [worker.step(wait_s=0) for _ in range(5)]
        assert first == 800  # as it was told; from then on as it went
        assert later == expected
    worker = Worker(stream, MemoryStore(), EventLog(tmp_path / "first"), topic=TOPIC, group="first")
    assert worker.step(wait_s=0) == FIRST_BATCH
