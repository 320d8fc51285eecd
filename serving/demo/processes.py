"""The demo's child processes: started with the command a user would type, stopped in order, never left behind."""

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

STOP_TIMEOUT_S = 20.0  # for all children together, from SIGTERM to the end


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


class ProcessGroup:
    """Children of one demo; leaving the block stops them all, with SIGTERM, then patience, then SIGKILL.

    Each runs in a session of its own, so that Ctrl-C reaches the demo alone; nothing that the demo is told meanwhile
    keeps it from stopping every one of them.
    """

    def __init__(self, logs: Path, patience_s: float = STOP_TIMEOUT_S) -> None:
        self._logs, self._patience_s = logs, patience_s
        self._processes: list[subprocess.Popen[bytes]] = []
        self._children: list[Child] = []
        logs.mkdir(parents=True, exist_ok=True)

    def start(self, name: str, module: str, arguments: Sequence[str]) -> Child:
        """`python -m module arguments`, to run as long as the demo does; what it says goes to its log."""
        log = self._logs / f"{name}.log"
        with log.open("wb") as output:
            child = Child(name, self._run_child(module, arguments, output.fileno(), subprocess.STDOUT), log)
        self._children.append(child)
        return child

    def run(self, module: str, arguments: Sequence[str]) -> Iterator[str]:
        """`python -m module arguments`, to its end: the lines it prints. Raises RuntimeError when it fails."""
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
        with deferred_interrupts():  # a process that runs but is not on the list would be left behind
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
            )
            self._processes.append(process)
        return process

    def check(self) -> None:
        """Raises RuntimeError when a child has ended that should be running."""
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
                process.terminate()  # says nothing to one that has ended
            give_up = time.monotonic() + self._patience_s
            for process in self._processes:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(max(give_up - time.monotonic(), 0.0))
        finally:
            for process in self._processes:
                process.kill()
                process.wait()


@contextmanager
def deferred_interrupts() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until the block is done; several count once."""
    came: list[int] = []
    before = {n: signal.signal(n, lambda number, _: came.append(number)) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
    if came:
        signal.raise_signal(came[0])


def until(ready: object, timeout_s: float, pause_s: float = 0.1) -> bool:
    """Call `ready` until it answers true; False when it did not within the time."""
    assert callable(ready)
    deadline = time.monotonic() + timeout_s
    while not ready():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause_s)
    return True
