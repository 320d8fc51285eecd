"""The durable spool: records are fsynced to a write-ahead log before they are acknowledged, then relayed to the stream.

Each process has its own directory below the root. The spool also delivers the directories of dead processes.
"""

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
RETENTION_BYTES = 32 << 20  # of delivered records, in case the stream loses its log
RETRY_FIRST_S, RETRY_MAX_S = 0.2, 2.0
ORPHAN_SCAN_S = 3.0

logger = logging.getLogger(__name__)


class DurableSpool:
    """A write-ahead log in a directory below `root`, with one thread that writes and one that delivers."""

    def __init__(
        self,
        root: str | Path,
        stream: Stream,
        topic: str,
        *,
        limit_bytes: int = LIMIT_BYTES,
        retention_bytes: int = RETENTION_BYTES,
        on_delivered: Callable[[Mapping[int, int]], object] = lambda offsets: None,
    ) -> None:
        """Take a free directory below `root` and recover the records in it.

        on_delivered  called after every delivery with partition -> newest offset

        Raises Unavailable.
        """
        self._root, self._limit_bytes = Path(root), limit_bytes
        self._lease = DirectoryLease.acquire_free(self._root)
        try:
            self._segments = Segments(self._lease.directory)
            self._relay = Relay(self._lease.directory, self._segments, stream, topic, retention_bytes, on_delivered)
        except OSError as error:
            self._lease.release()
            raise Unavailable(f"spool {root}: {error}") from error
        self._group = GroupCommit(self._write, "spool-writer")
        self._stream, self._topic = stream, topic
        self._stopping = threading.Event()
        self._wake_up = threading.Event()
        self._redeliver_requested = False
        self._threads = [
            threading.Thread(target=self._deliver, name="spool-delivery", daemon=True),
            threading.Thread(target=self._adopt_orphans, name="spool-orphans", daemon=True),
        ]

    def put(self, records: Sequence[Record]) -> Future[None]:
        """Accept records; the future completes after fsync, or fails with Unavailable if the spool or disk is full."""
        return self._group.put(records)

    def state(self) -> SpoolState:
        """Return the backlog of this process's directory."""
        delivered = self._relay.cursor.number
        return SpoolState(
            max(self._segments.last - delivered, 0), self._segments.size_after(delivered), self._relay.fault
        )

    def redeliver(self) -> None:
        """Send all retained records again, delivered or not."""
        self._redeliver_requested = True
        self._wake_up.set()

    def start(self) -> None:
        """Start the threads that write and deliver."""
        self._group.start()
        for thread in self._threads:
            thread.start()

    def close(self, timeout_s: float = 5.0) -> None:
        """Write pending records, deliver as much as possible within `timeout_s`, and stop. The rest stays on disk."""
        deadline = time.monotonic() + timeout_s
        self._group.close(timeout_s)
        while self.state().records and self._relay.fault is None and time.monotonic() < deadline:
            time.sleep(0.01)
        self._stopping.set()
        self._wake_up.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(deadline - time.monotonic(), 0.1))
        self._segments.close()
        self._relay.close()
        self._lease.release()

    def _write(self, records: Sequence[Record]) -> None:
        size = self._segments.size_after(self._relay.cursor.number)
        if size >= self._limit_bytes:
            cause = self._relay.fault or "delivery is slower than intake"
            raise Unavailable(f"the spool is full: {size >> 20:,} MiB undelivered; {cause}")
        try:
            try:
                self._segments.append(records)
            except OSError:
                size_before = self._segments.size
                self._segments.delete_until(self._relay.cursor.number)  # free delivered records
                if self._segments.size == size_before:
                    raise
                self._segments.append(records)
        except OSError as error:
            raise Unavailable(f"spool {self._lease.directory}: {error}") from error
        self._wake_up.set()

    def _deliver(self) -> None:
        pause_s = RETRY_FIRST_S
        while not self._stopping.is_set():
            self._wake_up.clear()
            if self._redeliver_requested:
                self._redeliver_requested = False
                self._relay.redeliver()
            try:
                delivered = self._relay.step()
            except Exception as error:  # of the stream or the disk: the records stay and are retried
                pause_s = self._back_off(error, pause_s)
                continue
            pause_s = RETRY_FIRST_S
            if not delivered:
                self._wake_up.wait(1.0)

    def _back_off(self, error: Exception, pause_s: float) -> float:
        """Log the first failure of an outage and wait; return the next pause in seconds."""
        fault = str(error) if isinstance(error, Unavailable) else f"{type(error).__name__}: {error}"
        if self._relay.fault is None:
            logger.warning("spool: delivery to the stream failed: %s; events stay on disk and are retried", fault)
        self._relay.fault = fault
        self._stopping.wait(pause_s)
        return min(2 * pause_s, RETRY_MAX_S)

    def _adopt_orphans(self) -> None:
        while not self._stopping.is_set():
            try:
                with claim_orphan(self._root) as lease:
                    if lease is not None:
                        self._deliver_orphan(lease)
            except Exception as error:
                logger.warning("spool: delivery for a dead process failed: %s; retrying", error)
            self._stopping.wait(ORPHAN_SCAN_S)

    def _deliver_orphan(self, lease: DirectoryLease) -> None:
        segments = Segments(lease.directory)
        relay, count = Relay(lease.directory, segments, self._stream, self._topic, 0), 0
        try:
            while not self._stopping.is_set() and (step := relay.step()):
                count += step
        finally:
            relay.close()
        if count:
            logger.warning("spool: delivered %d events of a dead process from %s", count, lease.directory)


class Relay:
    """Delivers the records of one directory to the stream in order, and persists its position."""

    def __init__(
        self,
        directory: Path,
        segments: Segments,
        stream: Stream,
        topic: str,
        retention_bytes: int,
        on_delivered: Callable[[Mapping[int, int]], object] = lambda offsets: None,
    ) -> None:
        self._segments, self._stream, self._topic = segments, stream, topic
        self._retention_bytes, self._on_delivered = retention_bytes, on_delivered
        self.fault: str | None = None
        self.cursor = DeliveryCursor(directory)
        self.cursor.number = max(self.cursor.number, segments.first() - 1)
        segments.continue_after(self.cursor.number)
        self._log_checked = False  # whether the cursor's log identity was compared with the stream's

    def step(self) -> int:
        """Deliver one batch; return its number of records. On Unavailable or OSError, the batch is delivered again."""
        if not self._log_checked:
            self._check_log()
        batch = self._segments.read(self.cursor.number)
        if batch:
            newest = self._stream.publish(self._topic, [frame.record for frame in batch])
            self.cursor.advance(batch[-1].number)
            self.fault = None
            self._on_delivered(newest)
        else:
            self.fault = None
            if self._segments.damaged_until > self.cursor.number:
                self.cursor.advance(self._segments.damaged_until)
        self._segments.delete_until(self.cursor.number, self._retention_bytes)
        return len(batch)

    def _check_log(self) -> None:
        """Compare the stream's identity with the log of earlier deliveries.

        A log that was recreated while no process was running is sent all retained records again.
        """
        log_id = self._stream.identity(self._topic)
        if log_id and self.cursor.log not in ("", log_id):
            logger.warning("spool: topic %s was recreated; redelivering the retained records", self._topic)
            self.redeliver()
        self.cursor.set_log(log_id)
        self._log_checked = True

    def redeliver(self) -> None:
        """Reset the cursor to the oldest retained record."""
        self.cursor.advance(self._segments.first() - 1)
        self._log_checked = False

    def close(self) -> None:
        """Persist the cursor."""
        self.cursor.close()
