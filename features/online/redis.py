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

from features.online import Swap
from recsys.errors import Unavailable

_AT_ONCE = 500  # keys per round trip
_SWAPPED_AT_ONCE = 100  # keys that the server swaps before it answers anybody else: a fraction of a millisecond
_SWAP = """
local refused, px = {}, ARGV[1]
for n, key in ipairs(KEYS) do
  local was = ARGV[3 * n - 1] == '1' and ARGV[3 * n]
  if redis.call('GET', key) ~= was then refused[#refused + 1] = n
  elseif px == '' then redis.call('SET', key, ARGV[3 * n + 1])
  else redis.call('SET', key, ARGV[3 * n + 1], 'PX', px) end
end
return refused
"""  # sent as text, not by hash: it survives a server that forgot its scripts, and pipelines to a cluster take it


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
        ttl = () if ttl_s is None else ("PX", _milliseconds(ttl_s))
        for some in _batched(list(entries)):
            self._run([("SET", self._prefix + key, entries[key], *ttl) for key in some])

    def swap(self, entries: Mapping[str, Swap], ttl_s: float | None = None) -> list[str]:
        """Write what is still as it was read; returns the keys that are not. Raises Unavailable; some may be in."""
        px, refused = "" if ttl_s is None else _milliseconds(ttl_s), list[str]()
        for some in _batched(list(entries)):
            groups = list(_batched(some, _SWAPPED_AT_ONCE))
            answers = self._run([self._swapping(group, entries, px) for group in groups])
            refused += [group[n - 1] for group, late in zip(groups, answers, strict=True) for n in late]
        return refused

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

    def _swapping(self, keys: Sequence[str], entries: Mapping[str, Swap], px: int | str) -> tuple[Any, ...]:
        said: list[Any] = [px]
        for key in keys:
            was, value = entries[key]
            said += (int(was is not None), b"" if was is None else was, value)
        return ("EVAL", _SWAP, len(keys), *(self._prefix + key for key in keys), *said)

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


def _milliseconds(ttl_s: float) -> int:
    return max(1, int(ttl_s * 1000))


def _batched(keys: Sequence[str], size: int = _AT_ONCE) -> Iterator[Sequence[str]]:
    return (keys[start : start + size] for start in range(0, len(keys), size))
