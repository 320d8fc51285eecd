"""`mainstay worker`: fold the stream into the event log and the online store."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from features.commands.flags import WORKER, with_settings
from features.redaction import configure_logging
from features.settings import Settings


@with_settings(*WORKER)
def worker(
    settings: Settings,
    *,
    until_idle: Annotated[
        float | None,
        Parameter(help="stop after this many seconds without messages (a Kafka group needs about 3 s to form)"),
    ] = None,
) -> int:
    """Fold the stream into event log and online store.

    Runs until SIGTERM or Ctrl-C; finishes the current batch first.

    Exit codes: 0 stopped, 1 the stream or a store is unavailable or a rebuild is in progress, 2 usage.
    """
    from features.worker.main import run_worker

    configure_logging("%(asctime)s %(levelname)s %(message)s")
    return run_worker(settings, until_idle)
