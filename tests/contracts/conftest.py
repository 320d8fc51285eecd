"""Fixtures of the stream contract suites: every adapter, and consumers that are closed at the end of the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from features.events.stream.connect import open_stream
from features.events.stream.port import Consumer, Retention, Stream
from tests.contracts.streams import ADAPTERS, PARTITIONS


@pytest.fixture(params=ADAPTERS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "kafka":
        return str(request.getfixturevalue("kafka_url"))
    return {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path}/log/stream.db"}[request.param]


@pytest.fixture
def stream(url: str) -> Iterator[Stream]:
    opened = open_stream(url, partitions=PARTITIONS)
    yield opened
    opened.close()


@pytest.fixture
def retention(stream: Stream) -> Retention:
    """The retention port of an embedded stream."""
    assert stream.retention is not None
    return stream.retention


@pytest.fixture
def join(stream: Stream) -> Iterator[Callable[[str, str], Consumer]]:
    """A function that joins a consumer group; its consumers are closed at the end of the test."""
    members: list[Consumer] = []

    def join_group(topic: str, group: str) -> Consumer:
        members.append(stream.consumer(topic, group))
        return members[-1]

    yield join_group
    for member in members:
        member.close()
