"""The online store in Redis or Valkey. Time-outs are short and nothing is tried again: a page cannot wait.

Plain GET, SET and DEL in pipelines without transactions, so it also works where keys live on several nodes. A server
that must not forget needs `appendonly yes`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from recsys.errors import Unavailable

_AT_ONCE = 500  # keys per round trip


class RedisStore:
    """Keys of one Redis database; each thread uses a connection of the pool."""

    def __init__(self, url: str, timeout_s: float = 0.05, prefix: str = "") -> None:
        """`timeout_s` bounds every round trip, connecting included; `prefix` stands before every key in the server.

        Nothing is connected yet.
        """
        self._url, self._prefix = url, prefix
        self._redis: Any = redis.Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
            decode_responses=False,
        )

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """Values in the order of keys, None for what is missing or expired. Raises Unavailable."""
        return [value for some in _batched(keys) for value in self._run([("GET", self._prefix + key) for key in some])]

    def put(self, entries: Mapping[str, bytes], ttl_s: float | None = None) -> None:
        """Write all, in their order. Raises Unavailable; some may be written then."""
        ttl = () if ttl_s is None else ("PX", max(1, int(ttl_s * 1000)))
        for some in _batched(list(entries)):
            self._run([("SET", self._prefix + key, entries[key], *ttl) for key in some])

    def delete(self, keys: Sequence[str]) -> None:
        """Forget. Raises Unavailable."""
        for some in _batched(keys):
            self._run([("DEL", self._prefix + key) for key in some])

    def scan(self, prefix: str) -> Iterator[tuple[str, bytes]]:
        """Every live key under the prefix once. Raises Unavailable."""
        pattern = "".join(f"\\{c}" if c in "*?[]\\^" else c for c in self._prefix + prefix) + "*"
        yielded: set[str] = set()  # SCAN may name a key twice while the table grows
        cursor: int | str = 0
        while True:
            with self._faults():
                cursor, raw = self._redis.scan(cursor, match=pattern, count=_AT_ONCE)
            found = dict.fromkeys(k.decode().removeprefix(self._prefix) for k in raw)
            keys = [key for key in found if key not in yielded]
            yielded.update(keys)
            yield from ((k, v) for k, v in zip(keys, self.get(keys), strict=True) if v is not None)
            if int(cursor) == 0:
                return

    def close(self) -> None:
        """Disconnect; idempotent."""
        self._redis.close()

    def _run(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        """All commands in one round trip."""
        with self._faults(), self._redis.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            answers: list[Any] = pipeline.execute()
        return answers

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except (redis.RedisError, OSError) as error:
            where = self._url.partition("://")[2].rpartition("@")[2]  # without the password
            raise Unavailable(f"redis {where}: {type(error).__name__}: {error}") from error


def _batched(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    return (keys[start : start + _AT_ONCE] for start in range(0, len(keys), _AT_ONCE))
