"""Background poller: runs a task at an interval and reports its health."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from recsys.domain.errors import Unavailable

log = logging.getLogger("mainstay.serving")

NOT_POLLED = "not polled yet"
"""Error of a poller before its first step."""


class Poller:
    """A thread that runs `step` every `every_s` seconds until it is stopped. A failed step is retried.

    share   maximum share of the time that steps take; a slow step is followed by a longer pause
    error   error of the last step; None if it succeeded
    """

    def __init__(self, name: str, step: Callable[[], object], every_s: float, share: float = 0.5) -> None:
        self.name = name
        self.error: str | None = NOT_POLLED
        self._step = step
        self._every_s = every_s
        self._share = share
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def ok(self) -> bool:
        """Whether the last step succeeded."""
        return self.error is None

    def run_once(self) -> bool:
        """Run one step in this thread and return whether it succeeded."""
        before = self.error
        try:
            self._step()
        except Unavailable as error:
            self.error = str(error)
            if before is None:
                log.warning("poller %s failed: %s; retrying", self.name, error)
        except Exception as error:  # the thread must survive, or pages would use old policies forever
            self.error = f"{type(error).__name__}: {error}"
            if before != self.error:  # log a repeated error once
                log.exception("poller %s failed; retrying", self.name)
        else:
            self.error = None
            if before not in (None, NOT_POLLED):
                log.info("poller %s recovered", self.name)
        return self.ok

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 2.0) -> None:
        """Stop after the current step and wait for it for at most `timeout_s`; idempotent."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stopping.is_set():
            started = time.monotonic()
            self.run_once()
            duration_s = time.monotonic() - started
            self._stopping.wait(max(self._every_s - duration_s, duration_s * (1 / self._share - 1), 0.0))
