"""Seeded viewer events of every shape that leaves a trace in the stores."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any, cast

from features.events.decode import Kind, ViewerEvent, encode
from features.events.stream.port import Record, Stream
from recsys.domain.viewer import LANDMARK

KINDS = ("play", "play", "complete", "like", "click", "ping", "hide", "share", "impression", "impression")
DAY_S = 86_400.0
BATCH_SIZE = 1000


def make_events(
    chance: random.Random, count: int, *, start: int = 0, viewers: int = 60, items: int = 60
) -> list[ViewerEvent]:
    """`count` events, one a minute, ids `e{start}` and on; few viewers do most, as everywhere."""
    return [_event(chance, start + number, viewers, items) for number in range(count)]


def _event(chance: random.Random, number: int, viewers: int, items: int) -> ViewerEvent:
    kind = chance.choice(KINDS)
    named = [f"i{n}" for n in chance.sample(range(items), 5)]
    about: dict[str, Any] = {"item_id": named[0]}
    if kind == "ping":
        about |= {"position_s": float(chance.randrange(3000)), "duration_s": 3000.0}
    if kind == "impression":
        credits = {"cn/promise": [round(chance.random(), 3), 1.0, chance.randrange(3)]}
        about = {
            "items": tuple(named), "attention": (1.0, 0.5, 0.25, 0.125, 0.0625),
            "placement": chance.choice(["cn-tv-home", "cn.zj-mobile-home"]), "context": {"targets": credits},
        }  # fmt: skip
    return ViewerEvent(
        id=f"e{number}",
        kind=cast(Kind, kind),
        viewer_id=f"v{int(chance.paretovariate(0.7)) % viewers}",
        at=LANDMARK + 60.0 * number,
        region=chance.choice(["cn.zj.hz", "cn.zj", "cn.bj"]),
        **about,
    )


def to_records(events: Sequence[ViewerEvent]) -> list[Record]:
    """As the engine publishes them."""
    return [Record(event.viewer_id, encode(event)) for event in events]


def publish(stream: Stream, topic: str, sent: Sequence[Record]) -> None:
    """In batches."""
    for batch in batches(sent, BATCH_SIZE):
        stream.publish(topic, batch)


def batches(sent: Sequence[Record], size: int) -> Iterator[Sequence[Record]]:
    """Slices of at most `size`."""
    return (sent[start : start + size] for start in range(0, len(sent), size))


def with_duplicates(chance: random.Random, sent: Sequence[Record], most: int, within: int) -> list[Record]:
    """Each record 1 to `most` times; a copy follows up to `within` records later, after the first of its kind."""
    keyed = [
        (index + (chance.uniform(0, within) if copy else 0.0), copy, index)
        for index in range(len(sent))
        for copy in range(chance.randint(1, most))
    ]
    return [sent[index] for _, _, index in sorted(keyed)]
