"""The door as the benches use it: a real `mainstay serve`, and senders who keep count of what they were promised."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import httpx

from benchmarks.faults.child import ROOT, environment, wait_until
from benchmarks.faults.place import Place
from features.events.identity import event_key

READY_WITHIN_S = 90.0
SAYS_WITHIN_S = 30.0


class Api:
    """One `mainstay serve` process on a free port."""

    def __init__(self, place: Place, *flags: str) -> None:
        self._log = place.home / "serve.log"
        command = [sys.executable, "-m", "features.cli", "serve", *place.flags, "--port", "0", *flags]
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(
                command, stdout=output, stderr=output, cwd=ROOT, env=environment(place.home.parent)
            )
        self.address = ""
        self._client = httpx.Client(timeout=SAYS_WITHIN_S)

    def ready(self) -> Api:
        """Wait until it answers."""
        wait_until(lambda: "serving on " in self.said() or self.process.poll() is not None, READY_WITHIN_S)
        if self.process.poll() is not None:
            raise RuntimeError(f"mainstay serve ended:\n{self.said()[-2000:]}")
        self.address = self.said().partition("serving on ")[2].split()[0]
        wait_until(self._alive, READY_WITHIN_S)
        return self

    def said(self) -> str:
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

    def __init__(self, api: Api, name: str, *, size: int = 20, every_s: float = 0.1, padding: int = 0) -> None:
        super().__init__(daemon=True)
        self._api, self._size, self._every_s, self._padding = api, size, every_s, padding
        self._end = threading.Event()
        self.viewers = [f"{name}-{n}" for n in range(7)]
        self.taken: Counter[str] = Counter()  # viewer -> events that were answered with 202
        self.ids: set[tuple[str, str]] = set()  # the same as (viewer, id in the stream)
        self.answers: Counter[int] = Counter()  # status -> how often; 0: no answer
        self.slowest_s = 0.0

    def run(self) -> None:
        """Until told to end."""
        number = 0
        while not self._end.wait(self._every_s):
            viewers = [self.viewers[n % 7] for n in range(number, number + self._size)]
            batch = [
                cloud_event(f"e{number + n}", viewer, f"i{n}", sessionpadding="x" * self._padding)
                for n, viewer in enumerate(viewers)
            ]
            while not self._send(batch):
                if self._end.wait(0.2):
                    return
            self.taken.update(viewers)
            self.ids.update((viewer, event_key(APP, f"e{number + n}")) for n, viewer in enumerate(viewers))
            number += self._size

    def _send(self, batch: list[dict[str, Any]]) -> bool:
        began = time.monotonic()
        try:
            answer = self._api.post(batch)
        except httpx.TransportError:
            self.answers[0] += 1
            return False
        self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        self.answers[answer.status_code] += 1
        return answer.status_code == 202 and answer.json()["accepted"] == len(batch)

    def end(self) -> None:
        """Stop sending and wait for the last answer."""
        self._end.set()
        if self.is_alive():
            self.join()

    close = end
