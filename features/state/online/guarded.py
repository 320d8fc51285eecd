"""An online store behind circuit breakers, for the page path: no page waits for a server that does not answer.

Reads that fail, and those slower than `slow_s`, open the circuit; from then on each call is refused at once, and a
thread of this store's own asks the server again every half second until it answers. Only reads are judged: a server
that refuses to be written (full, or a replica) still makes personal pages.

Each node of a cluster has a circuit of its own, for the others' viewers notice nothing of its fall. A probe asks the
node that failed: its key shares the hash tag of a key that did.
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
"""A read that took longer counts against the server: two time-outs of a page's read."""

log = logging.getLogger("mainstay.online")


class BreakerStore:
    """The same store, refused while a circuit is open. `clock` is any that only goes forward, in seconds."""

    def __init__(
        self,
        store: OnlineStore,
        circuit: CircuitBreaker | None = None,
        slow_s: float = SLOW_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`circuit` is what is known of a server, or of a node of one that is `Divided`, before it was asked."""
        self._store, self._slow_s, self._clock = store, slow_s, clock
        self._node_of = store.node_of if isinstance(store, Sharded) else None
        self._unasked = circuit or CircuitBreaker()
        self._nodes: dict[str, _NodeBreaker] = {}
        self._closing = threading.Event()

    @property
    def fault(self) -> str | None:
        """Why reads are refused, of which nodes; None while they are not."""
        open_ = sorted((name, node.why) for name, node in self._nodes.copy().items() if not node.circuit.closed)
        return "; ".join(f"{name}: {why}" if name else why for name, why in open_) or None

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """As the store's; raises Unavailable at once while the circuit of a key's node is open."""
        parts = self._parts(keys)
        for name in parts:
            self._refuse_if_open(name)
        if len(parts) == 1:
            return self._get(*next(iter(parts.items())))
        found = dict[str, bytes | None]()
        for name, some in parts.items():  # one by one, so that each answer is held against the node that gave it
            found.update(zip(some, self._get(name, some), strict=True))
        return [found[key] for key in keys]

    def put(self, entries: Mapping[str, bytes], ttl_s: float | None = None) -> None:
        """As the store's; raises Unavailable at once while the circuit of a key's node is open."""
        self._refuse_if_any_open(entries)
        self._store.put(entries, ttl_s)

    def compare_and_set(self, entries: Mapping[str, CasEntry], ttl_s: float | None = None) -> list[str]:
        """As the store's; raises Unavailable at once while the circuit of a key's node is open."""
        self._refuse_if_any_open(entries)
        return self._store.compare_and_set(entries, ttl_s)

    def delete(self, keys: Sequence[str]) -> None:
        """As the store's; raises Unavailable at once while the circuit of a key's node is open."""
        self._refuse_if_any_open(keys)
        self._store.delete(keys)

    def scan(self, prefix: str) -> Iterator[tuple[str, bytes]]:
        """As the store's; raises Unavailable at once while any circuit is open."""
        for name in self._nodes.copy():
            self._refuse_if_open(name)
        return self._store.scan(prefix)

    def close(self) -> None:
        """Let go, and probe no more; idempotent."""
        self._closing.set()
        self._store.close()

    def _parts(self, keys: Iterable[str]) -> dict[str, list[str]]:
        """Node -> its keys among these, in their order."""
        if self._node_of is None:
            return {"": list(keys)}
        parts = dict[str, list[str]]()
        for key in keys:
            parts.setdefault(self._node_of(key), []).append(key)
        return parts or {"": []}

    def _get(self, name: str, keys: Sequence[str]) -> list[bytes | None]:
        began = self._clock()
        try:
            found = self._store.get(keys)
        except Unavailable as error:
            self._record(name, keys, False, str(error))
            raise
        took_s = self._clock() - began
        self._record(name, keys, took_s <= self._slow_s, f"a read took {took_s * 1000:.0f} ms")
        return found

    def _refuse_if_any_open(self, keys: Iterable[str]) -> None:
        for name in self._parts(keys):
            self._refuse_if_open(name)

    def _refuse_if_open(self, name: str) -> None:
        node = self._nodes.get(name)
        if node is not None and not node.circuit.closed:
            raise Unavailable(f"not asked while it rests: {node.why}")

    def _record(self, name: str, keys: Sequence[str], well: bool, why: str) -> None:
        node = self._nodes.get(name)
        if well and (node is None or not any(node.circuit.failures)):
            return  # the usual case takes no lock: nothing is held against the node
        node = node or self._nodes.setdefault(name, _NodeBreaker(self._unasked))
        if node.record_result(well, why, keys, self._clock()):
            log.warning("online store: pages go on without %s: %s", name or "it", why)
            probing = threading.Thread(target=self._probe_until_healthy, args=(name, node), name="online-probe")
            probing.daemon = True
            probing.start()

    def _probe_until_healthy(self, name: str, node: _NodeBreaker) -> None:
        while not self._closing.wait(node.circuit.open_s):
            if self._probe(node):
                log.warning("online store: %s well again", name or "it is")
                return

    def _probe(self, node: _NodeBreaker) -> bool:
        """Ask the node once, here and now, if that is due; whether its circuit is closed afterwards."""
        if not node.begin_probe(self._clock()):
            return node.circuit.closed
        began = self._clock()
        try:
            self._store.get([probe_key(node.key)])
            well, why = self._clock() - began <= self._slow_s, "a probe was slow"
        except Exception as error:  # whatever it is, the circuit must not stay half open for ever
            well, why = False, str(error)
        node.record_probe(well, why, self._clock())
        return well


class _NodeBreaker:
    """The circuit of one node, why it is open, and a key that the node did not give."""

    def __init__(self, circuit: CircuitBreaker) -> None:
        self.circuit, self.why, self.key = circuit, "", ""
        self._lock = threading.Lock()

    def record_result(self, well: bool, why: str, keys: Sequence[str], now: float) -> bool:
        """Note an answer; whether it opened the circuit."""
        with self._lock:
            before = self.circuit
            after = before.record_result(well, now)
            opened = before.closed and not after.closed
            if opened:
                self.why, self.key = why, keys[0] if keys else ""
            self.circuit = after
        return opened

    def begin_probe(self, now: float) -> bool:
        """Whether a probe is due; then it is under way from here on."""
        with self._lock:
            due = self.circuit.probe_due(now)
            if due:
                self.circuit = self.circuit.begin_probe()
        return due

    def record_probe(self, well: bool, why: str, now: float) -> None:
        """Note what a probe found."""
        with self._lock:
            self.why = "" if well else why
            self.circuit = self.circuit.record_probe(well, now)


def probe_key(key: str) -> str:
    """A key that nobody writes, in the same hash slot; the key itself where it has no hash tag.

    >>> probe_key("viewer:{v1}"), probe_key("viewer:{}x}")
    ('probe:{v1}', 'viewer:{}x}')
    """
    tag = key.partition("{")[2].partition("}")[0]
    return f"probe:{{{tag}}}" if tag else key
