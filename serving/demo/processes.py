"""The child processes of the demo: started with the commands that a user would type, and always stopped in order."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

STOP_TIMEOUT_S = 4.8  # for all children together, from SIGTERM to the end


@dataclass
class Child:
    """A running command that writes its output to a log file."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def fail(self, reason: str) -> RuntimeError:
        """Return an error with the last lines of the child's output."""
        tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-25:])
        return RuntimeError(f"{self.name} {reason}; last lines of {self.log}:\n{tail}")


class ProcessGroup:
    """A context manager for child processes. On exit it sends SIGTERM to all of them, waits, and then sends SIGKILL.

    Each child runs in its own session, so that Ctrl-C reaches only the demo. Signals that arrive during the exit are
    deferred until all children are stopped.
    """

    def __init__(self, logs: Path, stop_timeout_s: float = STOP_TIMEOUT_S) -> None:
        self._logs, self._stop_timeout_s = logs, stop_timeout_s
        self._processes: list[subprocess.Popen[bytes]] = []
        self._children: list[Child] = []
        logs.mkdir(parents=True, exist_ok=True)

    def start(self, name: str, module: str, arguments: Sequence[str]) -> Child:
        """Start `python -m module arguments` for the duration of the demo; its output goes to a log file."""
        log = self._logs / f"{name}.log"
        with log.open("wb") as output:
            child = Child(name, self._run_child(module, arguments, output.fileno(), subprocess.STDOUT), log)
        self._children.append(child)
        return child

    def run(self, module: str, arguments: Sequence[str]) -> Iterator[str]:
        """Run `python -m module arguments` to its end and yield its output lines. Raises RuntimeError when it fails."""
        process = self._run_child(module, arguments, subprocess.PIPE, None)
        assert process.stdout is not None
        last = ""
        for line in process.stdout:
            last = line.decode(errors="replace").rstrip("\n")
            yield last
        process.stdout.close()
        if process.wait():
            raise RuntimeError(f"{' '.join([module, *arguments[:1]])} failed with code {process.returncode}: {last}")

    def _run_child(self, module: str, arguments: Sequence[str], out: int, err: int | None) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", module, *arguments]
        with deferred_interrupts():  # an interrupt between the two statements would leak the process
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
            )
            self._processes.append(process)
        return process

    def check(self) -> None:
        """Raise RuntimeError when a child process has ended unexpectedly."""
        for child in self._children:
            if child.process.poll() is not None:
                raise child.fail(f"ended with code {child.process.returncode}")

    def __enter__(self) -> ProcessGroup:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with deferred_interrupts():
            self._stop()

    def _stop(self) -> None:
        try:
            for process in self._processes:
                process.terminate()  # no effect on a process that has ended
            deadline = time.monotonic() + self._stop_timeout_s
            for process in self._processes:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(max(deadline - time.monotonic(), 0.0))
        finally:
            for process in self._processes:
                process.kill()
                process.wait()


@contextmanager
def deferred_interrupts() -> Iterator[None]:
    """Defer SIGINT and SIGTERM until the end of the block; repeated signals are raised once."""
    received: list[int] = []
    handlers = {n: signal.signal(n, lambda number, _: received.append(number)) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
    if received:
        signal.raise_signal(received[0])


def until(ready: object, timeout_s: float, pause_s: float = 0.1) -> bool:
    """Poll `ready` until it returns true; return False on timeout."""
    assert callable(ready)
    deadline = time.monotonic() + timeout_s
    while not ready():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause_s)
    return True
