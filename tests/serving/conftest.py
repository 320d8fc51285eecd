"""Fixtures that run the service on a socket in this process, with embedded stores in a temporary home."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
import uvicorn

from features.columns import FEATURES
from features.events.decode import decode
from features.events.schema import ViewerEvent
from features.settings import Settings
from recsys.domain.types import ACTIONS
from recsys.models.bundle import Bundle
from recsys.models.probe import with_probe
from recsys.models.ranker import Predictor, Ranker, tensors
from serving.app import build
from serving.edge.http_protocol import http_protocol
from serving.services import Services

PUBLISHED = datetime.now(UTC) - timedelta(days=2)
POLICY = """
outlet: cn
weights: {public_value: 0.2}
controls:
  - {id: floor, action: quota, where: {label: public-service}, at_least: 0.3, prefixes: every, enforcement: legal}
  - {id: one-topic, action: cap, attribute: topic, at_most: 4}
"""


def item(n: int, outlet: str = "cn.zj", **fields: object) -> dict[str, Any]:
    """Return an item as a client sends it. Every fourth item is public service, and there are five topics."""
    return {
        "id": f"item-{n}",
        "title": {"zh": f"节目{n}", "en": f"Item {n}"},
        "outlet": outlet,
        "labels": ["public-service"] if n % 4 == 0 else ["film/drama"],
        "topic": f"topic-{n % 5}",
        "axes": {"public_value": (n % 3) / 2},
        "published_at": (PUBLISHED - timedelta(hours=n)).isoformat(),
        **fields,
    }


@dataclass
class Service:
    """A running app: its services and an HTTP client."""

    services: Services
    http: httpx.Client

    def stock(self, count: int = 60, policy: str = POLICY) -> None:
        """Store items and a policy, and wait until they are in force."""
        self.http.post("/v1/items", json={"items": [item(n) for n in range(count)]}).raise_for_status()
        self.publish("cn", policy)

    def publish(self, outlet: str, text: str) -> None:
        """Publish a policy, and wait until it is in force."""
        headers = {"content-type": "application/yaml"}
        self.http.post(f"/v1/policies/{outlet}/publish", content=text, headers=headers).raise_for_status()
        self.caught_up()

    def caught_up(self) -> None:
        """Wait until the snapshot has the revision of the control plane."""
        until(lambda: self.services.holders.current.revision == self.services.control.revision())

    def page(self, viewer: str = "v1", placement: str = "cn.zj-mobile-home", **fields: object) -> dict[str, Any]:
        """Return a page. Fails if the status is not 200."""
        response = self.http.post(f"/v1/placements/{placement}:recommend", json={"viewer_id": viewer, **fields})
        assert response.status_code == 200, response.text
        page: dict[str, Any] = response.json()
        return page

    def published(self, count: int) -> list[ViewerEvent]:
        """Wait for `count` events in the stream and return all events."""
        topic, stream = self.services.settings.topic, self.services.stream

        def events() -> list[ViewerEvent]:
            parts = range(stream.partitions(topic))
            return [decode(message.value) for p in parts for message in stream.read(topic, p, 0, 1000)]

        until(lambda: len(events()) >= count)
        return events()


@pytest.fixture(name="item")
def _item() -> Callable[..., dict[str, Any]]:
    """`item(n, outlet="cn.zj", **fields)`: an item as a client sends it."""
    return item


@pytest.fixture(name="until")
def _until() -> Callable[..., float]:
    """`until(condition, within_s=20)`: wait for a condition and return the time that it took."""
    return until


@pytest.fixture(name="bundle")
def _bundle() -> Callable[..., Bundle]:
    """`bundle(version, item_ids)`: a valid bundle with a random ranker."""
    return bundle


Serve = Callable[..., AbstractContextManager[Service]]


@contextmanager
def running(home: Path, settings: dict[str, Any] | None = None, **dependencies: Any) -> Iterator[Service]:
    """Run a service on a free port. Dependencies that are not passed are embedded in `home` or in memory."""
    values = {
        "home": str(home),
        "stream": "memory://",
        "online": "memory://",
        "vectors": "memory://",
        "encoder": "ngrams",
        "poll_ms": 20,
        **(settings or {}),
    }
    app = build(Settings.model_validate(values), **dependencies)
    listening = socket.create_server(("127.0.0.1", 0))
    http = http_protocol(app.state.services.settings.connections)
    server = uvicorn.Server(uvicorn.Config(app, http=http, log_level="critical", lifespan="on"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    until(lambda: server.started)
    try:
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with httpx.Client(base_url=address, timeout=60) as client:
            yield Service(app.state.services, client)
    finally:
        server.should_exit = True
        thread.join(20)
        listening.close()


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """`with serve(settings={...}, **build_arguments) as service`; `settings` overrides the settings of the tests."""
    return lambda settings=None, **dependencies: running(tmp_path, settings, **dependencies)


@pytest.fixture
def service(serve: Serve) -> Iterator[Service]:
    """A service with sixty items and a policy, for one test."""
    with serve() as running_service:
        running_service.stock()
        yield running_service


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with sixty items and a policy, shared by tests that do not change its model, counts or policies."""
    with running(tmp_path_factory.mktemp("shared")) as running_service:
        running_service.stock()
        yield running_service


def until(condition: Callable[[], bool], within_s: float = 20.0) -> float:
    """Wait until the condition holds and return the time that it took. Fails after `within_s` seconds."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < within_s, f"the condition did not hold within {within_s} s"
        time.sleep(0.01)
    return time.monotonic() - started


def bundle(version: str, item_ids: Sequence[str], feature_names: Sequence[str] = FEATURES) -> Bundle:
    """Return a valid bundle with a random ranker."""
    rng = np.random.default_rng(3)
    torch.manual_seed(3)
    network = tensors(Ranker(len(feature_names), len(ACTIONS), hidden=4))
    probe = rng.normal(size=(3, len(feature_names))).astype(np.float32)
    unprobed = Bundle(
        version=version,
        created_at=0.0,
        item_ids=tuple(item_ids),
        item_vectors=rng.normal(size=(len(item_ids), 4)).astype(np.float32),
        retriever_params={"regularization": 0.1, "alpha": 5.0},
        popularity=rng.exponential(2, len(item_ids)).astype(np.float32),
        network=network,
        feature_names=tuple(feature_names),
        probe_features=probe,
        probe_p=Predictor.load(network).p(probe),
        metrics={},
    )
    return with_probe(unprobed)
