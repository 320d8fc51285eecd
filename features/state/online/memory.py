"""The online store in memory: for tests and for one process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from features.state.online.port import CasEntry


class MemoryStore:
    """A dictionary under a lock."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[bytes, float]] = {}  # key -> value, until when (unix seconds)

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """Values in the order of keys, None for what is missing or expired."""
        now = self._clock()
        with self._lock:
            found = [self._kept.get(key) for key in keys]
        return [entry[0] if entry is not None and entry[1] > now else None for entry in found]

    def put(self, entries: Mapping[str, bytes], ttl_s: float | None = None) -> None:
        """Write all."""
        until = float("inf") if ttl_s is None else self._clock() + ttl_s
        with self._lock:
            self._kept.update({key: (value, until) for key, value in entries.items()})

    def compare_and_set(self, entries: Mapping[str, CasEntry], ttl_s: float | None = None) -> list[str]:
        """Write what is still as it was read; returns the keys that are not."""
        now = self._clock()
        until = float("inf") if ttl_s is None else now + ttl_s
        refused = []
        with self._lock:
            for key, (was, value) in entries.items():
                held, expires = self._kept.get(key, (None, 0.0))
                if (held if expires > now else None) != was:
                    refused.append(key)
                else:
                    self._kept[key] = (value, until)
        return refused

    def delete(self, keys: Sequence[str]) -> None:
        """Forget."""
        with self._lock:
            for key in keys:
                self._kept.pop(key, None)

    def scan(self, prefix: str) -> Iterator[tuple[str, bytes]]:
        """Every live key under the prefix, as of now."""
        now = self._clock()
        with self._lock:
            live = [(k, v) for k, (v, until) in self._kept.items() if k.startswith(prefix) and until > now]
        return iter(live)

    def close(self) -> None:
        """Nothing to let go."""
