"""An online store in memory, for tests and for a single process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from features.state.online.port import CasEntry


class MemoryStore:
    """An online store in a dictionary, guarded by a lock."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: dict[str, tuple[bytes, float]] = {}  # key -> value, expiry (unix seconds)

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the values in the order of the keys, None for missing or expired keys."""
        now = self._clock()
        with self._lock:
            entries = [self._entries.get(key) for key in keys]
        return [entry[0] if entry is not None and entry[1] > now else None for entry in entries]

    def put(self, entries: Mapping[str, bytes], ttl_s: float | None = None) -> None:
        """Write all entries."""
        until = float("inf") if ttl_s is None else self._clock() + ttl_s
        with self._lock:
            self._entries.update({key: (value, until) for key, value in entries.items()})

    def compare_and_set(self, entries: Mapping[str, CasEntry], ttl_s: float | None = None) -> list[str]:
        """Write the entries whose stored value is still the one that was read; return the other keys."""
        now = self._clock()
        until = float("inf") if ttl_s is None else now + ttl_s
        refused = []
        with self._lock:
            for key, (expected, value) in entries.items():
                current, expires = self._entries.get(key, (None, 0.0))
                if (current if expires > now else None) != expected:
                    refused.append(key)
                else:
                    self._entries[key] = (value, until)
        return refused

    def delete(self, keys: Sequence[str]) -> None:
        """Delete these keys."""
        with self._lock:
            for key in keys:
                self._entries.pop(key, None)

    def scan(self, prefix: str) -> Iterator[tuple[str, bytes]]:
        """Return every live key under the prefix, as of the call."""
        now = self._clock()
        with self._lock:
            live = [(k, v) for k, (v, until) in self._entries.items() if k.startswith(prefix) and until > now]
        return iter(live)

    def close(self) -> None:
        """Do nothing: there is nothing to release."""
