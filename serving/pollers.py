"""The background pollers of one process, and how often each runs."""

from __future__ import annotations

import threading
from collections.abc import Callable

from features.aside import aside
from features.dead_letters import LetterCount
from recsys.guidance.solver import warm
from serving.changes import Changes
from serving.follow import Follower
from serving.measures import MEASURE_EVERY_S, MEASURE_SHARE
from serving.services import Services

STATS_EVERY_S = 1.0
MODEL_EVERY_S = 2.0
STREAM_EVERY_S = 2.0
LETTERS_EVERY_S = 10.0
CHANGES_EVERY_S = 0.3
TARGETS_EVERY_S = 1.0
CONTENT_EVERY_S = 0.5

STATS_SHARE = 0.05
"""Maximum share of a process's time that reading item statistics takes: a large catalog is read less often."""


def build_pollers(services: Services) -> dict[str, Follower]:
    """Return the pollers of a process by name, not started."""
    settings, metrics, stream = services.settings, services.metrics, services.stream
    letters = LetterCount(stream, settings.topic)
    poll_s = settings.poll_ms / 1000
    pollers = [
        Follower("control", services.holders.follow_control, poll_s),
        Follower("online", services.holders.follow_stats, STATS_EVERY_S, STATS_SHARE),
        Follower("measures", services.live_metrics.step, MEASURE_EVERY_S, MEASURE_SHARE),
        Follower("requests", services.feed.lately, LETTERS_EVERY_S),  # drops old requests
        Follower("stream", _stream_check(services), STREAM_EVERY_S),
        Follower("letters", lambda: metrics.dead_letters.set(letters.look()), LETTERS_EVERY_S),
        Follower("aside", lambda: metrics.damaged.set(sum(1 for _ in aside(services.online))), LETTERS_EVERY_S),
        Follower("targets", services.targets.step, TARGETS_EVERY_S),
        Follower("engine", warm, threading.TIMEOUT_MAX),  # once: no page waits for a compiler
        Follower("model", services.models.step, max(MODEL_EVERY_S, poll_s)),
    ]
    if services.content is not None:
        pollers.append(Follower("content", services.content.step, CONTENT_EVERY_S))
    if settings.changes:
        outbox = Changes(services.control, stream, settings.topic, f"{settings.home}/changes", services.clock)
        pollers.append(Follower("changes", outbox.step, CHANGES_EVERY_S))
    return {poller.name: poller for poller in pollers}


def _stream_check(services: Services) -> Callable[[], None]:
    """Return a step that checks that the stream answers, still has its log and is read by workers."""
    metrics, watch = services.metrics, services.watch

    def step() -> None:
        state = services.spool.state()
        metrics.spool_records.set(state.records)
        metrics.spool_bytes.set(state.size)
        services.stream.partitions(services.settings.topic)
        try:
            watch.step()
        finally:
            metrics.stalled.set(len(watch.stalled))

    return step
