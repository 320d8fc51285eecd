"""Where a bench runs: a log, a store, an event log and a home of its own, embedded or on real servers."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.servers import broker, valkey
from features.events.stream.connect import open_stream
from features.events.stream.port import Stream
from features.state.keys import LOG_EPOCHS, REBUILT
from features.state.online.connect import open_online
from features.state.online.port import OnlineStore

PARTITIONS = 4
SESSION_S = 1  # a broker needs `group.min.session.timeout.ms` of at most this; Tansu takes it
KINDS = {"embedded": "SQLite log, SQLite store", "servers": "Kafka (Tansu), Valkey"}


@dataclass(frozen=True)
class Place:
    """One engine's stream and stores; nobody else uses them."""

    kind: str  # of KINDS
    home: Path
    stream_url: str
    online_url: str
    topic: str

    @property
    def flags(self) -> list[str]:
        """For `mainstay worker`."""
        return [
            "--home", str(self.home), "--stream", self.stream_url, "--online", self.online_url,
            "--topic", self.topic, "--group", self.topic, "--partitions", str(PARTITIONS),
        ]  # fmt: skip

    @property
    def servers(self) -> str:
        """`host:port` of the broker."""
        return self.stream_url.removeprefix("kafka://").partition("?")[0]

    @property
    def source(self) -> str:
        """What the states call a partition, up to its number."""
        return f"{self.topic}/"

    @property
    def event_log(self) -> Path:
        """Directory of the Parquet files."""
        return self.home / "events"

    def stream(self) -> Stream:
        """The log, as the engine opens it."""
        return open_stream(self.stream_url, partitions=PARTITIONS)

    def online(self) -> OnlineStore:
        """The online store, with a patient time-out."""
        return open_online(self.online_url, timeout_s=10.0)

    def dump(self) -> dict[str, bytes]:
        """Every live key of the online store, but for the lists of logs that it knows."""
        with closing(self.online()) as store:
            return held(store)


def held(store: OnlineStore) -> dict[str, bytes]:
    """Every live key of a store, but for the lists of logs that it knows."""
    return {key: raw for key, raw in store.scan("") if key != REBUILT and not key.startswith(LOG_EPOCHS)}


class Places:
    """Hands out places, none twice, on servers that are started when first needed or that run already."""

    def __init__(self, root: Path, stack: ExitStack, *, kafka: str = "", redis: str = "") -> None:
        """`kafka` (`kafka://HOST:PORT`) and `redis` (`redis://HOST:PORT/DB`): servers to use instead of own ones."""
        self._root, self._stack, self._kafka, self._redis = root, stack, kafka, redis
        self._lock = threading.Lock()

    def new(self, kind: str) -> Place:
        """A fresh place of this kind."""
        name = f"f{uuid.uuid4().hex[:10]}"
        home = self._root / name
        home.mkdir(parents=True)
        if kind == "embedded":
            return Place(kind, home, f"sqlite:///{home}/stream.db", f"sqlite:///{home}/online.db", name)
        with self._lock:
            self._start()
        return Place(kind, home, f"{self._kafka}?session_s={SESSION_S}", f"{self._redis}?prefix={name}", name)

    def _start(self) -> None:
        if not self._kafka:
            port = self._stack.enter_context(closing(broker(self._root / "tansu"))).start().port
            self._kafka = f"kafka://127.0.0.1:{port}"
        if not self._redis:
            port = self._stack.enter_context(closing(valkey(self._root / "valkey"))).start().port
            self._redis = f"redis://127.0.0.1:{port}/0"


@contextmanager
def places(root: Path, *, kafka: str = "", redis: str = "") -> Iterator[Places]:
    """Places whose own servers end with the block."""
    with ExitStack() as stack:
        yield Places(root, stack, kafka=kafka, redis=redis)
