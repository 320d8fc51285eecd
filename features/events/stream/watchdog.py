"""The watchdog of a stream: detects a lost log and stalled partitions.

It tracks the newest offset that this process was acknowledged in each partition. The log must still contain these
offsets (a wiped broker restarts at offset 0 or with a different topic id), and the consumer group must pass them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

from features.events.stream.port import Stream
from recsys.domain.errors import Unavailable

STALLED_AFTER_S = 8.0
LOSS_REPORT_S = 300.0  # how long readiness reports a loss

logger = logging.getLogger(__name__)


class LogWatchdog:
    """Monitors a topic and its consumer group. `record_acked` and `step` may be called from several threads."""

    def __init__(
        self,
        stream: Stream,
        topic: str,
        group: str,
        on_loss: Callable[[str], object] = lambda reason: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_lost` is called once for each loss, with the reason."""
        self._stream, self._topic, self._group = stream, topic, group
        self._on_loss, self._clock = on_loss, clock
        self._lock = threading.Lock()
        self._newest: dict[int, int] = {}  # partition -> newest offset acknowledged to this process
        self._pending: dict[int, tuple[int, float]] = {}  # lagging partition -> committed offset, time of that commit
        self._loss: tuple[str, float] | None = None
        self.losses = 0
        self.stalled: dict[int, float] = {}  # partition -> seconds without progress

    def record_acked(self, newest: Mapping[int, int]) -> None:
        """Record the newest offsets of acknowledged writes. If an offset did not increase, the log was lost."""
        with self._lock:
            regressions = [(p, o, self._newest[p]) for p, o in newest.items() if o <= self._newest.get(p, -1)]
            self._newest.update(newest)
        if regressions:
            partition, offset, previous = regressions[0]
            self._report_loss(f"{self._topic}/{partition} assigned offset {offset} after offset {previous}", newest)

    def step(self) -> None:
        """Check the log and the group. Raises Unavailable if the log does not answer, and for a while after a loss."""
        with self._lock:
            newest = dict(self._newest)
        if reason := self._stream.identity_mismatch(self._topic, newest):
            self._report_loss(reason, newest={})
        self._check_partitions(newest, self._stream.committed(self._topic, self._group) if newest else {})
        if self._loss is not None and self._clock() - self._loss[1] < LOSS_REPORT_S:
            raise Unavailable(f"the stream lost its log: {self._loss[0]}")

    @property
    def stall_message(self) -> str:
        """A description of the stalled partitions; empty if there are none."""
        return "; ".join(f"{self._topic}/{p} stalled for {s:.0f} s" for p, s in sorted(self.stalled.items()))

    def _report_loss(self, reason: str, newest: Mapping[int, int]) -> None:
        with self._lock:
            self._newest, self._pending = dict(newest), {}
            self._loss = (reason, self._clock())
            self.losses += 1
        self.stalled = {}
        logger.error("the stream lost its log: %s; redelivering the records retained in the spool", reason)
        self._on_loss(reason)

    def _check_partitions(self, newest: Mapping[int, int], committed: Mapping[int, int]) -> None:
        now, previously_stalled = self._clock(), self.stalled
        for partition, offset in newest.items():
            committed_offset = committed.get(partition, -1)
            if committed_offset >= offset:
                self._pending.pop(partition, None)
            elif self._pending.get(partition, (-2, 0.0))[0] != committed_offset:
                self._pending[partition] = (committed_offset, now)
        self.stalled = {p: now - since for p, (_, since) in self._pending.items() if now - since >= STALLED_AFTER_S}
        for partition in self.stalled.keys() - previously_stalled.keys():
            committed_offset = self._pending[partition][0]
            position = f"is at offset {committed_offset}" if committed_offset >= 0 else "has not committed any offset"
            logger.warning(
                "partition %s/%d stalled: consumer group %s %s; check that its worker is running",
                self._topic,
                partition,
                self._group,
                position,
            )
