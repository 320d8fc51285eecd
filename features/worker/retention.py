"""Periodic upkeep beside a running worker: retention of the embedded stream and compaction of the event log."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from features.events.change_feed import changes_topic
from features.events.dead_letters import dead_topic
from features.events.stream.port import Stream
from features.history.compaction import compact
from features.history.event_log import EventLog
from features.settings import Settings
from recsys.domain.decay import DAY_S
from recsys.domain.errors import Unavailable

COMPACT_EVERY_S = 300.0
COMPACT_MIN_FILES = 32
"""The number of files from which on a day is compacted beside a running worker."""

logger = logging.getLogger(__name__)


def apply_retention(stream: Stream, settings: Settings, now: float) -> None:
    """Delete messages older than `stream_days` from an embedded stream, dead letters included. Raises Unavailable."""
    if (retention := stream.retention) is None:
        return
    before, dead = now - settings.stream_days * DAY_S, dead_topic(settings.topic)
    retention.apply_retention(settings.topic, before, [settings.group])
    retention.apply_retention(changes_topic(settings.topic), before)
    if deleted := retention.apply_retention(dead, before):
        message = "retention: deleted %d messages (dead letters and notes of their replays) older than %d days from %s"
        logger.warning(message, deleted, settings.stream_days, dead)


@contextmanager
def background_compaction(
    log: EventLog, retain: Callable[[], None], every_s: float = COMPACT_EVERY_S
) -> Iterator[None]:
    """Compact days of many files, and call `retain`, every `every_s` seconds in a daemon thread while the block runs.

    A failure of either task is logged and delays neither the other task nor the next round.
    """
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(every_s):
            for task in (lambda: compact(log, COMPACT_MIN_FILES), retain):
                try:
                    task()
                except Unavailable as error:
                    logger.warning("compaction and retention: %s; next attempt in %.0f s", error, every_s)
                except Exception:  # a bug must not end the thread
                    logger.exception("compaction and retention failed; next attempt in %.0f s", every_s)

    thread = threading.Thread(target=run, name="compaction", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
