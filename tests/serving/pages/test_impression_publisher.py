"""Impressions: never in the way of a page, never lost in silence."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial

import pytest

from features.events.spool.direct import DirectSpool
from features.events.stream.memory import MemoryStream
from features.events.stream.port import Record
from recsys.domain.errors import EventError, Unavailable
from serving.pages.impression_publisher import ImpressionPublisher


class Moody(MemoryStream):
    """A stream that refuses until it is opened."""

    def __init__(self) -> None:
        super().__init__(1)
        self.open = threading.Event()
        self.refused = threading.Event()
        self.fault: Exception = Unavailable("closed")

    def publish(self, topic: str, records: Sequence[Record]) -> Mapping[int, int]:
        if not self.open.is_set():
            self.refused.set()
            raise self.fault
        return super().publish(topic, records)

    def values(self) -> list[bytes]:
        return [message.value for message in self.read("t", 0, 0, 10_000)]


def record(n: int) -> Record:
    return Record("k", str(n).encode())


def spool(stream: Moody) -> DirectSpool:
    """Straight into the stream, running."""
    made = DirectSpool(stream, "t")
    made.start()
    return made


def test_what_waits_is_sent_in_order_before_the_end() -> None:
    stream, lost = Moody(), []
    stream.open.set()
    publisher = ImpressionPublisher(spool(stream), lost.append)
    publisher.start()
    for n in range(500):
        publisher.send(partial(record, n))
    publisher.stop()
    assert stream.values() == [str(n).encode() for n in range(500)]
    assert lost == []


@pytest.mark.parametrize("fault", [Unavailable("closed"), RuntimeError("a bug")])
def test_a_stream_that_comes_back_gets_everything(fault: Exception) -> None:
    stream, lost = Moody(), []
    stream.fault = fault
    publisher = ImpressionPublisher(spool(stream), lost.append)
    publisher.start()
    for n in range(10):
        publisher.send(partial(record, n))
    assert stream.refused.wait(5)
    stream.open.set()
    publisher.stop()
    assert sorted(stream.values()) == sorted(str(n).encode() for n in range(10))
    assert lost == []


def test_a_full_queue_drops_and_counts_and_never_blocks() -> None:
    stream, lost = Moody(), []
    publisher = ImpressionPublisher(spool(stream), lost.append, capacity=5)  # not started: nothing leaves
    began = time.monotonic()
    for n in range(12):
        publisher.send(partial(record, n))
    assert time.monotonic() - began < 1
    assert sum(lost) == 7


def test_what_a_dead_stream_never_took_is_counted_at_the_end() -> None:
    stream, lost = Moody(), []
    publisher = ImpressionPublisher(spool(stream), lost.append)
    publisher.start()
    for n in range(3):
        publisher.send(partial(record, n))
    assert stream.refused.wait(5)
    publisher.send(partial(record, 3))
    publisher.stop(timeout_s=0.5)
    assert sum(lost) == 4
    stream.open.set()  # lets the thread go


def test_an_impression_that_cannot_be_written_costs_only_itself() -> None:
    stream, lost = Moody(), []
    stream.open.set()

    def broken() -> Record:
        raise EventError("too large")

    publisher = ImpressionPublisher(spool(stream), lost.append)
    publisher.start()
    publisher.send(broken)
    publisher.send(partial(record, 1))
    publisher.stop()
    assert stream.values() == [b"1"]
    assert lost == [1]
