"""Worker processes as the benches handle them: started, killed, stopped, waited for."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.faults.place import Place

ROOT = Path(__file__).parents[2]
READY_WITHIN_S = 60.0
_number = itertools.count()


class Child:
    """One watched `mainstay worker` (`benchmarks.faults.instrumented_worker`)."""

    def __init__(self, place: Place, *watched: str, flags: tuple[str, ...] = ()) -> None:
        """`watched`: flags of the watcher; `flags`: further ones of the worker."""
        self.journal = place.home / "commits"
        self._log = place.home / f"worker-{next(_number)}.log"
        command = [
            sys.executable,
            "-m",
            "benchmarks.faults.instrumented_worker",
            "--journal",
            str(self.journal),
            *watched,
        ]
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, "--", *place.flags, *flags],
                stdout=output,
                stderr=output,
                cwd=ROOT,
                env=environment(place.home.parent),
            )

    def ready(self) -> Child:
        """Wait until it polls."""
        wait_until(lambda: "worker ready" in self.said() or self.process.poll() is not None, READY_WITHIN_S)
        if self.process.poll() is not None:
            raise RuntimeError(f"the worker ended:\n{self.said()[-2000:]}")
        return self

    def said(self) -> str:
        """All that it printed."""
        return self._log.read_text(errors="replace")

    def arm(self) -> None:
        """From now on the points of its trigger count."""
        self.signal(signal.SIGUSR1)

    def signal(self, which: signal.Signals) -> None:
        """SIGSTOP, SIGCONT, SIGTERM."""
        self.process.send_signal(which)

    def kill(self) -> None:
        """`kill -9`."""
        self.process.kill()
        self.process.wait()

    def stopped(self) -> bool:
        """Whether it is stopped (SIGSTOP)."""
        return Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    def died(self, within_s: float) -> bool:
        """Whether it ended by itself in time."""
        try:
            self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def close(self) -> None:
        """No process stays behind."""
        self.kill()


def environment(root: Path) -> dict[str, str]:
    """As on a host that keeps byte code; it goes below `root`."""
    env = {name: said for name, said in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {"PYTHONPYCACHEPREFIX": str(root / "bytecode"), **env}


def commits(place: Place) -> list[tuple[float, int, int]]:
    """(unix seconds, partition, offset) of every commit so far; a line cut off by a kill is left out."""
    file = place.home / "commits"
    lines = file.read_text().split("\n")[:-1] if file.exists() else []
    return [(float(at), int(p), int(o)) for at, p, o in (line.split() for line in lines if line.count(" ") == 2)]


def wait_until(true: Callable[[], bool], within_s: float, every_s: float = 0.05) -> float:
    """Seconds until it held; infinite when it did not in time."""
    began = time.monotonic()
    while not true():
        if time.monotonic() - began > within_s:
            return float("inf")
        time.sleep(every_s)
    return time.monotonic() - began
