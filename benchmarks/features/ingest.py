"""Measures event intake over HTTP: `python -m benchmarks.features.ingest [--seconds 10] [--single 100]`.

A real `mainstay serve` process accepts batches of 50 synthetic events over several connections; the load generator runs
on the same machine. For comparison, the run measures a FastAPI route that only parses the same JSON, the fsync rate of
the disk, and the parts of the codec. Then it sends single events to an idle system and measures the time from the
request to the viewer's state. Prints a table and, as the last line, one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import quantiles

from benchmarks.servers import broker, free_port, is_listening, running
from features.events.decode import accept_json, decode, encode
from features.state.codec import decode_viewer, viewer_key
from features.state.online.connect import open_online
from recsys.domain.errors import MainstayError

BATCH = 50
CONNECTIONS = 8
VIEWERS = 5_000
BARE = """
import sys
import uvicorn
from fastapi import FastAPI, Request
from pydantic_core import from_json

app = FastAPI()

@app.post("/v1/events")
async def events(request: Request) -> dict[str, int]:
    return {"accepted": len(from_json(await request.body()))}

uvicorn.run(app, port=int(sys.argv[1]), log_level="error")
"""


def make_event(number: int) -> dict[str, object]:
    """Return a click as an app sends it."""
    return {
        "specversion": "1.0",
        "id": f"e-{number}",
        "source": "/apps/tv",
        "type": "mainstay.viewer.click",
        "subject": f"v-{number * 7919 % VIEWERS}",
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "data": {"item_id": f"item-{number % 997}", "slot": 1 + number % 12, "region": "cn.zj.hz", "screen": "tv"},
    }


def http_request(body: bytes) -> bytes:
    """Return a complete HTTP request."""
    head = "POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


async def read_response(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Read the next response; returns its status and body."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
    )
    return int(head[9:12]), await reader.readexactly(length)


async def send_load(port: int, seconds: float, batch: int = BATCH) -> dict[str, float]:
    """Send batches as fast as the server accepts them; returns accepted events per second and batch latencies."""
    bodies = [[make_event(n) for n in range(k * batch, (k + 1) * batch)] for k in range(400)]
    wire = [http_request(json.dumps(body).encode()) for body in bodies]
    latencies_s: list[float] = []
    counts = {"accepted": 0, "refused": 0}
    began = time.perf_counter()

    async def sender(first: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        number = first
        while time.perf_counter() - began < seconds:
            started = time.perf_counter()
            writer.write(wire[number % len(wire)])
            status, body = await read_response(reader)
            latencies_s.append(time.perf_counter() - started)
            if status < 300:
                counts["accepted"] += json.loads(body)["accepted"]
            else:
                counts["refused"] += batch
            number += CONNECTIONS
        writer.close()

    await asyncio.gather(*(sender(n) for n in range(CONNECTIONS)))
    elapsed = time.perf_counter() - began
    return {
        "events_s": counts["accepted"] / elapsed,
        "refused": counts["refused"],
        "p50_ms": 1e3 * quantiles(latencies_s, n=100)[49],
        "p99_ms": 1e3 * quantiles(latencies_s, n=100)[98],
    }


def single(port: int, online_url: str, times: int) -> dict[str, float]:
    """Send single events to an idle system; returns the latency of the response and of the viewer's state."""
    online = open_online(online_url, 5.0)
    answered_s, visible_s = [], []
    for number in range(times):
        viewer = f"single-{number}"
        body = json.dumps([make_event(number) | {"subject": viewer}]).encode()
        began = time.perf_counter()
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(http_request(body))
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 202"), "refused"
        answered_s.append(time.perf_counter() - began)
        while True:
            raw = online.get([viewer_key(viewer)])[0]
            if raw is not None and decode_viewer(raw).counts:
                break
            if time.perf_counter() - began > 30:
                raise SystemExit(f"event {number} was not in the features after 30 s")
            time.sleep(0.005)
        visible_s.append(time.perf_counter() - began)
        time.sleep(0.05)
    online.close()
    return {
        "answered_p50_ms": 1e3 * quantiles(answered_s, n=100)[49],
        "visible_p50_ms": 1e3 * quantiles(visible_s, n=100)[49],
        "visible_max_ms": 1e3 * max(visible_s),
    }


@contextmanager
def process(command: Sequence[str], ready: Callable[[], bool], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a child process, wait until it is ready, and stop it at the end."""
    with log.open("ab") as output:
        child = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        give_up = time.monotonic() + 60
        while not ready():
            if child.poll() is not None or time.monotonic() > give_up:
                raise SystemExit(f"{command} did not start:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)
        yield child
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def serve_command(home: Path, stream: str) -> tuple[list[str], int]:
    """Return the command line of `mainstay serve`, and its port."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "features.cli",
        "serve",
        "--home",
        str(home),
        "--port",
        str(port),
        "--stream",
        stream,
    ]
    return command, port


def fsyncs(directory: Path, size: int, seconds: float = 2.0) -> float:
    """Return the number of sequential durable appends of `size` bytes per second."""
    with (directory / "fsync").open("wb") as file:
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            file.write(b"x" * size)
            file.flush()
            os.fdatasync(file.fileno())
            count += 1
        return count / (time.perf_counter() - began)


def codec() -> dict[str, float]:
    """Return the microseconds of one event in each part of the codec, the minimum of several runs."""
    now = time.time()
    raw = json.dumps(make_event(1)).encode()
    accepted = accept_json(raw, now).event
    written = encode(accepted)
    parts: dict[str, Callable[[], object]] = {
        "accept_us": lambda: accept_json(raw, now),
        "encode_us": lambda: encode(accepted),
        "decode_us": lambda: decode(written),
        "json_loads_us": lambda: json.loads(raw),
    }
    return {name: _best_us(part) for name, part in parts.items()}


def _best_us(part: Callable[[], object], times: int = 5_000) -> float:
    best = float("inf")
    for _ in range(7):
        began = time.perf_counter()
        for _ in range(times):
            part()
        best = min(best, (time.perf_counter() - began) / times)
    return 1e6 * best


def main(argv: Sequence[str] | None = None) -> int:
    """Run all parts. Returns 0 if intake reaches 5,000 events/s and each single event its state within a second."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="duration of the load for each row")
    parser.add_argument("--single", type=int, default=100, help="single events on an idle system")
    parser.add_argument("--directory", help="parent directory of the spool, on the disk to measure")
    args = parser.parse_args(argv)
    figures: dict[str, object] = {"batch": BATCH, "connections": CONNECTIONS, "cores": os.cpu_count(), **codec()}
    with tempfile.TemporaryDirectory(dir=args.directory) as directory, ExitStack() as stack:
        home = Path(directory)
        log = home / "log"
        figures["fsyncs_s"] = fsyncs(home, 20_000)
        port = free_port()
        with process([sys.executable, "-c", BARE, str(port)], partial(is_listening, port), log):
            figures["bare"] = asyncio.run(send_load(port, args.seconds))
        server = broker(home / "broker")
        kafka = f"kafka://127.0.0.1:{server.port}"
        command, port = serve_command(home / "broker_down", kafka)
        with process(command, partial(is_listening, port), log):
            figures["broker_down"] = broker_down = asyncio.run(send_load(port, args.seconds))
        stack.enter_context(running(server))
        command, port = serve_command(home / "kafka", kafka)
        with process(command, partial(is_listening, port), log):
            asyncio.run(send_load(port, 1.0))
            figures["kafka"] = with_kafka = asyncio.run(send_load(port, args.seconds))
            flags = ["--home", str(home / "kafka"), "--stream", kafka]
            worker = [sys.executable, "-m", "features.cli", "worker", *flags]
            with process(worker, lambda: b"worker ready" in log.read_bytes(), log):
                _wait_until_caught_up(port, f"sqlite:///{home}/kafka/online.db")
                figures["single_kafka"] = single_figures = single(
                    port, f"sqlite:///{home}/kafka/online.db", args.single
                )
        command, port = serve_command(home / "sqlite", "")
        with process(command, partial(is_listening, port), log):
            figures["sqlite"] = asyncio.run(send_load(port, args.seconds))
    for name in ("bare", "sqlite", "kafka", "broker_down"):
        row = figures[name]
        assert isinstance(row, dict)
        waited = f"batch p50 {row['p50_ms']:6.1f} ms  p99 {row['p99_ms']:6.1f} ms"
        print(f"{name:12} {row['events_s']:10,.0f} events/s   {waited}")
    print(f"{'fsync':12} {figures['fsyncs_s']:10,.0f} /s of 20 kB")
    print("one event   ", "  ".join(f"{name} {figure:,.1f}" for name, figure in single_figures.items()))
    print("codec       ", "  ".join(f"{name} {figures[name]:.1f}" for name in ("accept_us", "encode_us", "decode_us")))
    print(json.dumps(figures))
    goals = [row["events_s"] >= 5_000 for row in (broker_down, with_kafka)] + [
        single_figures["visible_max_ms"] <= 1_000
    ]
    return 0 if all(goals) else 1


def _wait_until_caught_up(port: int, online_url: str) -> None:
    """Wait until an event reaches its state within a second: the worker has joined and has no backlog."""
    give_up = time.monotonic() + 120
    while time.monotonic() < give_up:
        try:
            if single(port, online_url, 2)["visible_max_ms"] < 1_000:
                return
        except (OSError, MainstayError):
            time.sleep(0.5)
    raise SystemExit("the worker did not catch up")


if __name__ == "__main__":
    sys.exit(main())
