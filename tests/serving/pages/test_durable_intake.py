"""A 202 is durable: the real command is killed during a broker outage, and the next spool delivers every event."""

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

TIMEOUT_S = 60.0


def event(id_: str, viewer: str) -> dict[str, object]:
    return {
        "specversion": "1.0",
        "id": id_,
        "source": "/app",
        "type": "mainstay.viewer.click",
        "subject": viewer,
        "data": {"item_id": "item-1"},
    }


def start_service(home: Path, stream: str) -> tuple[subprocess.Popen[str], str]:
    flags = ["--home", str(home), "--port", "0", "--online", "memory://", "--stream", stream]
    with (home / "serve.log").open("a") as log:
        command = [sys.executable, "-m", "features.cli", "serve", *flags]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    assert child.stdout is not None
    address = child.stdout.readline().split()[2]
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            httpx.get(f"{address}/health/live", timeout=5)
            return child, address
        except httpx.TransportError:
            assert child.poll() is None, (home / "serve.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_acknowledged_events_survive_kill_9_and_a_dead_broker(tmp_path: Path, free_port) -> None:
    """Several senders post while no broker runs, and the service is killed in the middle."""
    child, address = start_service(tmp_path, f"kafka://127.0.0.1:{free_port()}")
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
    deadline = time.monotonic() + TIMEOUT_S
    while len(acknowledged) < 300:
        assert time.monotonic() < deadline
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
        assert time.monotonic() < deadline
        time.sleep(0.01)
    spool.close()
    delivered = [decode(message.value) for message in stream.read("t", 0, 0, 10**6)]
    assert {f"/app#{id_}" for id_ in acknowledged} <= {event.id for event in delivered}
    for sender in range(3):
        numbers = [
            tuple(map(int, event.id.removeprefix("/app#").split("-")))
            for event in delivered
            if event.viewer_id == f"v{sender}"
        ]
        assert numbers == sorted(numbers)


class ClosedStream(MemoryStream):
    """A stream that refuses records until `open` is set."""

    open = False

    def publish(self, topic, records):
        if not self.open:
            raise Unavailable("the broker is away")
        return super().publish(topic, records)


def test_full_spool_answers_503_serves_pages_and_delivers_later(serve, until, tmp_path: Path) -> None:
    stream = ClosedStream(2)

    def small_spool(on_delivered):
        return DurableSpool(tmp_path / "small", stream, "viewer-events", limit_bytes=30_000, on_delivered=on_delivered)

    with serve(stream=stream, spool=small_spool) as service:
        spool = service.services.spool
        service.stock()
        accepted = 0
        while True:
            answer = service.http.post("/v1/events", json=[event(f"e{accepted}", "v1")])
            if answer.status_code != 202:
                break
            accepted += 1
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "the spool is full" in answer.json()["detail"]
        assert accepted > 50
        assert len(service.page()["items"]) == 12
        until(lambda: not service.http.get("/health/ready").json()["parts"]["spool"]["ok"])
        ready = service.http.get("/health/ready")
        assert ready.status_code == 200
        assert "the broker is away" in ready.json()["parts"]["spool"]["detail"]
        until(lambda: f"mainstay_spool_records {accepted}.0" in service.http.get("/metrics").text)
        stream.open = True
        until(lambda: spool.state().records == 0)
        until(lambda: service.http.post("/v1/events", json=[event("last", "v1")]).status_code == 202)
        ids = {event.id for event in service.published(accepted + 1)}
        assert {f"/app#e{n}" for n in range(accepted)} <= ids
        until(lambda: service.http.get("/health/ready").json()["parts"]["spool"]["ok"])


def test_lost_log_is_reported_counted_and_redelivered(serve, until, tmp_path: Path) -> None:
    """Readiness and metrics report the loss within ten seconds; events still in the spool are delivered again."""
    stream = MemoryStream(2)

    def file_spool(on_delivered):
        return DurableSpool(tmp_path / "files", stream, "viewer-events", on_delivered=on_delivered)

    with serve(stream=stream, spool=file_spool) as service:
        service.http.post("/v1/events", json=[event(f"e{n}", "v1") for n in range(9)]).raise_for_status()
        service.published(9)
        stream._logs.clear()
        detected_s = until(
            lambda: "lost its log" in service.http.get("/health/ready").json()["parts"]["stream"]["detail"]
        )
        assert detected_s < 10
        assert service.http.get("/health/ready").json()["status"] == "degraded"
        assert {event.id for event in service.published(9)} == {f"/app#e{n}" for n in range(9)}
        assert "mainstay_stream_losses_total 1.0" in service.http.get("/metrics").text
