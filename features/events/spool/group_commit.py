"""Group commit: all who wait share one write. The slower the disk, the larger the groups."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from features.events.stream.port import Record
from recsys.domain.errors import MainstayError, Unavailable

GROUP_MAX = 5_000  # records of one write
WAITING_MAX = 50_000  # records that wait for their write; more are refused at once


class GroupCommit:
    """A thread that hands everything that waits to `write`, and tells each who waited how it went."""

    def __init__(self, write: Callable[[Sequence[Record]], object], name: str) -> None:
        self._write = write
        self._waiting: list[tuple[Sequence[Record], Future[None]]] = []
        self._count = 0
        self._changed = threading.Condition()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def put(self, records: Sequence[Record]) -> Future[None]:
        """Done when `write` has returned for these; fails as it failed."""
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()  # who gives up waiting cannot cancel what is being written
        with self._changed:
            if self._ending:
                future.set_exception(Unavailable("shutting down: nothing more is taken"))
            elif self._count + len(records) > WAITING_MAX:
                future.set_exception(Unavailable(f"{self._count:,} events wait to be written: no more are taken"))
            else:
                self._waiting.append((records, future))
                self._count += len(records)
                self._changed.notify()
        return future

    def close(self, timeout_s: float) -> None:
        """Write what waits and end; whoever still waits after `timeout_s` is refused. Idempotent."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        with self._changed:
            left, self._waiting = self._waiting, []
        for _, future in left:
            future.set_exception(Unavailable("shutting down: this was not written in time"))

    def _run(self) -> None:
        while group := self._next():
            try:
                self._write([record for records, _ in group for record in records])
            except MainstayError as error:
                for _, future in group:
                    future.set_exception(error)
            except Exception as error:  # a bug: whoever waits must hear of it, and the next group has its own chance
                for _, future in group:
                    future.set_exception(error)
            else:
                for _, future in group:
                    future.set_result(None)

    def _next(self) -> list[tuple[Sequence[Record], Future[None]]]:
        """All that waits, up to GROUP_MAX records; empty at the end."""
        with self._changed:
            while not self._waiting and not self._ending:
                self._changed.wait()
            taken, count = 0, 0
            while taken < len(self._waiting) and (count < GROUP_MAX or not taken):
                count += len(self._waiting[taken][0])
                taken += 1
            group = self._waiting[:taken]
            del self._waiting[:taken]
            self._count -= count
            return group
