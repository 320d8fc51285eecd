"""What readers do about a state that is none: skip it, count it, say so once a minute. Workers mend it (`aside`)."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from features.state.codec import StateError

LOG_EVERY_S = 60.0

logger = logging.getLogger("mainstay.online")
S = TypeVar("S")


class CorruptStateCounter:
    """Counts what was skipped. For any thread; `clock` is any that only goes forward, in seconds."""

    def __init__(
        self, on_skip: Callable[[str], object] = lambda kind: None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`on_skip` is told the kind of each state that is skipped: the word before its key's first colon."""
        self._on_skip, self._clock = on_skip, clock
        self._lock = threading.Lock()
        self._unsaid, self._said_at = 0, float("-inf")

    def decode(self, key: str, raw: bytes, decode: Callable[[str, bytes], S]) -> S | None:
        """The state that was read at this key; None when it cannot be read."""
        try:
            return decode(key, raw)
        except StateError as error:
            self.record(key, error)
            return None

    def record(self, key: str, error: StateError) -> None:
        """Note that the state at this key was left out."""
        self._on_skip(key.partition(":")[0])
        with self._lock:
            self._unsaid += 1
            if self._clock() < self._said_at + LOG_EVERY_S:
                return
            count, self._unsaid, self._said_at = self._unsaid, 0, self._clock()
        logger.warning("%d time(s) a state could not be read and was left out; the last, %s: %s", count, key, error)
