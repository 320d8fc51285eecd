"""Corrupt states: values in the online store that do not decode as the state of their key.

Readers skip and count them (`CorruptStateCounter`). Workers quarantine the bytes (`quarantine`) under the key
`quarantine:KEY:HASH`, where they stay for thirty days (`mainstay quarantine list`) or until the online store is
rebuilt. The fold continues from a state refolded from the event log or, if that would take too long, from an empty
state; `mainstay verify` reports the latter, and a rebuild repairs it (`features.worker.repair`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import TypeVar

import msgspec

from features.state.codec import StateError, decode_state, encode_state
from features.state.keys import QUARANTINE
from features.state.online.port import OnlineStore
from recsys.domain.decay import DAY_S

QUARANTINE_TTL_S = 30 * DAY_S
LOG_EVERY_S = 60.0

logger = logging.getLogger("mainstay.online")
S = TypeVar("S")


class CorruptState(msgspec.Struct, frozen=True):
    """A corrupt value that was read at a key.

    at        unix second at which it was found
    repaired  whether its replacement contains all events; if not, the replacement is empty or may lack events
    """

    key: str
    cause: str
    at: float
    repaired: bool
    raw: bytes


_decoder = msgspec.msgpack.Decoder(CorruptState)


def quarantine(online: OnlineStore, states: Iterable[CorruptState]) -> None:
    """Store corrupt states in quarantine; the same bytes at the same key are stored once. Raises Unavailable."""
    if entries := {_entry_key(state): encode_state(state) for state in states}:
        online.put(entries, QUARANTINE_TTL_S)


def quarantined(online: OnlineStore, key: str | None = None) -> Iterator[CorruptState]:
    """Return the corrupt states in quarantine, all of them or those of one key. Raises Unavailable."""
    return (state for _, state in _entries(online, key))


def discard(online: OnlineStore, keys: Sequence[str] | None = None) -> int:
    """Delete the corrupt states of these keys, or all, from quarantine; return their number. Raises Unavailable."""
    requested = None if keys is None else set(keys)
    # Scan below a single key if possible, since some stores visit all keys in a scan.
    single_key = next(iter(requested)) if requested is not None and len(requested) == 1 else None
    names = [name for name, state in _entries(online, single_key) if requested is None or state.key in requested]
    online.delete(names)
    return len(names)


def _entries(online: OnlineStore, key: str | None) -> Iterator[tuple[str, CorruptState]]:
    for name, raw in online.scan(QUARANTINE if key is None else f"{QUARANTINE}{key}:"):
        try:
            state = decode_state(raw, _decoder)
        except StateError as error:  # the quarantine entry is corrupt as well
            state = CorruptState(name.removeprefix(QUARANTINE).rpartition(":")[0], str(error), 0.0, False, raw)
        if key in (None, state.key):
            yield name, state


def _entry_key(state: CorruptState) -> str:
    return f"{QUARANTINE}{state.key}:{blake2b(state.raw, digest_size=8).hexdigest()}"


class CorruptStateCounter:
    """A counter of corrupt states that a reader skips; it logs at most once a minute. Safe for threads."""

    def __init__(
        self, on_skip: Callable[[str], object] = lambda kind: None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Create a counter.

        on_skip  called with the kind of each skipped state: the part of its key before the first colon
        clock    a monotonic clock, in seconds
        """
        self._on_skip, self._clock = on_skip, clock
        self._lock = threading.Lock()
        self._unlogged, self._logged_at = 0, float("-inf")

    def decode(self, key: str, raw: bytes, decode: Callable[[str, bytes], S]) -> S | None:
        """Return the state that was read at this key, or None if it is corrupt."""
        try:
            return decode(key, raw)
        except StateError as error:
            self.record(key, error)
            return None

    def record(self, key: str, error: StateError) -> None:
        """Count a corrupt state that was skipped."""
        self._on_skip(key.partition(":")[0])
        with self._lock:
            self._unlogged += 1
            if self._clock() < self._logged_at + LOG_EVERY_S:
                return
            count, self._unlogged, self._logged_at = self._unlogged, 0, self._clock()
        logger.warning("online store: %d corrupt state(s) skipped; the latest is %s: %s", count, key, error)
