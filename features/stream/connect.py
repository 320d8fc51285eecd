"""From a URL to a stream: the only place that knows the adapters by name."""

from __future__ import annotations

from features.stream import Stream
from features.stream.memory import MemoryStream
from features.stream.sqlite import SqliteStream
from recsys.errors import InvalidInput


def open_stream(url: str, *, partitions: int) -> Stream:
    """`sqlite:///PATH`, `kafka://HOST:PORT[,HOST:PORT]` or `memory://`; `partitions` for topics that it creates.

    Raises InvalidInput for another URL, Unavailable when the place does not answer.
    """
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
        return SqliteStream(rest[1:], partitions)
    if scheme == "kafka" and rest:
        from features.stream.kafka import KafkaStream  # here: the client takes a while to import, and few need it

        return KafkaStream(rest.rstrip("/"), partitions)
    if scheme == "memory":
        return MemoryStream(partitions)
    raise InvalidInput(f"stream {url!r}: expected sqlite:///PATH, kafka://HOST:PORT or memory://")
