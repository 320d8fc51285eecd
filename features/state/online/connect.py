"""Open an online store by URL: the only module that names the adapters."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode

from features.sqlite import sqlite_path
from features.state.keys import INDEXED
from features.state.online.memory import MemoryStore
from features.state.online.port import OnlineStore
from features.state.online.sqlite import SqliteStore
from recsys.domain.errors import InvalidInput


def open_online(url: str, timeout_s: float = 0.05) -> OnlineStore:
    """Open the online store at `sqlite:///PATH`, `redis://HOST:PORT/DB` (also `rediss://`, `valkey://`) or `memory://`.

    `redis://…?prefix=NAME` restricts the store to keys that begin with `NAME:`, so that several engines can share one
    server; `redis://…?cluster=1` names any node of a Redis Cluster.
    `timeout_s` limits each call; the default suits the page path, workers pass a larger value. Raises InvalidInput for
    any other URL, or for Redis without the `redis` extra; raises Unavailable if an SQLite file cannot be opened.
    """
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
        return SqliteStore(sqlite_path(url), timeout_s)
    if scheme in ("redis", "rediss", "valkey") and rest:
        try:
            from features.state.online.redis import RedisStore  # optional dependency
        except ModuleNotFoundError as error:
            raise InvalidInput(
                f"online store {url.rpartition('@')[2]!r} needs: pip install mainstay-recsys[redis]"
            ) from error
        address, _, query = rest.partition("?")
        options = dict(parse_qsl(query))
        prefix, cluster = options.pop("prefix", ""), options.pop("cluster", "")
        if cluster not in ("", "0", "1"):
            raise InvalidInput(
                f"online store {url.rpartition('@')[2]!r}: cluster={cluster!r} is invalid, expected 1 or 0"
            )
        address += f"?{urlencode(options)}" if options else ""
        scheme = "redis" if scheme == "valkey" else scheme
        return RedisStore(
            f"{scheme}://{address}",
            timeout_s,
            f"{prefix}:" if prefix else "",
            cluster=cluster == "1",
            indexed=INDEXED,
        )
    if scheme == "memory":
        return MemoryStore()
    raise InvalidInput(f"online store {url!r}: expected sqlite:///PATH, redis://HOST:PORT/DB or memory://")
