"""The demo's child processes: started with the command a user would type, stopped in order, never left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType


@dataclass
class Child:
    """One running command, its output in a log file."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def fail(self, why: str) -> RuntimeError:
        """An error that shows the end of the child's own output."""
        tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-25:])
        return RuntimeError(f"{self.name} {why}; the end of {self.log}:\n{tail}")


class Household:
    """Children of one demo; leaving the block stops them, last started first, with SIGTERM and then patience."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._children: list[Child] = []
        logs.mkdir(parents=True, exist_ok=True)

    def start(self, name: str, module: str, arguments: Sequence[str]) -> Child:
        """`python -m module arguments` in a session of its own, so that Ctrl-C reaches the demo alone."""
        log = self._logs / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        child = Child(name, process, log)
        self._children.append(child)
        return child

    def check(self) -> None:
        """Raises RuntimeError when a child has ended that should be running."""
        for child in self._children:
            if child.process.poll() is not None:
                raise child.fail(f"ended with code {child.process.returncode}")

    def __enter__(self) -> Household:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in reversed(self._children):
            if child.process.poll() is None:
                child.process.send_signal(signal.SIGTERM)
            try:
                child.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()


def until(ready: object, timeout_s: float, pause_s: float = 0.1) -> bool:
    """Call `ready` until it answers true; False when it did not within the time."""
    assert callable(ready)
    deadline = time.monotonic() + timeout_s
    while not ready():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause_s)
    return True
