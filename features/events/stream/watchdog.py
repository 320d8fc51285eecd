"""The watch-dog of a stream: it notices a log that was lost, and a partition that nobody works on.

It remembers the newest offset this process was given in each partition. The log must still have them (a broker that was
wiped starts again at 0, or under another topic id), and the group must get past them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

from features.events.stream.port import Stream
from recsys.domain.errors import Unavailable

STALLED_AFTER_S = 8.0
LOSS_SHOWN_S = 300.0  # readiness speaks of a loss for so long

logger = logging.getLogger(__name__)


class LogWatchdog:
    """Looks after one topic and the group that works on it. `saw` and `step` may be called from several threads."""

    def __init__(
        self,
        stream: Stream,
        topic: str,
        group: str,
        on_lost: Callable[[str], object] = lambda why: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_lost` is called once for each loss, with the reason."""
        self._stream, self._topic, self._group = stream, topic, group
        self._on_lost, self._clock = on_lost, clock
        self._lock = threading.Lock()
        self._newest: dict[int, int] = {}  # by partition, of what was written from here
        self._waiting: dict[int, tuple[int, float]] = {}  # by partition: committed so far, and since when
        self._loss: tuple[str, float] | None = None
        self.losses = 0
        self.stalled: dict[int, float] = {}  # partition -> for how many seconds nobody got on

    def record_acked(self, newest: Mapping[int, int]) -> None:
        """Records were written; these are the newest offsets. One that is not newer than before tells a loss."""
        with self._lock:
            back = [(p, o, self._newest[p]) for p, o in newest.items() if o <= self._newest.get(p, -1)]
            self._newest.update(newest)
        if back:
            partition, offset, before = back[0]
            self._report_loss(f"{self._topic}/{partition} gave out {offset} after {before}", keep=newest)

    def step(self) -> None:
        """Ask the log. Raises Unavailable when it does not answer, and for a while after a loss."""
        with self._lock:
            newest = dict(self._newest)
        if why := self._stream.identity_mismatch(self._topic, newest):
            self._report_loss(why, keep={})
        self._check_partitions(newest, self._stream.committed(self._topic, self._group) if newest else {})
        if self._loss is not None and self._clock() - self._loss[1] < LOSS_SHOWN_S:
            raise Unavailable(f"the stream lost its log: {self._loss[0]}")

    @property
    def standstill(self) -> str:
        """Which partitions nobody gets on with, for people; empty when all is well."""
        return "; ".join(f"{self._topic}/{p} stands still for {s:.0f} s" for p, s in sorted(self.stalled.items()))

    def _report_loss(self, why: str, keep: Mapping[int, int]) -> None:
        with self._lock:
            self._newest, self._waiting = dict(keep), {}
            self._loss = (why, self._clock())
            self.losses += 1
        self.stalled = {}
        logger.error("the stream lost its log: %s; what is still in the spool is sent again", why)
        self._on_lost(why)

    def _check_partitions(self, newest: Mapping[int, int], committed: Mapping[int, int]) -> None:
        now, before = self._clock(), self.stalled
        for partition, offset in newest.items():
            done = committed.get(partition, -1)
            if done >= offset:
                self._waiting.pop(partition, None)
            elif self._waiting.get(partition, (-2, 0.0))[0] != done:
                self._waiting[partition] = (done, now)
        self.stalled = {p: now - since for p, (_, since) in self._waiting.items() if now - since >= STALLED_AFTER_S}
        for partition in self.stalled.keys() - before.keys():
            done = self._waiting[partition][0]
            how = f"does not get past {done}" if done >= 0 else "has taken nothing yet; does its worker run?"
            logger.warning("%s/%d: group %s %s", self._topic, partition, self._group, how)
