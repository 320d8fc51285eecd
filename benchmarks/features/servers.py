"""A Kafka-protocol broker and a Valkey server for one run, or running ones given by KAFKA_BOOTSTRAP and REDIS_URL."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import servers


@contextmanager
def broker(home: Path) -> Iterator[str]:
    """Yield `kafka://host:port`."""
    if bootstrap := os.environ.get("KAFKA_BOOTSTRAP"):
        yield f"kafka://{bootstrap}"
        return
    with servers.running(servers.broker(home)) as port:
        yield f"kafka://127.0.0.1:{port}"


@contextmanager
def valkey(home: Path) -> Iterator[str]:
    """Yield `redis://host:port/0` of a server that persists its changes once a second."""
    if url := os.environ.get("REDIS_URL"):
        yield url
        return
    with servers.running(servers.valkey(home)) as port:
        yield f"redis://127.0.0.1:{port}/0"
