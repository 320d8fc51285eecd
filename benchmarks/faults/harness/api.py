"""A real `mainstay serve` process, and clients that record which events it accepted."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import httpx

from benchmarks.faults.harness.environment import Environment
from benchmarks.faults.harness.worker_process import ROOT, process_env, wait_until
from features.events.identity import event_key

READY_TIMEOUT_S = 90.0
RESPONSE_TIMEOUT_S = 30.0


class ApiProcess:
    """A `mainstay serve` process on a free port."""

    def __init__(self, env: Environment, *flags: str) -> None:
        self._log = env.home / "serve.log"
        command = [sys.executable, "-m", "features.cli", "serve", *env.flags, "--port", "0", *flags]
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(
                command, stdout=output, stderr=output, cwd=ROOT, env=process_env(env.home.parent)
            )
        self.address = ""
        self._client = httpx.Client(timeout=RESPONSE_TIMEOUT_S)

    def wait_ready(self) -> ApiProcess:
        """Wait until the API answers. Raises RuntimeError if the process exits."""
        wait_until(lambda: "serving on " in self.output() or self.process.poll() is not None, READY_TIMEOUT_S)
        if self.process.poll() is not None:
            raise RuntimeError(f"mainstay serve exited:\n{self.output()[-2000:]}")
        self.address = self.output().partition("serving on ")[2].split()[0]
        wait_until(self._alive, READY_TIMEOUT_S)
        return self

    def output(self) -> str:
        """Return everything that the process printed and logged."""
        return self._log.read_text(errors="replace")

    def post(self, events: list[dict[str, Any]]) -> httpx.Response:
        """Post a batch of CloudEvents."""
        return self._client.post(f"{self.address}/v1/events", json=events)

    def close(self) -> None:
        """Kill the process with SIGKILL."""
        self.process.kill()
        self.process.wait()
        self._client.close()

    def _alive(self) -> bool:
        try:
            return self._client.get(f"{self.address}/health/live").status_code == 200
        except httpx.TransportError:
            return False


APP = "/apps/tv"


def cloud_event(id_: str, viewer: str, item: str, **envelope: Any) -> dict[str, Any]:
    """Return a play event as an app sends it."""
    return {
        "specversion": "1.0", "id": id_, "source": APP, "type": "mainstay.viewer.play", "subject": viewer,
        "time": datetime.now(UTC).isoformat(), "data": {"item_id": item}, **envelope,
    }  # fmt: skip


class Sender(threading.Thread):
    """An app that sends batches of events and retries each batch until it is accepted."""

    def __init__(self, api: ApiProcess, name: str, *, size: int = 20, every_s: float = 0.1, padding: int = 0) -> None:
        super().__init__(daemon=True)
        self._api, self._size, self._every_s, self._padding = api, size, every_s, padding
        self._stopping = threading.Event()
        self.viewers = [f"{name}-{n}" for n in range(7)]
        self.accepted: Counter[str] = Counter()  # viewer -> events answered with 202
        self.ids: set[tuple[str, str]] = set()  # the same events as (viewer, id in the stream)
        self.statuses: Counter[int] = Counter()  # HTTP status -> responses; 0: no response
        self.slowest_s = 0.0

    def run(self) -> None:
        """Send until `stop` is called."""
        number = 0
        while not self._stopping.wait(self._every_s):
            viewers = [self.viewers[n % 7] for n in range(number, number + self._size)]
            batch = [
                cloud_event(f"e{number + n}", viewer, f"i{n}", sessionpadding="x" * self._padding)
                for n, viewer in enumerate(viewers)
            ]
            while not self._send(batch):
                if self._stopping.wait(0.2):
                    return
            self.accepted.update(viewers)
            self.ids.update((viewer, event_key(APP, f"e{number + n}")) for n, viewer in enumerate(viewers))
            number += self._size

    def _send(self, batch: list[dict[str, Any]]) -> bool:
        start = time.monotonic()
        try:
            response = self._api.post(batch)
        except httpx.TransportError:
            self.statuses[0] += 1
            return False
        self.slowest_s = max(self.slowest_s, time.monotonic() - start)
        self.statuses[response.status_code] += 1
        return response.status_code == 202 and response.json()["accepted"] == len(batch)

    def stop(self) -> None:
        """Stop sending and wait for the last response."""
        self._stopping.set()
        if self.is_alive():
            self.join()

    close = stop
