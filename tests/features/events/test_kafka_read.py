"""Reading a Kafka partition to its end: slow brokers are waited for, and unresponsive ones raise an error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from features.events.stream import kafka as adapter
from features.events.stream.kafka import KafkaStream
from features.events.stream.port import Record
from recsys.domain.errors import Unavailable


@pytest.fixture
def stream(kafka_url: str, unique: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[KafkaStream]:
    """A stream with twenty messages in the topic `unique`, published in two batches."""
    monkeypatch.setattr(adapter, "READ_IDLE_S", 0.3)
    with closing(KafkaStream(kafka_url.removeprefix("kafka://"), partitions=1)) as opened:
        for half in range(2):
            opened.publish(unique, [Record("k", b"%d" % (10 * half + n)) for n in range(10)])
        yield opened


def test_a_pause_before_the_log_end_does_not_end_the_read(
    stream: KafkaStream, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    poll, silences = adapter._poll, [0, 1, 1]

    def slow_poll(consumer: Any, limit: int, timeout_s: float) -> Any:
        if silences and silences.pop():
            return []
        return poll(consumer, min(limit, 4), timeout_s)

    monkeypatch.setattr(adapter, "_poll", slow_poll)
    assert [int(message.value) for message in stream.read(unique, 0, 0, 100)] == list(range(20))
    silences[:] = [0, 1]
    assert [int(message.value) for message in stream.read(unique, 0, 3, 5)] == list(range(3, 8))
    assert stream.read(unique, 0, 20, 100) == []


def test_a_read_that_cannot_reach_the_log_end_fails(
    stream: KafkaStream, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "READ_TIMEOUT_S", 0.5)
    monkeypatch.setattr(adapter, "_poll", lambda *_: [])
    with pytest.raises(Unavailable, match=f"{unique}/0: no message arrived at offset 0"):
        stream.read(unique, 0, 0, 100)
