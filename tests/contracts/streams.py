"""Helpers of the stream contract suites: the adapters, and functions that publish and poll messages."""

from __future__ import annotations

import time

from features.events.stream.port import Consumer, Message, Record, Stream

PARTITIONS = 3
EMBEDDED = ["memory", "sqlite"]  # the adapters with `Retention`
ADAPTERS = [*EMBEDDED, "kafka"]


def poll_until(consumer: Consumer, count: int, limit: int = 100, within_s: float = 20.0) -> list[Message]:
    """Poll until `count` messages have arrived; fail after `within_s` seconds."""
    messages: list[Message] = []
    deadline = time.monotonic() + within_s
    while len(messages) < count and time.monotonic() < deadline:
        batch = consumer.poll(limit, 0.2)
        assert len(batch) <= limit
        messages += batch
    assert len(messages) == count
    return messages


def records(count: int, keys: int = 7) -> list[Record]:
    return [Record(f"viewer-{i % keys}", f"message {i}".encode()) for i in range(count)]


def logged(stream: Stream, topic: str) -> list[Message]:
    """Return all messages of a topic."""
    return [m for partition in range(stream.partitions(topic)) for m in stream.read(topic, partition, 0, 100)]


def newest_offsets(messages: list[Message]) -> dict[int, int]:
    return {
        partition: max(m.offset for m in messages if m.partition == partition)
        for partition in {m.partition for m in messages}
    }
