"""Isolated environments for benchmarks: a stream, an online store, an event log and a home directory each."""

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
from features.state.keys import LOG_EPOCHS, REBUILD_STARTED
from features.state.online.connect import open_online
from features.state.online.port import OnlineStore

PARTITIONS = 4
SESSION_S = 1  # a broker needs `group.min.session.timeout.ms` of at most this; Tansu takes it
KINDS = {"embedded": "SQLite log, SQLite store", "servers": "Kafka (Tansu), Valkey"}


@dataclass(frozen=True)
class Environment:
    """The stream, stores and home directory of one engine, not shared with any other."""

    kind: str  # a key of KINDS
    home: Path
    stream_url: str
    online_url: str
    topic: str

    @property
    def flags(self) -> list[str]:
        """Flags of `mainstay worker`."""
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
        """Prefix of a partition's name in the states; the partition number follows."""
        return f"{self.topic}/"

    @property
    def event_log(self) -> Path:
        """Directory of the Parquet files."""
        return self.home / "events"

    def stream(self) -> Stream:
        """Open the stream as the engine does."""
        return open_stream(self.stream_url, partitions=PARTITIONS)

    def online(self) -> OnlineStore:
        """Open the online store with a timeout of 10 s."""
        return open_online(self.online_url, timeout_s=10.0)

    def dump(self) -> dict[str, bytes]:
        """Return all live entries of the online store, except its log epochs."""
        with closing(self.online()) as store:
            return live_entries(store)


def live_entries(store: OnlineStore) -> dict[str, bytes]:
    """Return all live entries of a store, except its log epochs and rebuild mark."""
    return {key: raw for key, raw in store.scan("") if key != REBUILD_STARTED and not key.startswith(LOG_EPOCHS)}


class EnvironmentFactory:
    """A factory of environments. Servers are started on first use, unless running ones are given."""

    def __init__(self, root: Path, stack: ExitStack, *, kafka: str = "", redis: str = "") -> None:
        """`kafka` (`kafka://HOST:PORT`) and `redis` (`redis://HOST:PORT/DB`): running servers to use."""
        self._root, self._stack, self._kafka, self._redis = root, stack, kafka, redis
        self._lock = threading.Lock()

    def new(self, kind: str) -> Environment:
        """Return a new, empty environment of this kind."""
        name = f"f{uuid.uuid4().hex[:10]}"
        home = self._root / name
        home.mkdir(parents=True)
        if kind == "embedded":
            return Environment(kind, home, f"sqlite:///{home}/stream.db", f"sqlite:///{home}/online.db", name)
        with self._lock:
            self._start()
        return Environment(kind, home, f"{self._kafka}?session_s={SESSION_S}", f"{self._redis}?prefix={name}", name)

    def _start(self) -> None:
        if not self._kafka:
            port = self._stack.enter_context(closing(broker(self._root / "tansu"))).start().port
            self._kafka = f"kafka://127.0.0.1:{port}"
        if not self._redis:
            port = self._stack.enter_context(closing(valkey(self._root / "valkey"))).start().port
            self._redis = f"redis://127.0.0.1:{port}/0"


@contextmanager
def open_environments(root: Path, *, kafka: str = "", redis: str = "") -> Iterator[EnvironmentFactory]:
    """Yield a factory of environments; servers that it started are stopped at the end."""
    with ExitStack() as stack:
        yield EnvironmentFactory(root, stack, kafka=kafka, redis=redis)
