"""The spool in files: fsynced before anybody is told "taken", then delivered by a thread for as long as it takes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

from features.events.spool.group_commit import GroupCommit
from features.events.spool.lease import DeliveryCursor, DirectoryLease, claim_orphan
from features.events.spool.port import SpoolState
from features.events.spool.segments import Segments
from features.events.stream.port import Record, Stream
from recsys.domain.errors import Unavailable

LIMIT_BYTES = 1 << 30
KEEP_BYTES = 32 << 20  # of what was delivered, in case the stream loses its log
RETRY_FIRST_S, RETRY_MAX_S = 0.2, 2.0
ORPHAN_SCAN_S = 3.0

logger = logging.getLogger(__name__)


class DurableSpool:
    """Files below `root`, in a directory of this process's own; those of dead processes are delivered as well."""

    def __init__(
        self,
        root: str | Path,
        stream: Stream,
        topic: str,
        *,
        limit_bytes: int = LIMIT_BYTES,
        keep_bytes: int = KEEP_BYTES,
        on_delivered: Callable[[Mapping[int, int]], object] = lambda marks: None,
    ) -> None:
        """`on_delivered` is told the newest offset of each partition after every delivery. Raises Unavailable."""
        self._root, self._limit_bytes = Path(root), limit_bytes
        self._claim = DirectoryLease.first_free(self._root)
        try:
            self._segments = Segments(self._claim.directory)
            self._delivery = Relay(self._claim.directory, self._segments, stream, topic, keep_bytes, on_delivered)
        except OSError as error:
            self._claim.release()
            raise Unavailable(f"spool {root}: {error}") from error
        self._group = GroupCommit(self._write, "spool-writer")
        self._stream, self._topic = stream, topic
        self._ending = threading.Event()
        self._more = threading.Event()
        self._again = False
        self._threads = [
            threading.Thread(target=self._deliver, name="spool-delivery", daemon=True),
            threading.Thread(target=self._adopt_orphans, name="spool-orphans", daemon=True),
        ]

    def put(self, records: Sequence[Record]) -> Future[None]:
        """Done when all are on the disk; fails with Unavailable when the spool or the disk is full."""
        return self._group.put(records)

    def state(self) -> SpoolState:
        """What waits in this process's directory."""
        position = self._delivery.position.number
        return SpoolState(
            max(self._segments.last - position, 0), self._segments.size_after(position), self._delivery.fault
        )

    def redeliver(self) -> None:
        """Send again what waits and what was kept of what was delivered."""
        self._again = True
        self._more.set()

    def start(self) -> None:
        """Begin to write and to deliver."""
        self._group.start()
        for thread in self._threads:
            thread.start()

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what waits, deliver what the stream takes within `timeout_s`, let go. The rest stays on the disk."""
        until = time.monotonic() + timeout_s
        self._group.close(timeout_s)
        while self.state().records and self._delivery.fault is None and time.monotonic() < until:
            time.sleep(0.01)
        self._ending.set()
        self._more.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(until - time.monotonic(), 0.1))
        self._segments.close()
        self._delivery.close()
        self._claim.release()

    def _write(self, records: Sequence[Record]) -> None:
        size = self._segments.size_after(self._delivery.position.number)
        if size >= self._limit_bytes:
            raise Unavailable(f"the spool is full: {size >> 20:,} MiB wait for the stream ({self._delivery.fault})")
        try:
            try:
                self._segments.append(records)
            except OSError:
                before = self._segments.size
                self._segments.delete_until(self._delivery.position.number)  # what was only kept makes room
                if self._segments.size == before:
                    raise
                self._segments.append(records)
        except OSError as error:
            raise Unavailable(f"spool {self._claim.directory}: {error}") from error
        self._more.set()

    def _deliver(self) -> None:
        pause_s = RETRY_FIRST_S
        while not self._ending.is_set():
            self._more.clear()
            if self._again:
                self._again = False
                self._delivery.redeliver()
            try:
                delivered = self._delivery.step()
            except Exception as error:  # the stream, or the disk: what waits stays, and is tried again
                pause_s = self._failed(error, pause_s)
                continue
            pause_s = RETRY_FIRST_S
            if not delivered:
                self._more.wait(1.0)

    def _failed(self, error: Exception, pause_s: float) -> float:
        """Say it once for each cause, wait; returns how long to wait the next time."""
        fault = str(error) if isinstance(error, Unavailable) else f"{type(error).__name__}: {error}"
        if self._delivery.fault is None:
            logger.warning("events wait in the spool: %s", fault)
        self._delivery.fault = fault
        self._ending.wait(pause_s)
        return min(2 * pause_s, RETRY_MAX_S)

    def _adopt_orphans(self) -> None:
        while not self._ending.is_set():
            try:
                with claim_orphan(self._root) as claim:
                    if claim is not None:
                        self._deliver_orphan(claim)
            except Exception as error:
                logger.warning("the spool of a process that is gone waits: %s", error)
            self._ending.wait(ORPHAN_SCAN_S)

    def _deliver_orphan(self, claim: DirectoryLease) -> None:
        segments = Segments(claim.directory)
        delivery, count = Relay(claim.directory, segments, self._stream, self._topic, 0), 0
        try:
            while not self._ending.is_set() and (step := delivery.step()):
                count += step
        finally:
            delivery.close()
        if count:
            logger.warning("%d events of a process that is gone were delivered (%s)", count, claim.directory)


class Relay:
    """Takes the records of one directory to the stream, in their order, and remembers how far it got."""

    def __init__(
        self,
        directory: Path,
        segments: Segments,
        stream: Stream,
        topic: str,
        keep_bytes: int,
        on_delivered: Callable[[Mapping[int, int]], object] = lambda marks: None,
    ) -> None:
        self._segments, self._stream, self._topic = segments, stream, topic
        self._keep_bytes, self._on_delivered = keep_bytes, on_delivered
        self.fault: str | None = None
        self.position = DeliveryCursor(directory)
        self.position.number = max(self.position.number, segments.first() - 1)
        segments.continue_after(self.position.number)
        self._met = False  # the log that the position is about

    def step(self) -> int:
        """Deliver some; returns how many. Raises Unavailable, OSError: then they are delivered again."""
        if not self._met:
            self._resume()
        batch = self._segments.read(self.position.number)
        if batch:
            marks = self._stream.publish(self._topic, [one.record for one in batch])
            self.position.advance(batch[-1].number)
            self.fault = None
            self._on_delivered(marks)
        else:
            self.fault = None
            if self._segments.given_up > self.position.number:
                self.position.advance(self._segments.given_up)
        self._segments.delete_until(self.position.number, self._keep_bytes)
        return len(batch)

    def _resume(self) -> None:
        """Once: is this the log that earlier deliveries went to? A log that began anew while no process was there to
        notice gets again what is still here."""
        there = self._stream.identity(self._topic)
        if there and self.position.log not in ("", there):
            logger.warning("another log stands under the name of %s: what is still here is sent again", self._topic)
            self.redeliver()
        self.position.of(there)
        self._met = True

    def redeliver(self) -> None:
        """Begin again at the oldest record that is still here."""
        self.position.advance(self._segments.first() - 1)
        self._met = False

    def close(self) -> None:
        """Remember the place."""
        self.position.close()
