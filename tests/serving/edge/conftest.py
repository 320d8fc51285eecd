"""An app whose requests are sent without a server, so that tests can count the bytes of a body that it reads."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from features.settings import Settings
from serving.app import build

HOST = {"host": "127.0.0.1:8080"}
JSON = {"content-type": "application/json"}
TOKEN = "s3cret"
EDITOR = {"authorization": f"Bearer {TOKEN}"}


@dataclass
class Answer:
    """The answer to a request, and the number of bytes of its body that the app has read."""

    status: int
    headers: dict[str, str]
    body: bytes
    bytes_read: int

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Edge:
    """An app, and a method to send it a request whose body may never end."""

    app: FastAPI

    def send(self, method: str, path: str, headers: Mapping[str, str], chunks: Iterable[bytes] | None = None) -> Answer:
        """Return the answer. A body of None must not be read: it fails the test."""
        remaining = iter(chunks) if chunks is not None else None
        sent: list[dict[str, Any]] = []
        read = [0]

        async def receive() -> dict[str, Any]:
            assert remaining is not None, f"{method} {path} reads a body that it must not read"
            chunk = next(remaining, None)
            read[0] += len(chunk or b"")
            return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        scope = {
            "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"",
            "root_path": "", "headers": raw, "http_version": "1.1", "scheme": "http", "client": None, "server": None,
        }  # fmt: skip
        asyncio.run(self.app(scope, receive, send))
        start = sent[0]
        body = b"".join(message.get("body", b"") for message in sent[1:])
        return Answer(start["status"], {k.decode(): v.decode() for k, v in start["headers"]}, body, read[0])

    def operations(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Yield the method, the path with its parameters filled in, and the description of each operation."""
        for path, methods in self.app.openapi()["paths"].items():
            for method, operation in methods.items():
                filled = path.replace("{placement_id}", "cn-tv-home").replace("{outlet}", "cn")
                yield method.upper(), filled.replace("{", "").replace("}", ""), operation


def of(tmp_path: Path, **settings: object) -> Edge:
    """Return an app with stores in memory that is not started."""
    memory = dict.fromkeys(("stream", "online", "vectors"), "memory://")
    return Edge(build(Settings.model_validate({"home": str(tmp_path), "encoder": "none", **memory, **settings})))


@pytest.fixture(scope="session")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Edge:
    """An app that anyone may write to."""
    return of(tmp_path_factory.mktemp("edge"))


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Edge:
    """An app with a token of the editors."""
    return of(tmp_path_factory.mktemp("guarded"), admin_token=TOKEN)


@pytest.fixture
def edge_of(tmp_path: Path) -> Callable[..., Edge]:
    """`edge_of(**settings)`: an app with these settings."""
    return lambda **settings: of(tmp_path, **settings)
