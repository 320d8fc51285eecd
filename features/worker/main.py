"""The worker program: it folds the stream into the event log and the online store until it is stopped."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event

from features.events.stream.connect import open_stream
from features.history.event_log import EventLog
from features.settings import Settings
from features.shutdown import limit_shutdown
from features.state.online.connect import open_online
from features.worker.lagging_groups import LagReporter
from features.worker.rebuild_fence import is_rebuild_in_progress
from features.worker.retention import apply_retention, background_compaction
from features.worker.worker import Worker
from recsys.domain.decay import DAY_S
from recsys.domain.errors import Conflict

STORE_TIMEOUT_S = 10.0  # generous, since no request waits for the worker


def run_worker(settings: Settings, until_idle_s: float | None = None) -> int:
    """Run until SIGTERM, SIGINT or `until_idle_s` seconds without messages; return exit code 0.

    Raises Conflict when a rebuild is in progress, Unavailable.
    """
    with (
        closing(open_stream(settings.stream_url, partitions=settings.partitions)) as stream,
        closing(open_online(settings.online_url, STORE_TIMEOUT_S)) as online,
    ):
        if is_rebuild_in_progress(online):
            raise Conflict("online store rebuild in progress; if it was abandoned, run `mainstay rebuild` again")
        log = EventLog(Path(settings.event_log_dir))
        log.erasures.sync_with(online)
        worker = Worker(
            stream,
            online,
            log,
            topic=settings.topic,
            group=settings.group,
            viewer_ttl_s=settings.viewer_ttl_days * DAY_S,
            item_ttl_s=settings.item_ttl_days * DAY_S,
        )
        reporter = LagReporter(stream.retention, settings)

        def retain() -> None:
            apply_retention(stream, settings, time.time())
            log.epochs.repair(online, settings.topic)
            reporter.report(time.time())

        with closing(worker), _stop_on_signals() as stop, background_compaction(log, retain):
            messages = worker.run(stop, until_idle_s, ready=lambda: print("worker ready", flush=True))
    unreadable = f", {worker.n_dead_letters:,} of them unreadable (mainstay dlq list)" if worker.n_dead_letters else ""
    print(f"worker stopped after {messages:,} messages{unreadable}", flush=True)
    return 0


@contextmanager
def _stop_on_signals() -> Iterator[Event]:
    """Yield an event that SIGTERM and SIGINT set, so that the current batch is finished first if it can be in time."""
    stop = Event()
    handlers = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    limit_shutdown()
    try:
        yield stop
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
