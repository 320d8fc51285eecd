"""The impression publisher never delays a page and counts every impression it loses."""

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


class UnavailableStream(MemoryStream):
    """A stream that refuses records until `open` is set."""

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


def spool(stream: UnavailableStream) -> DirectSpool:
    """Return a started spool that writes straight to the stream."""
    direct = DirectSpool(stream, "t")
    direct.start()
    return direct


def test_stop_sends_queued_impressions_in_order() -> None:
    stream, lost = UnavailableStream(), []
    stream.open.set()
    publisher = ImpressionPublisher(spool(stream), lost.append)
    publisher.start()
    for n in range(500):
        publisher.send(partial(record, n))
    publisher.stop()
    assert stream.values() == [str(n).encode() for n in range(500)]
    assert lost == []


@pytest.mark.parametrize("fault", [Unavailable("closed"), RuntimeError("a bug")])
def test_every_impression_is_sent_once_the_stream_recovers(fault: Exception) -> None:
    stream, lost = UnavailableStream(), []
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


def test_full_queue_drops_and_counts_without_blocking() -> None:
    stream, lost = UnavailableStream(), []
    publisher = ImpressionPublisher(spool(stream), lost.append, capacity=5)  # not started: the queue is never drained
    start = time.monotonic()
    for n in range(12):
        publisher.send(partial(record, n))
    assert time.monotonic() - start < 1
    assert sum(lost) == 7


def test_stop_counts_impressions_that_the_stream_refused() -> None:
    stream, lost = UnavailableStream(), []
    publisher = ImpressionPublisher(spool(stream), lost.append)
    publisher.start()
    for n in range(3):
        publisher.send(partial(record, n))
    assert stream.refused.wait(5)
    publisher.send(partial(record, 3))
    publisher.stop(timeout_s=0.5)
    assert sum(lost) == 4
    stream.open.set()  # lets the background thread finish


def test_invalid_impression_is_dropped_and_counted_alone() -> None:
    stream, lost = UnavailableStream(), []
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
