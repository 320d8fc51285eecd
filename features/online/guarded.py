"""An online store behind a circuit breaker, for the page path: no page waits for a server that does not answer.

Reads that fail, and those slower than `slow_s`, open the circuit; from then on each call is refused at once, and a
thread of this store's own asks the server again every half second until it answers. Only reads are judged: a server
that refuses to be written (full, or a replica) still makes personal pages.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from features.online import OnlineStore, Swap
from features.online.circuit import Circuit
from recsys.errors import Unavailable

PROBED = "probe:{mainstay}"
"""The key that a probe asks for; nobody writes it."""

SLOW_S = 0.1
"""A read that took longer counts against the server: two time-outs of a page's read."""

log = logging.getLogger("mainstay.online")


class GuardedStore:
    """The same store, refused while its circuit is open. `clock` is any that only goes forward, in seconds."""

    def __init__(
        self,
        store: OnlineStore,
        circuit: Circuit | None = None,
        slow_s: float = SLOW_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._slow_s, self._clock = store, slow_s, clock
        self._circuit = circuit or Circuit()
        self._why = ""
        self._lock = threading.Lock()
        self._closing = threading.Event()

    @property
    def fault(self) -> str | None:
        """Why reads are refused; None while they are not."""
        return None if self._circuit.closed else self._why

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """As the store's; raises Unavailable at once while the circuit is open."""
        self._refuse_if_open()
        began = self._clock()
        try:
            found = self._store.get(keys)
        except Unavailable as error:
            self._note(False, str(error))
            raise
        took_s = self._clock() - began
        self._note(took_s <= self._slow_s, f"a read took {took_s * 1000:.0f} ms")
        return found

    def put(self, entries: Mapping[str, bytes], ttl_s: float | None = None) -> None:
        """As the store's; raises Unavailable at once while the circuit is open."""
        self._refuse_if_open()
        self._store.put(entries, ttl_s)

    def swap(self, entries: Mapping[str, Swap], ttl_s: float | None = None) -> list[str]:
        """As the store's; raises Unavailable at once while the circuit is open."""
        self._refuse_if_open()
        return self._store.swap(entries, ttl_s)

    def delete(self, keys: Sequence[str]) -> None:
        """As the store's; raises Unavailable at once while the circuit is open."""
        self._refuse_if_open()
        self._store.delete(keys)

    def scan(self, prefix: str) -> Iterator[tuple[str, bytes]]:
        """As the store's; raises Unavailable at once while the circuit is open."""
        self._refuse_if_open()
        return self._store.scan(prefix)

    def close(self) -> None:
        """Let go, and probe no more; idempotent."""
        self._closing.set()
        self._store.close()

    def probe(self) -> bool:
        """Ask the server once, here and now, if that is due; whether the circuit is closed afterwards."""
        with self._lock:
            if not self._circuit.probe_due(self._clock()):
                return self._circuit.closed
            self._circuit = self._circuit.probe_begins()
        began = self._clock()
        try:
            self._store.get([PROBED])
            well, why = self._clock() - began <= self._slow_s, "a probe was slow"
        except Exception as error:  # whatever it is, the circuit must not stay half open for ever
            well, why = False, str(error)
        with self._lock:
            self._circuit = self._circuit.probed(well, self._clock())
            self._why = "" if well else why
        return well

    def _refuse_if_open(self) -> None:
        if not self._circuit.closed:
            raise Unavailable(f"not asked while it rests: {self._why}")

    def _note(self, well: bool, why: str) -> None:
        if well and not any(self._circuit.bad):
            return  # the usual case takes no lock: nothing is held against the server
        with self._lock:
            before = self._circuit
            self._circuit = before.answered(well, self._clock())
            opened = before.closed and not self._circuit.closed
            if opened:
                self._why = why
        if opened:
            log.warning("online store: pages go on without it: %s", why)
            threading.Thread(target=self._probe_until_well, name="online-probe", daemon=True).start()

    def _probe_until_well(self) -> None:
        while not self._closing.wait(self._circuit.rest_s):
            if self.probe():
                log.warning("online store: well again")
                return
