"""Publication of impressions in the background, after the answer: a slow disk or stream must not delay a page."""

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
"""Maximum number of queued records; further records are dropped and counted, so that memory stays bounded."""

_PAUSE_S = 0.25


class ImpressionPublisher:
    """A bounded queue in front of the spool. `send` never blocks and never raises."""

    def __init__(self, spool: Spool, on_dropped: Callable[[int], None], capacity: int = CAPACITY) -> None:
        self._spool = spool
        self._on_dropped = on_dropped
        self._queue: queue.Queue[Callable[[], Record]] = queue.Queue(capacity)
        self._in_flight = 0
        self._stopping = threading.Event()
        self._aborted = threading.Event()
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)

    def start(self) -> None:
        """Start the background thread."""
        self._thread.start()

    def send(self, make: Callable[[], Record]) -> None:
        """Queue a record; `make` is called in the background. Drop and count the record when the queue is full."""
        try:
            self._queue.put_nowait(make)
        except queue.Full:
            self._on_dropped(1)

    def stop(self, timeout_s: float = 5.0) -> None:
        """Send the queued records for at most `timeout_s`, then stop; count the records that could not be sent."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        self._aborted.set()
        unsent = self._queue.qsize() + self._in_flight
        if unsent:
            log.error("impression publisher stopped: %d impressions were not sent in time and are lost", unsent)
            self._on_dropped(unsent)

    def _run(self) -> None:
        batch: list[Record] = []
        while not self._aborted.is_set() and (batch or not (self._stopping.is_set() and self._queue.empty())):
            batch = batch or self._build_records(self._next_batch())
            self._in_flight = len(batch)
            if not batch:
                continue
            try:
                self._spool.put(batch).result()
            except Unavailable as error:
                # A second attempt may repeat records; the fold ignores event ids that it has already counted.
                log.warning(
                    "impression publisher cannot reach the spool: %s; retrying %d impressions", error, len(batch)
                )
                self._aborted.wait(_PAUSE_S)
            except Exception:  # an unexpected error must not end this thread: no later impression would be sent
                log.exception("impression publisher failed; retrying %d impressions", len(batch))
                self._aborted.wait(_PAUSE_S)
            else:
                batch = []
                self._in_flight = 0

    def _build_records(self, makers: Sequence[Callable[[], Record]]) -> list[Record]:
        records = []
        for make in makers:
            try:
                records.append(make())
            except (MainstayError, ValueError) as error:
                log.error("impression publisher dropped an invalid impression: %s", error)
                self._on_dropped(1)
        return records

    def _next_batch(self) -> list[Callable[[], Record]]:
        """Return at most BATCH queued entries; none when the queue stays empty for 0.1 s."""
        makers: list[Callable[[], Record]] = []
        with suppress(queue.Empty):
            makers.append(self._queue.get(timeout=0.1))
            while len(makers) < BATCH:
                makers.append(self._queue.get_nowait())
        return makers
