"""Fixtures of the contract suites: every adapter, and consumers that are closed at the end of the test."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

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


@pytest.fixture(params=["sqlite", "postgres"])
def control_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database: a new file, or a new schema on the test server."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/control.db"
        return
    server = make_url(request.getfixturevalue("postgres_url")).set(drivername="postgresql+psycopg")
    schema = f"control_{uuid.uuid4().hex}"
    yield server.update_query_dict({"schema": schema}).render_as_string(hide_password=False)
    admin = create_engine(server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"DROP SCHEMA IF EXISTS {schema} CASCADE"))
    admin.dispose()
