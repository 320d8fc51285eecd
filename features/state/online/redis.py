"""The online store in Redis or Valkey, one server or a cluster. Time-outs are short and nothing is tried again: a page
cannot wait.

Each command names one key (a swap on a single server: some), in pipelines without transactions, so keys may live on
any node of a cluster. A server that must not forget needs `appendonly yes`.

SCAN walks past every key there is, millions of viewers for a few thousand items. So what is scanned all the time (the
prefixes in `indexed`) is also named in a sorted set of its own, by the moment it expires: `index:{PREFIX}`. A key
stands in the index before it is written. The empty name in it says that it is whole; where that is missing, after an
upgrade or because the server forgot, the next scan builds it with one SCAN.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.exceptions import RedisClusterException
from redis.retry import Retry

from features.state.online.port import CasEntry
from recsys.domain.errors import Unavailable

INDEX = "index:"
INDEX_PRUNE_S = 86_400.0  # an index names what expired this long ago no more: clocks of several machines may differ
_BATCH_KEYS = 500  # keys per round trip
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
_COMPLETE = ""

Command = tuple[Any, ...]


class RedisStore:
    """Keys of one Redis database or cluster; each thread uses a connection of the pool."""

    def __init__(
        self,
        url: str,
        timeout_s: float = 0.05,
        prefix: str = "",
        *,
        cluster: bool = False,
        indexed: Sequence[str] = (),
    ) -> None:
        """`timeout_s` bounds every round trip, connecting included; `prefix` stands before every key in the server.

        cluster  the server is a node of a Redis Cluster; the others are asked of it
        indexed  prefixes such as `item:` whose scans shall not walk past other keys

        Nothing is connected yet.
        """
        self._url, self._prefix, self._timeout_s, self._cluster = url, prefix, timeout_s, cluster
        self._indexed = tuple(indexed)
        self._opened: Any = None
        self._opening = threading.Lock()

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """Values in the order of keys, None for what is missing or expired. Raises Unavailable."""
        return [value for some in _batched(keys) for value in self._run([("GET", self._prefix + key) for key in some])]

    def put(self, entries: Mapping[str, bytes], ttl_s: float | None = None) -> None:
        """Write all, in their order. Raises Unavailable; some may be written then."""
        ttl = () if ttl_s is None else ("PX", _milliseconds(ttl_s))
        until = float("inf") if ttl_s is None else time.time() + ttl_s
        for some in _batched(list(entries)):
            named = self._add_to_index(dict.fromkeys(some, until))
            written: list[Command] = [("SET", self._prefix + key, entries[key], *ttl) for key in some]
            if self._cluster and named:
                self._run(named)  # nodes keep no order among themselves: the index first, by itself
                named = []
            self._run([*named, *written])

    def compare_and_set(self, entries: Mapping[str, CasEntry], ttl_s: float | None = None) -> list[str]:
        """Write what is still as it was read; returns the keys that are not. Raises Unavailable; some may be in."""
        px, refused = "" if ttl_s is None else _milliseconds(ttl_s), list[str]()
        until = float("inf") if ttl_s is None else time.time() + ttl_s
        for some in _batched(list(entries)):
            self._run(self._add_to_index(dict.fromkeys(some, until)))
            groups = list(_batched(some, 1 if self._cluster else _SWAPPED_AT_ONCE))  # one script, one node
            answers = self._run([self._cas_commands(group, entries, px) for group in groups])
            refused += [group[n - 1] for group, late in zip(groups, answers, strict=True) for n in late]
        return refused

    def delete(self, keys: Sequence[str]) -> None:
        """Forget. Raises Unavailable."""
        for some in _batched(keys):
            gone = [(index, key) for key in some if (index := self._index_of(key))]
            self._run([("DEL", self._prefix + key) for key in some])
            self._run([("ZREM", index, key) for index, key in gone])

    def scan(self, prefix: str) -> Iterator[tuple[str, bytes]]:
        """Every live key under the prefix once. Raises Unavailable."""
        index = self._index_of(prefix)
        listed = self._scan_index(index, prefix) if index and self._is_index_complete(index) else self._scan_all(prefix)
        yielded: set[str] = set()  # a cursor may name a key twice while the table grows
        for some in listed:
            keys = [key for key in dict.fromkeys(some) if key not in yielded]
            yielded.update(keys)
            yield from ((k, v) for k, v in zip(keys, self.get(keys), strict=True) if v is not None)

    def node_of(self, key: str) -> str:
        """`HOST:PORT` of the node of a cluster that holds this key, by what is known of the cluster; asks nobody. Empty
        for a single server, before the cluster was asked for its nodes, and where no node has the key's slot."""
        if not self._cluster or self._opened is None:
            return ""
        with suppress(redis.RedisError, RedisClusterException):
            return str(self._opened.get_node_from_key(self._prefix + key).name)
        return ""

    def close(self) -> None:
        """Disconnect; idempotent."""
        if self._opened is None:
            return
        if self._cluster:  # redis-py 8 leaves the connections of a cluster that was opened by URL to the collector
            for node in self._opened.get_nodes():
                if node.redis_connection is not None:
                    node.redis_connection.connection_pool.disconnect()
        self._opened.close()

    def _cas_commands(self, keys: Sequence[str], entries: Mapping[str, CasEntry], px: int | str) -> Command:
        said: list[Any] = [px]
        for key in keys:
            was, value = entries[key]
            said += (int(was is not None), b"" if was is None else was, value)
        return ("EVAL", _SWAP, len(keys), *(self._prefix + key for key in keys), *said)

    def _scan_all(self, prefix: str) -> Iterator[list[str]]:
        """Keys under the prefix, by walking past all keys of every node; some perhaps twice."""
        pattern = "".join(f"\\{c}" if c in "*?[]\\^" else c for c in self._prefix + prefix) + "*"
        more: dict[str, Any] = {"match": pattern, "count": _BATCH_KEYS, "_type": "string"}  # so indices are no keys
        for node in self._nodes():
            cursor: int | str = 0
            while True:
                with self._faults():
                    answer = self._client.scan(cursor, **more, **node)
                # a cluster answers with a cursor for each node asked
                cursor = next(iter(answer[0].values())) if isinstance(answer[0], dict) else answer[0]
                yield [key.decode().removeprefix(self._prefix) for key in answer[1]]
                if int(cursor) == 0:
                    break

    def _scan_index(self, index: str, prefix: str) -> Iterator[list[str]]:
        """Keys under the prefix that the index names; expired ones may be among them."""
        now, cursor = time.time(), 0
        while True:
            with self._faults():
                cursor, pairs = self._client.zscan(index, cursor, count=_BATCH_KEYS)
            named = [(bytes(key).decode(), until) for key, until in pairs]
            yield [
                key
                for key, until in named
                if key != _COMPLETE and until > now - INDEX_PRUNE_S and key.startswith(prefix)
            ]
            if int(cursor) == 0:
                break
        with self._faults(), suppress(redis.ResponseError):  # a replica or a full server keeps them a little longer
            self._client.zremrangebyscore(index, "-inf", now - INDEX_PRUNE_S)

    def _is_index_complete(self, index: str) -> bool:
        """Whether the index names every key of its prefix. Makes it so where the server lets us; else False."""
        with self._faults():
            if self._client.zscore(index, _COMPLETE) is not None:
                return True
        try:
            self._build(index)
        except Unavailable as error:
            if isinstance(error.__cause__, redis.ResponseError):
                return False
            raise
        return True

    def _build(self, index: str) -> None:
        """Name in the index whatever is there by now; what is put meanwhile names itself. Raises Unavailable."""
        prefix = next(one for one in self._indexed if index == self._index_of(one))
        for keys in self._scan_all(prefix):
            left_ms = self._run([("PTTL", self._prefix + key) for key in keys])
            now, until = time.time(), dict[str, float]()
            for key, ms in zip(keys, left_ms, strict=True):
                until[key] = now + ms / 1000 if ms >= 0 else float("inf")
            self._run(self._add_to_index(until, "NX"))  # what was put meanwhile knows better
        with self._faults():
            self._client.zadd(index, {_COMPLETE: float("inf")})

    def _add_to_index(self, until: Mapping[str, float], *how: str) -> list[Command]:
        """Commands that put these keys into their indices, by when they expire."""
        pairs: dict[str, list[Any]] = {}
        for key, at in until.items():
            if index := self._index_of(key):
                pairs.setdefault(index, []).extend((at, key))
        return [("ZADD", index, *how, *some) for index, some in pairs.items()]

    def _index_of(self, key: str) -> str:
        """The index that names this key; empty where there is none."""
        return next((f"{self._prefix}{INDEX}{{{one}}}" for one in self._indexed if key.startswith(one)), "")

    def _nodes(self) -> Iterable[dict[str, Any]]:
        """What to say with a command that concerns all keys: nothing, or each node of a cluster that has some."""
        if not self._cluster:
            return [{}]
        with self._faults():
            return [{"target_nodes": node} for node in self._client.get_primaries()]

    @property
    def _client(self) -> Any:
        """The client, made when it is first needed: a cluster's asks its node for the others at once. While one thread
        does, others wait for it no longer than for an answer."""
        if self._opened is None:
            if not self._opening.acquire(timeout=self._timeout_s):
                raise TimeoutError("still being connected")
            try:
                if self._opened is None:
                    self._opened = self._connect()
            finally:
                self._opening.release()
        return self._opened

    def _connect(self) -> Any:
        options: dict[str, Any] = {
            "socket_timeout": self._timeout_s,
            "socket_connect_timeout": self._timeout_s,
            "retry": Retry(NoBackoff(), 0),
            "decode_responses": False,
        }
        if self._cluster:  # a part of the cluster that is down costs its own viewers only
            return RedisCluster.from_url(self._url, require_full_coverage=False, **options)
        return redis.Redis.from_url(self._url, **options)

    def _run(self, commands: Sequence[Command]) -> list[Any]:
        """All commands in one round trip."""
        if not commands:
            return []
        with self._faults(), self._client.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            answers: list[Any] = pipeline.execute()
        return answers

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except (redis.RedisError, RedisClusterException, OSError) as error:  # the second is no kind of the first
            where = self._url.partition("://")[2].rpartition("@")[2]  # without the password
            what = "redis cluster of" if self._cluster else "redis"
            raise Unavailable(f"{what} {where}: {type(error).__name__}: {error}") from error


def _milliseconds(ttl_s: float) -> int:
    return max(1, int(ttl_s * 1000))


def _batched(keys: Sequence[str], size: int = _BATCH_KEYS) -> Iterator[Sequence[str]]:
    return (keys[start : start + size] for start in range(0, len(keys), size))
