"""An online store behind circuit breakers, for the page path: no page waits for a server that does not answer.

Reads that fail or take longer than `slow_s` open the circuit. From then on every call fails at once, and a background
thread probes the server every half second until it answers. Only reads count: a server that refuses writes (because it
is full, or a replica) can still serve personal pages.

Each node of a cluster has its own circuit breaker, so a failed node does not affect the viewers of the other nodes. A
probe reaches the node that failed: its key shares the hash tag of a key whose read failed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from features.state.online.circuit_breaker import CircuitBreaker
from features.state.online.port import CasEntry, OnlineStore, Sharded
from recsys.domain.errors import Unavailable

SLOW_S = 0.1
"""A read that takes longer counts as a failure: twice the timeout of a page's read."""

logger = logging.getLogger("mainstay.online")


class BreakerStore:
    """A store that fails fast while a circuit is open. `clock` is a monotonic clock, in seconds."""

    def __init__(
        self,
        store: OnlineStore,
        circuit: CircuitBreaker | None = None,
        slow_s: float = SLOW_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Wrap a store. `circuit` is the initial breaker of the server, or of each node if the store is `Sharded`."""
        self._store, self._slow_s, self._clock = store, slow_s, clock
        self._node_of = store.node_of if isinstance(store, Sharded) else None
        self._initial = circuit or CircuitBreaker()
        self._nodes: dict[str, _NodeBreaker] = {}
        self._closing = threading.Event()

    @property
    def fault(self) -> str | None:
        """Return the nodes whose circuit is open and the reasons; None while all are closed."""
        open_ = sorted((name, node.reason) for name, node in self._nodes.copy().items() if not node.circuit.closed)
        return "; ".join(f"{name}: {reason}" if name else reason for name, reason in open_) or None

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the values. Raises Unavailable at once while the circuit of a key's node is open."""
        parts = self._parts(keys)
        for name in parts:
            self._refuse_if_open(name)
        if len(parts) == 1:
            return self._get(*next(iter(parts.items())))
        values = dict[str, bytes | None]()
        for name, node_keys in parts.items():  # one node at a time, so that each result counts for its node
            values.update(zip(node_keys, self._get(name, node_keys), strict=True))
        return [values[key] for key in keys]

    def put(self, entries: Mapping[str, bytes], ttl_s: float | None = None) -> None:
        """Write all entries. Raises Unavailable at once while the circuit of a key's node is open."""
        self._refuse_if_any_open(entries)
        self._store.put(entries, ttl_s)

    def compare_and_set(self, entries: Mapping[str, CasEntry], ttl_s: float | None = None) -> list[str]:
        """Compare and set entries. Raises Unavailable at once while the circuit of a key's node is open."""
        self._refuse_if_any_open(entries)
        return self._store.compare_and_set(entries, ttl_s)

    def delete(self, keys: Sequence[str]) -> None:
        """Delete keys. Raises Unavailable at once while the circuit of a key's node is open."""
        self._refuse_if_any_open(keys)
        self._store.delete(keys)

    def scan(self, prefix: str) -> Iterator[tuple[str, bytes]]:
        """Return every live key under the prefix. Raises Unavailable at once while any circuit is open."""
        for name in self._nodes.copy():
            self._refuse_if_open(name)
        return self._store.scan(prefix)

    def close(self) -> None:
        """Stop probing and close the store; idempotent."""
        self._closing.set()
        self._store.close()

    def _parts(self, keys: Iterable[str]) -> dict[str, list[str]]:
        """Return node -> its keys, in their order."""
        if self._node_of is None:
            return {"": list(keys)}
        parts = dict[str, list[str]]()
        for key in keys:
            parts.setdefault(self._node_of(key), []).append(key)
        return parts or {"": []}

    def _get(self, name: str, keys: Sequence[str]) -> list[bytes | None]:
        began = self._clock()
        try:
            values = self._store.get(keys)
        except Unavailable as error:
            self._record(name, keys, False, str(error))
            raise
        took_s = self._clock() - began
        self._record(name, keys, took_s <= self._slow_s, f"read took {took_s * 1000:.0f} ms")
        return values

    def _refuse_if_any_open(self, keys: Iterable[str]) -> None:
        for name in self._parts(keys):
            self._refuse_if_open(name)

    def _refuse_if_open(self, name: str) -> None:
        node = self._nodes.get(name)
        if node is not None and not node.circuit.closed:
            raise Unavailable(f"circuit open after: {node.reason}")

    def _record(self, name: str, keys: Sequence[str], ok: bool, reason: str) -> None:
        node = self._nodes.get(name)
        if ok and (node is None or not any(node.circuit.failures)):
            return  # the usual case takes no lock: the node has no recent failures
        node = node or self._nodes.setdefault(name, _NodeBreaker(self._initial))
        if node.record_result(ok, reason, keys, self._clock()):
            logger.warning(
                "online store%s unavailable: %s; serving degraded pages", f" node {name}" if name else "", reason
            )
            probing = threading.Thread(target=self._probe_until_healthy, args=(name, node), name="online-probe")
            probing.daemon = True
            probing.start()

    def _probe_until_healthy(self, name: str, node: _NodeBreaker) -> None:
        while not self._closing.wait(node.circuit.open_s):
            if self._probe(node):
                logger.warning("online store%s available again", f" node {name}" if name else "")
                return

    def _probe(self, node: _NodeBreaker) -> bool:
        """Probe the node once if a probe is due; return whether its circuit is closed afterwards."""
        if not node.begin_probe(self._clock()):
            return node.circuit.closed
        began = self._clock()
        try:
            self._store.get([probe_key(node.key)])
            ok, reason = self._clock() - began <= self._slow_s, "slow probe"
        except Exception as error:  # any error: the circuit must not stay half open forever
            ok, reason = False, str(error)
        node.record_probe(ok, reason, self._clock())
        return ok


class _NodeBreaker:
    """The circuit breaker of one node, the reason why it is open, and a key whose read failed."""

    def __init__(self, circuit: CircuitBreaker) -> None:
        self.circuit, self.reason, self.key = circuit, "", ""
        self._lock = threading.Lock()

    def record_result(self, ok: bool, reason: str, keys: Sequence[str], now: float) -> bool:
        """Record the result of a read; return whether it opened the circuit."""
        with self._lock:
            before = self.circuit
            after = before.record_result(ok, now)
            opened = before.closed and not after.closed
            if opened:
                self.reason, self.key = reason, keys[0] if keys else ""
            self.circuit = after
        return opened

    def begin_probe(self, now: float) -> bool:
        """Start a probe if one is due; return whether it started."""
        with self._lock:
            due = self.circuit.probe_due(now)
            if due:
                self.circuit = self.circuit.begin_probe()
        return due

    def record_probe(self, ok: bool, reason: str, now: float) -> None:
        """Record the result of a probe."""
        with self._lock:
            self.reason = "" if ok else reason
            self.circuit = self.circuit.record_probe(ok, now)


def probe_key(key: str) -> str:
    """Return an unused key in the same hash slot, or the key itself if it has no hash tag.

    >>> probe_key("viewer:{v1}"), probe_key("viewer:{}x}")
    ('probe:{v1}', 'viewer:{}x}')
    """
    tag = key.partition("{")[2].partition("}")[0]
    return f"probe:{{{tag}}}" if tag else key
