"""An online store in Redis or Valkey, a single server or a cluster.

Timeouts are short and nothing is retried, since a page cannot wait. Each command names one key (a compare-and-set on a
single server names several), in pipelines without transactions, so keys may be on any node of a cluster. A server that
must not lose data needs `appendonly yes`.

SCAN visits every key, millions of viewers for a few thousand items. So prefixes that are scanned often (`indexed`) also
have an index: a sorted set `index:{PREFIX}` of their keys by expiry time. A key is added to the index before it is
written. The empty member marks the index as complete; if it is missing, after an upgrade or because the server lost
data, the next scan builds the index with one SCAN.
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
INDEX_PRUNE_S = 86_400.0  # keys leave the index this long after they expire, since the clocks of machines may differ
_BATCH_KEYS = 500  # keys per round trip
_CAS_BATCH_KEYS = 100  # keys per script call, which blocks the server for a fraction of a millisecond
_CAS_SCRIPT = """
local refused, px = {}, ARGV[1]
for n, key in ipairs(KEYS) do
  local was = ARGV[3 * n - 1] == '1' and ARGV[3 * n]
  if redis.call('GET', key) ~= was then refused[#refused + 1] = n
  elseif px == '' then redis.call('SET', key, ARGV[3 * n + 1])
  else redis.call('SET', key, ARGV[3 * n + 1], 'PX', px) end
end
return refused
"""  # sent as text, not by hash: this works after a server restart, and in pipelines to a cluster
_COMPLETE_MARKER = ""

Command = tuple[Any, ...]


class RedisStore:
    """An online store in one Redis database or cluster; each thread uses a connection of the pool."""

    def __init__(
        self,
        url: str,
        timeout_s: float = 0.05,
        prefix: str = "",
        *,
        cluster: bool = False,
        indexed: Sequence[str] = (),
    ) -> None:
        """Create a store without connecting to the server yet.

        timeout_s  limit of every round trip, including the connection
        prefix     prepended to every key in the server
        cluster    the server is a node of a Redis Cluster; it names the other nodes
        indexed    prefixes such as `item:` whose scans must not visit other keys
        """
        self._url, self._prefix, self._timeout_s, self._cluster = url, prefix, timeout_s, cluster
        self._indexed = tuple(indexed)
        self._cached_client: Any = None
        self._connect_lock = threading.Lock()

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the values in the order of the keys, None for missing or expired keys. Raises Unavailable."""
        return [
            value for batch in _batched(keys) for value in self._run([("GET", self._prefix + key) for key in batch])
        ]

    def put(self, entries: Mapping[str, bytes], ttl_s: float | None = None) -> None:
        """Write all entries, in their order. Raises Unavailable, in which case some entries may be written."""
        ttl = () if ttl_s is None else ("PX", _milliseconds(ttl_s))
        until = float("inf") if ttl_s is None else time.time() + ttl_s
        for batch in _batched(list(entries)):
            index_commands = self._add_to_index(dict.fromkeys(batch, until))
            set_commands: list[Command] = [("SET", self._prefix + key, entries[key], *ttl) for key in batch]
            if self._cluster and index_commands:
                self._run(index_commands)  # nodes run commands in any order, so the index is written first
                index_commands = []
            self._run([*index_commands, *set_commands])

    def compare_and_set(self, entries: Mapping[str, CasEntry], ttl_s: float | None = None) -> list[str]:
        """Write the entries whose stored value is still the one that was read; return the other keys.

        Raises Unavailable, in which case some entries may be written.
        """
        px, refused = "" if ttl_s is None else _milliseconds(ttl_s), list[str]()
        until = float("inf") if ttl_s is None else time.time() + ttl_s
        for batch in _batched(list(entries)):
            self._run(self._add_to_index(dict.fromkeys(batch, until)))
            groups = list(_batched(batch, 1 if self._cluster else _CAS_BATCH_KEYS))  # a script runs on one node
            answers = self._run([self._cas_commands(group, entries, px) for group in groups])
            refused += [
                group[n - 1] for group, refused_numbers in zip(groups, answers, strict=True) for n in refused_numbers
            ]
        return refused

    def delete(self, keys: Sequence[str]) -> None:
        """Delete these keys. Raises Unavailable."""
        for batch in _batched(keys):
            index_entries = [(index, key) for key in batch if (index := self._index_of(key))]
            self._run([("DEL", self._prefix + key) for key in batch])
            self._run([("ZREM", index, key) for index, key in index_entries])

    def scan(self, prefix: str) -> Iterator[tuple[str, bytes]]:
        """Return every live key under the prefix, once. Raises Unavailable."""
        index = self._index_of(prefix)
        batches = (
            self._scan_index(index, prefix) if index and self._is_index_complete(index) else self._scan_all(prefix)
        )
        yielded: set[str] = set()  # a cursor may return a key twice while the table grows
        for batch in batches:
            keys = [key for key in dict.fromkeys(batch) if key not in yielded]
            yielded.update(keys)
            yield from ((k, v) for k, v in zip(keys, self.get(keys), strict=True) if v is not None)

    def node_of(self, key: str) -> str:
        """Return `HOST:PORT` of the cluster node that holds this key, without a request.

        The result is empty for a single server, before the first connection to the cluster, and if no node has the
        key's slot.
        """
        if not self._cluster or self._cached_client is None:
            return ""
        with suppress(redis.RedisError, RedisClusterException):
            return str(self._cached_client.get_node_from_key(self._prefix + key).name)
        return ""

    def close(self) -> None:
        """Disconnect; idempotent."""
        if self._cached_client is None:
            return
        if self._cluster:  # redis-py 8 does not close the connections of a cluster that was opened by URL
            for node in self._cached_client.get_nodes():
                if node.redis_connection is not None:
                    node.redis_connection.connection_pool.disconnect()
        self._cached_client.close()

    def _cas_commands(self, keys: Sequence[str], entries: Mapping[str, CasEntry], px: int | str) -> Command:
        arguments: list[Any] = [px]
        for key in keys:
            expected, value = entries[key]
            arguments += (int(expected is not None), b"" if expected is None else expected, value)
        return ("EVAL", _CAS_SCRIPT, len(keys), *(self._prefix + key for key in keys), *arguments)

    def _scan_all(self, prefix: str) -> Iterator[list[str]]:
        """Yield the keys under the prefix by visiting all keys of every node; a key may occur twice."""
        pattern = "".join(f"\\{c}" if c in "*?[]\\^" else c for c in self._prefix + prefix) + "*"
        options: dict[str, Any] = {
            "match": pattern,
            "count": _BATCH_KEYS,
            "_type": "string",
        }  # strings only, so that indexes are excluded
        for node in self._nodes():
            cursor: int | str = 0
            while True:
                with self._map_errors():
                    answer = self._client.scan(cursor, **options, **node)
                # a cluster returns a cursor per node
                cursor = next(iter(answer[0].values())) if isinstance(answer[0], dict) else answer[0]
                yield [_text(key).removeprefix(self._prefix) for key in answer[1]]
                if int(cursor) == 0:
                    break

    def _scan_index(self, index: str, prefix: str) -> Iterator[list[str]]:
        """Yield the keys of the index under the prefix; expired keys may be among them."""
        now, cursor = time.time(), 0
        while True:
            with self._map_errors():
                cursor, pairs = self._client.zscan(index, cursor, count=_BATCH_KEYS)
            entries = [(_text(key), until) for key, until in pairs]
            yield [
                key
                for key, until in entries
                if key != _COMPLETE_MARKER and until > now - INDEX_PRUNE_S and key.startswith(prefix)
            ]
            if int(cursor) == 0:
                break
        with self._map_errors(), suppress(redis.ResponseError):  # a replica or a full server keeps them longer
            self._client.zremrangebyscore(index, "-inf", now - INDEX_PRUNE_S)

    def _is_index_complete(self, index: str) -> bool:
        """Return whether the index contains every key of its prefix, after building it if the server accepts writes."""
        with self._map_errors():
            if self._client.zscore(index, _COMPLETE_MARKER) is not None:
                return True
        try:
            self._build_index(index)
        except Unavailable as error:
            if isinstance(error.__cause__, redis.ResponseError):
                return False
            raise
        return True

    def _build_index(self, index: str) -> None:
        """Add all existing keys to the index; keys that are written meanwhile add themselves. Raises Unavailable."""
        prefix = next(indexed for indexed in self._indexed if index == self._index_of(indexed))
        for keys in self._scan_all(prefix):
            ttl_ms = self._run([("PTTL", self._prefix + key) for key in keys])
            now, until = time.time(), dict[str, float]()
            for key, ms in zip(keys, ttl_ms, strict=True):
                until[key] = now + ms / 1000 if ms >= 0 else float("inf")
            self._run(self._add_to_index(until, "NX"))  # NX: concurrent writes have a newer expiry
        with self._map_errors():
            self._client.zadd(index, {_COMPLETE_MARKER: float("inf")})

    def _add_to_index(self, until: Mapping[str, float], *flags: str) -> list[Command]:
        """Return the commands that add these keys to their indexes with their expiry times."""
        pairs: dict[str, list[Any]] = {}
        for key, at in until.items():
            if index := self._index_of(key):
                pairs.setdefault(index, []).extend((at, key))
        return [("ZADD", index, *flags, *members) for index, members in pairs.items()]

    def _index_of(self, key: str) -> str:
        """Return the index of this key; empty if there is none."""
        return next((f"{self._prefix}{INDEX}{{{indexed}}}" for indexed in self._indexed if key.startswith(indexed)), "")

    def _nodes(self) -> Iterable[dict[str, Any]]:
        """Return the options of a command on all keys: one set per primary node of a cluster, else one empty set."""
        if not self._cluster:
            return [{}]
        with self._map_errors():
            return [{"target_nodes": node} for node in self._client.get_primaries()]

    @property
    def _client(self) -> Any:
        """Return the client, created on first use. A cluster client connects at once to discover the nodes.

        Other threads wait for the connecting thread no longer than `timeout_s`.
        """
        if self._cached_client is None:
            if not self._connect_lock.acquire(timeout=self._timeout_s):
                raise TimeoutError("another thread is still connecting")
            try:
                if self._cached_client is None:
                    self._cached_client = self._connect()
            finally:
                self._connect_lock.release()
        return self._cached_client

    def _connect(self) -> Any:
        options: dict[str, Any] = {
            "socket_timeout": self._timeout_s,
            "socket_connect_timeout": self._timeout_s,
            "retry": Retry(NoBackoff(), 0),
            "decode_responses": False,
        }
        if self._cluster:  # nodes that are down affect only their own viewers
            return RedisCluster.from_url(self._url, require_full_coverage=False, **options)
        return redis.Redis.from_url(self._url, **options)

    def _run(self, commands: Sequence[Command]) -> list[Any]:
        """Run all commands in one round trip and return their results."""
        if not commands:
            return []
        with self._map_errors(), self._client.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            answers: list[Any] = pipeline.execute()
        return answers

    @contextmanager
    def _map_errors(self) -> Iterator[None]:
        try:
            yield
        except (redis.RedisError, RedisClusterException, OSError) as error:  # the second does not derive from the first
            address = self._url.partition("://")[2].rpartition("@")[2]  # without the password
            server = "redis cluster at" if self._cluster else "redis"
            raise Unavailable(f"{server} {address}: {type(error).__name__}: {error}") from error


def _text(key: bytes) -> str:
    """Return a key as text. A key that is not UTF-8 is none of ours; its text is the key of no value."""
    return bytes(key).decode(errors="replace")


def _milliseconds(ttl_s: float) -> int:
    return max(1, int(ttl_s * 1000))


def _batched(keys: Sequence[str], size: int = _BATCH_KEYS) -> Iterator[Sequence[str]]:
    return (keys[start : start + size] for start in range(0, len(keys), size))
