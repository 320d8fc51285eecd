"""The background pollers of one process, and how often each runs."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

from features.events.dead_letters import DeadLetterCounter
from features.state.quarantine import quarantined
from recsys.domain.errors import Unavailable
from recsys.guidance.solver.solve import warm
from serving.change_publisher import ChangePublisher
from serving.disk_check import check_disks, data_directories
from serving.pages.live_metrics import MEASURE_EVERY_S, MEASURE_SHARE
from serving.services import Services
from serving.snapshot.poller import Poller

STATS_EVERY_S = 1.0
MODEL_EVERY_S = 2.0
STREAM_EVERY_S = 2.0
BACKLOG_EVERY_S = 10.0
CHANGES_EVERY_S = 0.3
TARGETS_EVERY_S = 1.0
CONTENT_EVERY_S = 0.5
DISK_EVERY_S = 3.0

STATS_SHARE = 0.05
"""Maximum share of a process's time for reading item statistics, so that a large catalog is read less often."""


def build_pollers(services: Services) -> dict[str, Poller]:
    """Return the pollers of a process by name. They are not started."""
    settings, metrics, stream = services.settings, services.metrics, services.stream
    letters = DeadLetterCounter(stream, settings.topic)
    poll_s, directories = settings.poll_ms / 1000, data_directories(settings)
    pollers = [
        Poller("control", services.holders.poll_control, poll_s),
        Poller("online", services.holders.poll_stats, STATS_EVERY_S, STATS_SHARE),
        Poller("metrics", services.live_metrics.step, MEASURE_EVERY_S, MEASURE_SHARE),
        Poller("requests", services.pages.recent_queries, BACKLOG_EVERY_S),  # drops expired requests
        Poller("stream", _stream_check(services), STREAM_EVERY_S),
        Poller("dead_letters", lambda: metrics.dead_letters.set(letters.refresh()), BACKLOG_EVERY_S),
        Poller("quarantine", _quarantine_count(services), BACKLOG_EVERY_S),
        Poller("event_log", _damaged_files_check(services), BACKLOG_EVERY_S),
        Poller("targets", services.targets.step, TARGETS_EVERY_S),
        # The engine is compiled once, so that no page waits for it.
        Poller("engine", warm, threading.TIMEOUT_MAX, stall_s=math.inf),
        Poller("disk", lambda: check_disks(directories), DISK_EVERY_S),
        Poller("model", services.model_poller.step, max(MODEL_EVERY_S, poll_s)),
    ]
    if services.embedding_poller is not None:
        pollers.append(Poller("content", services.embedding_poller.step, CONTENT_EVERY_S, stall_s=math.inf))
    if settings.changes:
        outbox = ChangePublisher(services.control, stream, settings.topic, f"{settings.home}/changes", services.clock)
        pollers.append(Poller("changes", outbox.step, CHANGES_EVERY_S))
    return {poller.name: poller for poller in pollers}


def _quarantine_count(services: Services) -> Callable[[], None]:
    """Return a step that counts the quarantined states in the online store."""

    def step() -> None:
        services.metrics.quarantined_states.set(sum(1 for _ in quarantined(services.online)))

    return step


def _damaged_files_check(services: Services) -> Callable[[], None]:
    """Return a step that raises Unavailable with the names of the damaged files of the event log, if there are any."""

    def step() -> None:
        damaged = services.event_log.damaged
        services.metrics.quarantined_files.set(len(damaged.quarantined()))
        if report := damaged.report():
            raise Unavailable(report)

    return step


def _stream_check(services: Services) -> Callable[[], None]:
    """Return a step that checks that the stream responds, still has its log and is read by workers."""
    metrics, watchdog = services.metrics, services.watchdog

    def step() -> None:
        state = services.spool.state()
        metrics.spool_records.set(state.records)
        metrics.spool_bytes.set(state.size)
        services.stream.partitions(services.settings.topic)
        try:
            watchdog.step()
        finally:
            metrics.stalled_partitions.set(len(watchdog.stalled))

    return step
