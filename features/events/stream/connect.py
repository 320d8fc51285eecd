"""From a URL to a stream: the only place that knows the adapters by name."""

from __future__ import annotations

from urllib.parse import parse_qsl

from features.events.stream.memory import MemoryStream
from features.events.stream.port import Stream
from features.events.stream.sqlite import SqliteStream
from recsys.domain.errors import InvalidInput


def open_stream(url: str, *, partitions: int) -> Stream:
    """`sqlite:///PATH`, `kafka://HOST:PORT[,HOST:PORT]` or `memory://`; `partitions` for topics that it creates.

    `kafka://…?session_s=2`: a dead worker's partitions move after so many seconds (6 when nothing is said; brokers
    refuse less than their `group.min.session.timeout.ms`). Raises InvalidInput for another URL, Unavailable when the
    place does not answer.
    """
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
        return SqliteStream(rest[1:], partitions)
    if scheme == "kafka" and rest:
        from features.events.stream.kafka import (
            KafkaStream,  # here: the client takes a while to import, and few need it
        )

        servers, _, query = rest.partition("?")
        return KafkaStream(servers.rstrip("/"), partitions, **_session(url, query))
    if scheme == "memory":
        return MemoryStream(partitions)
    raise InvalidInput(f"stream {url!r}: expected sqlite:///PATH, kafka://HOST:PORT or memory://")


def _session(url: str, query: str) -> dict[str, float]:
    """What the query of a `kafka://` URL says. Raises InvalidInput."""
    options = dict(parse_qsl(query, keep_blank_values=True))
    try:
        session = {name: float(said) for name, said in options.items() if name == "session_s"}
    except ValueError:
        session = {}
    if session.keys() != options.keys() or not all(0.5 <= seconds <= 300 for seconds in session.values()):
        raise InvalidInput(f"stream {url!r}: expected ?session_s=SECONDS, from 0.5 to 300")
    return session
