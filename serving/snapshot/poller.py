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


STALL_S = 7.0
"""A step that takes longer is reported as an error while it runs: some server does not answer."""


class Poller:
    """A thread that runs `step` every `every_s` seconds until it is stopped. A failed step is retried.

    share    maximum share of the time that steps take; a slow step is followed by a longer pause
    stall_s  time after which a running step counts as failed
    """

    def __init__(
        self, name: str, step: Callable[[], object], every_s: float, share: float = 0.5, stall_s: float = STALL_S
    ) -> None:
        self.name = name
        self._error: str | None = NOT_POLLED
        self._stall_s = stall_s
        self._started_at: float | None = None  # of the running step, monotonic
        self._step = step
        self._every_s = every_s
        self._share = share
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def error(self) -> str | None:
        """Error of the last step, or of the running one if it does not end; None if there is none."""
        started_at = self._started_at
        if started_at is not None and (running_s := time.monotonic() - started_at) > self._stall_s:
            return f"no answer for {running_s:.0f} s"
        return self._error

    @property
    def ok(self) -> bool:
        """Whether the last step succeeded."""
        return self.error is None

    def run_once(self) -> bool:
        """Run one step in this thread and return whether it succeeded."""
        before = self._error
        self._started_at = time.monotonic()
        try:
            self._step()
        except Unavailable as error:
            self._error = str(error)
            if before is None:
                log.warning("poller %s failed: %s; retrying", self.name, error)
        except Exception as error:  # the thread must survive, or pages would use old policies forever
            self._error = f"{type(error).__name__}: {error}"
            if before != self._error:  # log a repeated error once
                log.exception("poller %s failed; retrying", self.name)
        else:
            self._error = None
            if before not in (None, NOT_POLLED):
                log.info("poller %s recovered", self.name)
        finally:
            self._started_at = None
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
