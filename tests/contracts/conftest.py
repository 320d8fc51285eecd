"""Fixtures of the contract suites of streams: each adapter, and members that leave their group at the end."""

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
    """Retention of an embedded stream."""
    assert stream.retention is not None
    return stream.retention


@pytest.fixture
def join(stream: Stream) -> Iterator[Callable[[str, str], Consumer]]:
    """Joins a group; whoever did not leave it leaves at the end."""
    members: list[Consumer] = []

    def joined(topic: str, group: str) -> Consumer:
        members.append(stream.consumer(topic, group))
        return members[-1]

    yield joined
    for member in members:
        member.close()
