"""A background thread that does one thing again and again, and can say how that goes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from recsys.domain.errors import Unavailable

log = logging.getLogger("mainstay.serving")


class Poller:
    """Runs `step` every `every_s` seconds in its own thread until stopped. A step that fails is tried again.

    share   at most this share of the time goes into steps: a slow one is followed by a longer pause
    """

    def __init__(self, name: str, step: Callable[[], object], every_s: float, share: float = 0.5) -> None:
        self.name = name
        self.error: str | None = "not asked yet"
        self._step = step
        self._every_s = every_s
        self._share = share
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def ok(self) -> bool:
        """Whether the last step went well."""
        return self.error is None

    def run_once(self) -> bool:
        """One step, here and now; whether it went well."""
        before = self.error
        try:
            self._step()
        except Unavailable as error:
            self.error = str(error)
            if before is None:
                log.warning("%s: %s", self.name, error)
        except Exception as error:  # a follower that died would serve old policies for ever: say it and go on
            self.error = f"{type(error).__name__}: {error}"
            if before != self.error:  # once is enough, however often it happens
                log.exception("%s failed", self.name)
        else:
            self.error = None
            if before not in (None, "not asked yet"):
                log.info("%s: well again", self.name)
        return self.ok

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 2.0) -> None:
        """Ask to end and wait for the step under way; idempotent."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stopping.is_set():
            began = time.monotonic()
            self.run_once()
            took = time.monotonic() - began
            self._stopping.wait(max(self._every_s - took, took * (1 / self._share - 1), 0.0))
