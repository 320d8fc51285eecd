"""Impressions leave after the answer, in the background: a slow disk or stream must not slow a page."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from features.events.spool.port import Spool
from features.events.stream.port import Record
from recsys.domain.errors import MainstayError, Unavailable

log = logging.getLogger("mainstay.serving")

BATCH = 200
CAPACITY = 10_000
"""Records that wait at most; what comes on top is dropped and counted, since memory is finite and pages go first."""

_PAUSE_S = 0.25


class ImpressionPublisher:
    """A bounded queue in front of the spool. `send` never blocks and never raises."""

    def __init__(self, spool: Spool, on_dropped: Callable[[int], None], capacity: int = CAPACITY) -> None:
        self._spool = spool
        self._on_dropped = on_dropped
        self._waiting: queue.Queue[Callable[[], Record]] = queue.Queue(capacity)
        self._in_hand = 0
        self._stopping = threading.Event()
        self._given_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def send(self, make: Callable[[], Record]) -> None:
        """Queue one record, to be made where nobody waits for it; drops and counts it when the queue is full."""
        try:
            self._waiting.put_nowait(make)
        except queue.Full:
            self._on_dropped(1)

    def stop(self, timeout_s: float = 5.0) -> None:
        """Send what waits, as far as the stream takes it within `timeout_s`, and end; what is left is counted."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        self._given_up.set()
        left = self._waiting.qsize() + self._in_hand
        if left:
            log.error("%d impressions could not be sent before shutdown", left)
            self._on_dropped(left)

    def _run(self) -> None:
        batch: list[Record] = []
        while not self._given_up.is_set() and (batch or not (self._stopping.is_set() and self._waiting.empty())):
            batch = batch or self._made(self._next())
            self._in_hand = len(batch)
            if not batch:
                continue
            try:
                self._spool.put(batch).result()
            except Unavailable as error:
                # Sending the batch again may repeat records; the fold drops an event id it has seen.
                log.warning("impressions wait: %s", error)
                self._given_up.wait(_PAUSE_S)
            except Exception:  # a bug below must not end this thread: everything after it would wait for ever
                log.exception("impressions wait")
                self._given_up.wait(_PAUSE_S)
            else:
                batch = []
                self._in_hand = 0

    def _made(self, waiting: Sequence[Callable[[], Record]]) -> list[Record]:
        batch = []
        for make in waiting:
            try:
                batch.append(make())
            except (MainstayError, ValueError) as error:
                log.error("an impression could not be written: %s", error)
                self._on_dropped(1)
        return batch

    def _next(self) -> list[Callable[[], Record]]:
        """What waits, at most BATCH; empty when nothing came for a moment."""
        batch: list[Callable[[], Record]] = []
        with suppress(queue.Empty):
            batch.append(self._waiting.get(timeout=0.1))
            while len(batch) < BATCH:
                batch.append(self._waiting.get_nowait())
        return batch
