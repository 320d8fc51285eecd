"""A limit on the time from SIGTERM to the end of a process, whatever server or disk does not answer.

A process that is killed at any point loses nothing that it confirmed (spool, stream and stores are durable, and a batch
of the worker that was not committed is processed again), so ending it early is safe.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import TypeAlias

LIMIT_S = 4.5
"""Seconds from the first signal to the end. Supervisors commonly wait 10 s or more before they kill a process."""

SIGNALS = (signal.SIGTERM, signal.SIGINT)

Handler: TypeAlias = Callable[[int, FrameType | None], object]

log = logging.getLogger("mainstay.shutdown")


def exit_within(limit_s: float = LIMIT_S, before: Callable[[], object] = lambda: None) -> threading.Timer:
    """End this process and its child processes with exit code 0 after `limit_s`, unless it ends by itself before.

    before  called first, to end child processes that `multiprocessing` does not know
    """

    def end() -> None:
        log.error("shutdown incomplete after %.1f s: some server or disk does not answer; exiting", limit_s)
        before()
        for child in multiprocessing.active_children():
            child.kill()
        os._exit(0)

    timer = threading.Timer(limit_s, end)
    timer.daemon = True
    timer.start()
    return timer


def limit_shutdown(before: Callable[[], object] = lambda: None, signals: Sequence[int] = SIGNALS) -> None:
    """On the first of these signals, start the limit, in addition to what the current handlers do."""
    is_started = False

    def limited(handler: object) -> Handler:
        def handle(number: int, frame: FrameType | None) -> None:
            nonlocal is_started
            if not is_started:
                is_started = True
                exit_within(before=before)
            if callable(handler):
                handler(number, frame)

        return handle

    for number in signals:
        handler = signal.getsignal(number)
        if callable(handler):  # the default action ends the process at once
            signal.signal(number, limited(handler))
