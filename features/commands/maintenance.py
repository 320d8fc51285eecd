"""`mainstay rebuild`, `verify` and `compact`: maintain the event log and the online store."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from features.commands.flags import WORKER, with_settings
from features.commands.output import fail
from features.settings import Settings
from recsys.domain.errors import Unavailable


@with_settings(*WORKER)
def rebuild(
    settings: Settings,
    *,
    origin: Annotated[
        Literal["log", "stream"],
        Parameter(
            name="--from", help="source of the events: the event log, or the stream, which also restores a lost log"
        ),
    ] = "log",
) -> int:
    """Wipe the online store and fold all events again.

    One rebuild runs at a time; running workers wait until it is done.

    Exit codes: 0 rebuilt, 1 the stream, the event log or the online store is unavailable, 2 usage.
    """
    from features.worker import maintenance

    with maintenance.open_context(settings) as context:
        return maintenance.rebuild_store(context, origin)


@with_settings(*WORKER, "control")
def verify(settings: Settings) -> int:
    """Compare the online store with the event log, and find damaged data.

    Damaged files are named with what to do: Parquet files of the event log, and the SQLite files of stream, online
    store and control plane. A worker that runs meanwhile causes differences of its own.

    Exit codes: 0 equal, 1 different or damaged, 2 usage, 3 inconclusive: only sums differ, which an erasure since the
    last rebuild may explain.
    """
    from features.worker import maintenance

    is_damaged = maintenance.print_damaged_databases(settings)
    try:
        with maintenance.open_context(settings) as context:
            code = maintenance.verify_store(context)
    except Unavailable as error:
        if not is_damaged:
            raise
        return fail("verify", str(error))
    return 1 if is_damaged else code


@with_settings(*WORKER)
def compact(settings: Settings) -> int:
    """Merge the files of the event log into one per day.

    Exit codes: 0 compacted, 1 the event log is unavailable, 2 usage.
    """
    from features.worker import maintenance

    return maintenance.compact_log(settings)
