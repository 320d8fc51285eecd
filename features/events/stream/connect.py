"""Opens the stream of a URL. This is the only module that imports the adapters by name."""

from __future__ import annotations

from urllib.parse import parse_qsl

from features.events.stream.memory import MemoryStream
from features.events.stream.port import Stream
from features.events.stream.sqlite import SqliteStream
from features.sqlite import sqlite_path
from recsys.domain.errors import InvalidInput


def open_stream(url: str, *, partitions: int) -> Stream:
    """Open the stream of a URL.

    url         `sqlite:///PATH`, `kafka://HOST:PORT[,HOST:PORT]` or `memory://`
    partitions  number of partitions of the topics that it creates

    `kafka://…?session_s=2` sets the session timeout of consumer groups: after this many seconds, the partitions of a
    dead worker are reassigned (default 6; a broker rejects less than its `group.min.session.timeout.ms`). Raises
    InvalidInput for any other URL, and Unavailable if the stream cannot be opened.
    """
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
        return SqliteStream(sqlite_path(url), partitions)
    if scheme == "kafka" and rest:
        from features.events.stream.kafka import KafkaStream  # imported here: the client is slow to import

        servers, _, query = rest.partition("?")
        return KafkaStream(servers.rstrip("/"), partitions, **_session_options(url, query))
    if scheme == "memory":
        return MemoryStream(partitions)
    raise InvalidInput(f"stream {url!r}: expected sqlite:///PATH, kafka://HOST:PORT or memory://")


def _session_options(url: str, query: str) -> dict[str, float]:
    """Parse the query of a `kafka://` URL. Raises InvalidInput."""
    options = dict(parse_qsl(query, keep_blank_values=True))
    try:
        session = {name: float(value) for name, value in options.items() if name == "session_s"}
    except ValueError:
        session = {}
    if session.keys() != options.keys() or not all(0.5 <= seconds <= 300 for seconds in session.values()):
        raise InvalidInput(f"stream {url!r}: expected ?session_s=SECONDS, from 0.5 to 300")
    return session
