"""Worker processes that a benchmark starts, stops, kills and waits for."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.faults.harness.environment import Environment

ROOT = Path(__file__).parents[3]
READY_TIMEOUT_S = 60.0
_log_numbers = itertools.count()


class WorkerProcess:
    """An instrumented `mainstay worker` process (`benchmarks.faults.harness.instrumented_worker`)."""

    def __init__(self, env: Environment, *trigger_flags: str, flags: tuple[str, ...] = ()) -> None:
        """`trigger_flags`: flags of the instrumentation; `flags`: additional flags of the worker."""
        self.journal = env.home / "commits"
        self._log = env.home / f"worker-{next(_log_numbers)}.log"
        command = [
            sys.executable,
            "-m",
            "benchmarks.faults.harness.instrumented_worker",
            "--journal",
            str(self.journal),
            *trigger_flags,
        ]
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, "--", *env.flags, *flags],
                stdout=output,
                stderr=output,
                cwd=ROOT,
                env=process_env(env.home.parent),
            )

    def wait_ready(self) -> WorkerProcess:
        """Wait until the worker polls. Raises RuntimeError if it exits."""
        wait_until(lambda: "worker ready" in self.output() or self.process.poll() is not None, READY_TIMEOUT_S)
        if self.process.poll() is not None:
            raise RuntimeError(f"the worker exited:\n{self.output()[-2000:]}")
        return self

    def output(self) -> str:
        """Return everything that the worker printed."""
        return self._log.read_text(errors="replace")

    def arm(self) -> None:
        """Arm the trigger: from now on it counts how often its point is reached."""
        self.signal(signal.SIGUSR1)

    def signal(self, number: signal.Signals) -> None:
        """Send SIGSTOP, SIGCONT or SIGTERM."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kill the process with SIGKILL."""
        self.process.kill()
        self.process.wait()

    def is_stopped(self) -> bool:
        """Return whether the process is stopped (SIGSTOP)."""
        return Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    def exits(self, within_s: float) -> bool:
        """Return whether the process exits by itself within `within_s`."""
        try:
            self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def close(self) -> None:
        """Kill the process, so that none is left running."""
        self.kill()


def process_env(root: Path) -> dict[str, str]:
    """Return environment variables for a child process, with byte code cached below `root`."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {"PYTHONPYCACHEPREFIX": str(root / "bytecode"), **env}


def commits(env: Environment) -> list[tuple[float, int, int]]:
    """Return (Unix seconds, partition, offset) of every commit so far; skips a line truncated by a kill."""
    file = env.home / "commits"
    lines = file.read_text().split("\n")[:-1] if file.exists() else []
    return [(float(at), int(p), int(o)) for at, p, o in (line.split() for line in lines if line.count(" ") == 2)]


def wait_until(condition: Callable[[], bool], within_s: float, every_s: float = 0.05) -> float:
    """Return the seconds until `condition` is true; infinity if it is not within `within_s`."""
    start = time.monotonic()
    while not condition():
        if time.monotonic() - start > within_s:
            return float("inf")
        time.sleep(every_s)
    return time.monotonic() - start
