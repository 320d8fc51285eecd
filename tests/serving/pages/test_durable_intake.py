"""A 202 is kept: the real command is killed while its broker is away, and the next one delivers what was taken."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx

from features.events.decode import decode
from features.events.spool.durable import DurableSpool
from features.events.stream.memory import MemoryStream
from recsys.domain.errors import Unavailable

PATIENCE_S = 60.0


def event(id_: str, viewer: str) -> dict[str, object]:
    return {
        "specversion": "1.0",
        "id": id_,
        "source": "/app",
        "type": "mainstay.viewer.click",
        "subject": viewer,
        "data": {"item_id": "item-1"},
    }


def served(home: Path, stream: str) -> tuple[subprocess.Popen[str], str]:
    flags = ["--home", str(home), "--port", "0", "--online", "memory://", "--stream", stream]
    with (home / "serve.log").open("a") as log:
        command = [sys.executable, "-m", "features.cli", "serve", *flags]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    assert child.stdout is not None
    address = child.stdout.readline().split()[2]
    give_up = time.monotonic() + PATIENCE_S
    while True:
        try:
            httpx.get(f"{address}/health/live", timeout=5)
            return child, address
        except httpx.TransportError:
            assert child.poll() is None, (home / "serve.log").read_text()
            assert time.monotonic() < give_up
            time.sleep(0.05)


def test_what_was_answered_with_202_survives_kill_9_and_a_dead_broker(tmp_path: Path, free_port) -> None:
    """Goals E1 and D2 of the door: several senders, a broker that is not there, a kill in the middle."""
    child, address = served(tmp_path, f"kafka://127.0.0.1:{free_port()}")
    acknowledged: list[str] = []

    def send(sender: int) -> None:
        with httpx.Client(timeout=10) as client:
            for number in range(1000):
                ids = [f"{sender}-{number}-{n}" for n in range(5)]
                batch = [event(id_, f"v{sender}") for id_ in ids]
                try:
                    answer = client.post(f"{address}/v1/events", json=batch)
                except httpx.TransportError:
                    return
                assert answer.status_code == 202
                acknowledged.extend(ids)

    senders = [threading.Thread(target=send, args=(n,)) for n in range(3)]
    for sender in senders:
        sender.start()
    give_up = time.monotonic() + PATIENCE_S
    while len(acknowledged) < 300:
        assert time.monotonic() < give_up
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert child.stdout is not None
    child.stdout.close()
    for sender in senders:
        sender.join()

    stream = MemoryStream(1)
    spool = DurableSpool(tmp_path / "spool", stream, "t")
    spool.start()
    while spool.state().records:
        assert time.monotonic() < give_up
        time.sleep(0.01)
    spool.close()
    kept = [decode(message.value) for message in stream.read("t", 0, 0, 10**6)]
    assert {f"/app#{id_}" for id_ in acknowledged} <= {one.id for one in kept}
    for sender in range(3):
        numbers = [
            tuple(map(int, one.id.removeprefix("/app#").split("-"))) for one in kept if one.viewer_id == f"v{sender}"
        ]
        assert numbers == sorted(numbers)


class Shut(MemoryStream):
    """A stream that takes nothing until it is opened."""

    open = False

    def publish(self, topic, records):
        if not self.open:
            raise Unavailable("the broker is away")
        return super().publish(topic, records)


def test_a_full_spool_says_503_a_page_costs_nothing_and_all_is_delivered_later(serve, until, tmp_path: Path) -> None:
    stream = Shut(2)

    def small(told):
        return DurableSpool(tmp_path / "small", stream, "viewer-events", limit_bytes=30_000, on_delivered=told)

    with serve(stream=stream, spool=small) as service:
        spool = service.services.spool
        service.stock()
        taken = 0
        while True:
            answer = service.http.post("/v1/events", json=[event(f"e{taken}", "v1")])
            if answer.status_code != 202:
                break
            taken += 1
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "the spool is full" in answer.json()["detail"]
        assert taken > 50
        assert len(service.page()["items"]) == 12
        until(lambda: not service.http.get("/health/ready").json()["parts"]["spool"]["ok"])
        ready = service.http.get("/health/ready")
        assert ready.status_code == 200
        assert "the broker is away" in ready.json()["parts"]["spool"]["detail"]
        until(lambda: f"mainstay_spool_records {taken}.0" in service.http.get("/metrics").text)
        stream.open = True
        until(lambda: spool.state().records == 0)
        until(lambda: service.http.post("/v1/events", json=[event("last", "v1")]).status_code == 202)
        ids = {one.id for one in service.published(taken + 1)}
        assert {f"/app#e{n}" for n in range(taken)} <= ids
        until(lambda: service.http.get("/health/ready").json()["parts"]["spool"]["ok"])


def test_a_lost_log_is_said_counted_and_filled_again(serve, until, tmp_path: Path) -> None:
    """Goal D2: within ten seconds in readiness and metrics; what is still here is delivered again."""
    stream = MemoryStream(2)

    def files(told):
        return DurableSpool(tmp_path / "files", stream, "viewer-events", on_delivered=told)

    with serve(stream=stream, spool=files) as service:
        service.http.post("/v1/events", json=[event(f"e{n}", "v1") for n in range(9)]).raise_for_status()
        service.published(9)
        stream._logs.clear()
        took_s = until(lambda: "lost its log" in service.http.get("/health/ready").json()["parts"]["stream"]["detail"])
        assert took_s < 10
        assert service.http.get("/health/ready").json()["status"] == "degraded"
        assert {one.id for one in service.published(9)} == {f"/app#e{n}" for n in range(9)}
        assert "mainstay_stream_losses_total 1.0" in service.http.get("/metrics").text
