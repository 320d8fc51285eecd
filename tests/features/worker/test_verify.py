"""A replay of the log folds each event once, whatever the batch size."""

from __future__ import annotations

from pathlib import Path

import pytest

from features.events.schema import ViewerEvent
from features.events.stream.memory import MemoryStream
from features.history.event_log import EventLog
from features.state.online.memory import MemoryStore
from features.state.votes import LoggedEvent
from features.worker import rebuild, verify
from features.worker.worker import Worker
from recsys.domain.decay import LANDMARK

TTL_S = 50_000.0


@pytest.mark.parametrize("batch", [1, 3, 4, 100])
def test_no_event_is_lost_between_two_batches(tmp_path: Path, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    log, online, replay = EventLog(tmp_path), MemoryStore(), MemoryStore()
    log.epochs.restore(online, "t")
    for partition in range(2):
        source = f"t/{partition}"
        events = [
            LoggedEvent(
                source, n, ViewerEvent(id=f"e{n}", kind="play", viewer_id=source, at=LANDMARK + n, item_id=f"i{n}")
            )
            for n in range(9)
        ]
        log.append(source, 0, 8, events)
        Worker(MemoryStream(2), online, log, topic="t", group="g").refold(events)
    worker = Worker(MemoryStream(2), replay, log, topic="t", group="g")
    monkeypatch.setattr(rebuild, "BATCH", batch)
    assert verify.replay_log(log, worker, replay, LANDMARK + 9, TTL_S) == 18
    assert list(verify.find_differences(online, replay, LANDMARK + 9, TTL_S)) == []
