"""Group commit: concurrent callers share one write. The slower the disk, the larger the groups."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from features.events.stream.port import Record
from recsys.domain.errors import MainstayError, Unavailable

GROUP_MAX_RECORDS = 5_000  # maximum records of one write
PENDING_MAX_RECORDS = 50_000  # maximum records that wait for a write; further records are rejected at once


class GroupCommit:
    """A thread that passes all pending records to `write` and completes the futures of their callers."""

    def __init__(self, write: Callable[[Sequence[Record]], object], name: str) -> None:
        self._write = write
        self._pending: list[tuple[Sequence[Record], Future[None]]] = []
        self._n_pending = 0
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, records: Sequence[Record]) -> Future[None]:
        """Queue records; the future completes when `write` has returned for them, or fails with its exception."""
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()  # a caller that stops waiting cannot cancel the write
        with self._changed:
            if self._stopping:
                future.set_exception(Unavailable("shutting down: no more events are accepted"))
            elif self._n_pending + len(records) > PENDING_MAX_RECORDS:
                future.set_exception(Unavailable(f"overloaded: {self._n_pending:,} events are waiting to be written"))
            else:
                self._pending.append((records, future))
                self._n_pending += len(records)
                self._changed.notify()
        return future

    def close(self, timeout_s: float) -> None:
        """Write pending records and stop; records not written within `timeout_s` are rejected. Idempotent."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        with self._changed:
            unwritten, self._pending = self._pending, []
        for _, future in unwritten:
            future.set_exception(Unavailable("shutting down: the events were not written in time"))

    def _run(self) -> None:
        while group := self._next_group():
            try:
                self._write([record for records, _ in group for record in records])
            except MainstayError as error:
                for _, future in group:
                    future.set_exception(error)
            except Exception as error:  # a bug: report it to the callers and continue with the next group
                for _, future in group:
                    future.set_exception(error)
            else:
                for _, future in group:
                    future.set_result(None)

    def _next_group(self) -> list[tuple[Sequence[Record], Future[None]]]:
        """Wait for records and return the next group, about GROUP_MAX_RECORDS at most; empty when stopping."""
        with self._changed:
            while not self._pending and not self._stopping:
                self._changed.wait()
            size, count = 0, 0
            while size < len(self._pending) and (count < GROUP_MAX_RECORDS or not size):
                count += len(self._pending[size][0])
                size += 1
            group = self._pending[:size]
            del self._pending[:size]
            self._n_pending -= count
            return group
