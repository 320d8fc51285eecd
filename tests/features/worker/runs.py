"""Random events and the steps of a worker, shared by tests of rebuild, erasure, verification and quarantine."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import closing

from features.events.decode import encode
from features.events.schema import ViewerEvent
from features.events.stream.memory import MemoryStream
from features.events.stream.port import Record
from features.events.stream.sqlite import SqliteStream
from features.history.event_log import EventLog
from features.state.keys import ERASURES, LOG_EPOCHS
from features.state.online.port import OnlineStore
from features.worker.worker import Worker
from recsys.domain.decay import LANDMARK

TOPIC, TTL_S = "t", 50_000.0
END = LANDMARK + 100_000.0


def happened(chance: random.Random, count: int) -> list[ViewerEvent]:
    """Return events of eight viewers, with duplicate ids, and gaps longer than the viewers' time to live."""
    events = []
    for number in range(count):
        kind = chance.choice(["play", "complete", "like", "click", "impression", "ping", "hide"])
        items = tuple(f"i{i}" for i in chance.sample(range(9), 3))
        data = {"items": items, "attention": (1.0, 0.5, 0.2), "placement": "cn-tv-home"}
        data |= {
            "context": {
                "seed": number,
                "features": "AAAA",
                "targets": {"cn/a": [round(number / 7, 3), 1.7, number % 3]},
            }
        }
        data = data if kind == "impression" else {"item_id": items[0], "position_s": 3.0}
        events.append(
            ViewerEvent(
                id=f"e{number if chance.random() < 0.9 else number // 2}",
                kind=kind,
                viewer_id=f"viewer-{int(chance.paretovariate(0.9)) % 8}",
                at=LANDMARK + round(number / count * 100_000.0, 3),
                region="cn.zj",
                **data,
            )
        )
    return events


def published(stream: MemoryStream | SqliteStream, events: Sequence[ViewerEvent], topic: str = TOPIC) -> None:
    """Publish the events, keyed by viewer."""
    stream.publish(topic, [Record(event.viewer_id, encode(event)) for event in events])


def worker(stream: MemoryStream, online: OnlineStore, log: EventLog, batch: int = 17) -> Worker:
    """Return a worker of the topic."""
    return Worker(stream, online, log, topic=TOPIC, group="g", viewer_ttl_s=TTL_S, batch=batch)


def folded(stream: MemoryStream, online: OnlineStore, log: EventLog, batch: int = 17) -> None:
    """Fold all that the stream holds."""
    with closing(worker(stream, online, log, batch)) as running:
        while running.step(wait_s=0):
            pass


def dump(store: OnlineStore) -> dict[str, bytes]:
    """Return the store without erasures and log epochs, which no event makes."""
    return {key: raw for key, raw in store.scan("") if not key.startswith((ERASURES, LOG_EPOCHS))}
