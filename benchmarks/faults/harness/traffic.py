"""Random viewer events, by seed, of every kind that changes a state in the stores."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any, cast

from features.events.decode import encode
from features.events.schema import Kind, ViewerEvent
from features.events.stream.port import Record, Stream
from recsys.domain.decay import LANDMARK

KINDS = ("play", "play", "complete", "like", "click", "ping", "hide", "share", "impression", "impression")
DAY_S = 86_400.0
BATCH_SIZE = 1000


def make_events(
    rng: random.Random, count: int, *, start: int = 0, viewers: int = 60, items: int = 60
) -> list[ViewerEvent]:
    """Return `count` events, one a minute, with ids from `e{start}`; activity is skewed towards few viewers."""
    return [_event(rng, start + number, viewers, items) for number in range(count)]


def _event(rng: random.Random, number: int, viewers: int, items: int) -> ViewerEvent:
    kind = rng.choice(KINDS)
    item_ids = [f"i{n}" for n in rng.sample(range(items), 5)]
    details: dict[str, Any] = {"item_id": item_ids[0]}
    if kind == "ping":
        details |= {"position_s": float(rng.randrange(3000)), "duration_s": 3000.0}
    if kind == "impression":
        credits = {"cn/promise": [round(rng.random(), 3), 1.0, rng.randrange(3)]}
        details = {
            "items": tuple(item_ids), "attention": (1.0, 0.5, 0.25, 0.125, 0.0625),
            "placement": rng.choice(["cn-tv-home", "cn.zj-mobile-home"]), "context": {"targets": credits},
        }  # fmt: skip
    return ViewerEvent(
        id=f"e{number}",
        kind=cast(Kind, kind),
        viewer_id=f"v{int(rng.paretovariate(0.7)) % viewers}",
        at=LANDMARK + 60.0 * number,
        region=rng.choice(["cn.zj.hz", "cn.zj", "cn.bj"]),
        **details,
    )


def to_records(events: Sequence[ViewerEvent]) -> list[Record]:
    """Encode events as the engine publishes them."""
    return [Record(event.viewer_id, encode(event)) for event in events]


def publish(stream: Stream, topic: str, records: Sequence[Record]) -> None:
    """Publish records in batches."""
    for batch in batches(records, BATCH_SIZE):
        stream.publish(topic, batch)


def batches(records: Sequence[Record], size: int) -> Iterator[Sequence[Record]]:
    """Return slices of at most `size` records."""
    return (records[start : start + size] for start in range(0, len(records), size))


def with_duplicates(rng: random.Random, records: Sequence[Record], max_copies: int, within: int) -> list[Record]:
    """Return each record 1 to `max_copies` times; a copy follows its original within `within` records."""
    keyed = [
        (index + (rng.uniform(0, within) if copy else 0.0), copy, index)
        for index in range(len(records))
        for copy in range(rng.randint(1, max_copies))
    ]
    return [records[index] for _, _, index in sorted(keyed)]
