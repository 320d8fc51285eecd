"""The door as the benches use it: a real `recsys-serve`, and senders who keep count of what they were promised."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import httpx

from benchmarks.faults.harness.worker_process import ROOT, process_env, wait_until
from benchmarks.faults.harness.environment import Environment
from features.events.identity import event_key

READY_TIMEOUT_S = 90.0
RESPONSE_TIMEOUT_S = 30.0


class ApiProcess:
    """One `recsys-serve` process on a free port."""

    def __init__(self, env: Environment, *flags: str) -> None:
        self._log = env.home / "serve.log"
        command = [sys.executable, "-m", "serving.main", *env.flags, "--port", "0", *flags]
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(
                command, stdout=output, stderr=output, cwd=ROOT, env=process_env(env.home.parent)
            )
        self.address = ""
        self._client = httpx.Client(timeout=RESPONSE_TIMEOUT_S)

    def wait_ready(self) -> ApiProcess:
        """Wait until it answers."""
        wait_until(lambda: "serving on " in self.output() or self.process.poll() is not None, READY_TIMEOUT_S)
        if self.process.poll() is not None:
            raise RuntimeError(f"recsys-serve ended:\n{self.output()[-2000:]}")
        self.address = self.output().partition("serving on ")[2].split()[0]
        wait_until(self._alive, READY_TIMEOUT_S)
        return self

    def output(self) -> str:
        """All that it printed and logged."""
        return self._log.read_text(errors="replace")

    def post(self, events: list[dict[str, Any]]) -> httpx.Response:
        """A batch of CloudEvents."""
        return self._client.post(f"{self.address}/v1/events", json=events)

    def close(self) -> None:
        """`kill -9`."""
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
    """A play, as an app sends it."""
    return {
        "specversion": "1.0", "id": id_, "source": APP, "type": "mainstay.viewer.play", "subject": viewer,
        "time": datetime.now(UTC).isoformat(), "data": {"item_id": item}, **envelope,
    }  # fmt: skip


class Sender(threading.Thread):
    """An app that sends batches and, as an app should, sends a batch again until it is taken."""

    def __init__(self, api: ApiProcess, name: str, *, size: int = 20, every_s: float = 0.1, padding: int = 0) -> None:
        super().__init__(daemon=True)
        self._api, self._size, self._every_s, self._padding = api, size, every_s, padding
        self._stopping = threading.Event()
        self.viewers = [f"{name}-{n}" for n in range(7)]
        self.accepted: Counter[str] = Counter()  # viewer -> events that were answered with 202
        self.ids: set[tuple[str, str]] = set()  # the same as (viewer, id in the stream)
        self.statuses: Counter[int] = Counter()  # status -> how often; 0: no answer
        self.slowest_s = 0.0

    def run(self) -> None:
        """Until told to end."""
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
        began = time.monotonic()
        try:
            answer = self._api.post(batch)
        except httpx.TransportError:
            self.statuses[0] += 1
            return False
        self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        self.statuses[answer.status_code] += 1
        return answer.status_code == 202 and answer.json()["accepted"] == len(batch)

    def stop(self) -> None:
        """Stop sending and wait for the last answer."""
        self._stopping.set()
        if self.is_alive():
            self.join()

    close = stop
