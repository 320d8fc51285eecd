"""HTTP ingest against the bare libraries: `python -m benchmarks.features.ingest [--seconds 10] [--single 100]`.

The real `mainstay serve` in a process of its own takes batches of 50 made-up events over several connections; the load
generator shares the machine. In the same run: a FastAPI route that only parses the same JSON, the disk's own rate of
fsyncs, and the three parts of the codec. Then single events on an idle system, from the request to the viewer's state.
A table for people, and as the last line one JSON object.
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

from benchmarks.servers import broker, free_port, listens, running
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


def event(number: int) -> dict[str, object]:
    """One click as an app sends it."""
    return {
        "specversion": "1.0",
        "id": f"e-{number}",
        "source": "/apps/tv",
        "type": "mainstay.viewer.click",
        "subject": f"v-{number * 7919 % VIEWERS}",
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "data": {"item_id": f"item-{number % 997}", "slot": 1 + number % 12, "region": "cn.zj.hz", "screen": "tv"},
    }


def request(body: bytes) -> bytes:
    """A whole HTTP request."""
    head = (
        f"POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body of the next response."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
    )
    return int(head[9:12]), await reader.readexactly(length)


async def pound(port: int, seconds: float, batch: int = BATCH) -> dict[str, float]:
    """As many batches as the server takes; what was accepted each second, and how long a batch took."""
    bodies = [[event(n) for n in range(k * batch, (k + 1) * batch)] for k in range(400)]
    wire = [request(json.dumps(body).encode()) for body in bodies]
    took: list[float] = []
    counts = {"accepted": 0, "refused": 0}
    began = time.perf_counter()

    async def sender(first: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        number = first
        while time.perf_counter() - began < seconds:
            sent = time.perf_counter()
            writer.write(wire[number % len(wire)])
            status, body = await answer(reader)
            took.append(time.perf_counter() - sent)
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
        "p50_ms": 1e3 * quantiles(took, n=100)[49],
        "p99_ms": 1e3 * quantiles(took, n=100)[98],
    }


def single(port: int, online_url: str, times: int) -> dict[str, float]:
    """One event at a time on an idle system: from the request to the answer, and to the viewer's state."""
    online = open_online(online_url, 5.0)
    answered, visible = [], []
    for number in range(times):
        viewer = f"single-{number}"
        body = json.dumps([event(number) | {"subject": viewer}]).encode()
        began = time.perf_counter()
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(request(body))
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 202"), "refused"
        answered.append(time.perf_counter() - began)
        while True:
            raw = online.get([viewer_key(viewer)])[0]
            if raw is not None and decode_viewer(raw).counts:
                break
            if time.perf_counter() - began > 30:
                raise SystemExit(f"event {number} was not in the features after 30 s")
            time.sleep(0.005)
        visible.append(time.perf_counter() - began)
        time.sleep(0.05)
    online.close()
    return {
        "answered_p50_ms": 1e3 * quantiles(answered, n=100)[49],
        "visible_p50_ms": 1e3 * quantiles(visible, n=100)[49],
        "visible_max_ms": 1e3 * max(visible),
    }


@contextmanager
def process(command: Sequence[str], ready: Callable[[], bool], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A child that is ready when this begins and gone when it ends."""
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


def serve(home: Path, stream: str) -> tuple[list[str], int]:
    """The command of `mainstay serve`, and its port."""
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
    """How many appends of this size the disk makes durable each second, one after the other."""
    with (directory / "fsync").open("wb") as file:
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            file.write(b"x" * size)
            file.flush()
            os.fdatasync(file.fileno())
            count += 1
        return count / (time.perf_counter() - began)


def codec() -> dict[str, float]:
    """Microseconds of one event in each part of the codec, the least of several runs."""
    now = time.time()
    raw = json.dumps(event(1)).encode()
    accepted = accept_json(raw, now).event
    written = encode(accepted)
    parts: dict[str, Callable[[], object]] = {
        "accept_us": lambda: accept_json(raw, now),
        "encode_us": lambda: encode(accepted),
        "decode_us": lambda: decode(written),
        "json_loads_us": lambda: json.loads(raw),
    }
    return {name: _least(part) for name, part in parts.items()}


def _least(part: Callable[[], object], times: int = 5_000) -> float:
    best = float("inf")
    for _ in range(7):
        began = time.perf_counter()
        for _ in range(times):
            part()
        best = min(best, (time.perf_counter() - began) / times)
    return 1e6 * best


def main(argv: Sequence[str] | None = None) -> int:
    """0 when the floors hold: 5,000 events/s into the spool, each single event in the features within a second."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="of load, for each row")
    parser.add_argument("--single", type=int, default=100, help="single events on an idle system")
    parser.add_argument("--directory", help="where the spool lies: the disk that is measured")
    said = parser.parse_args(argv)
    out: dict[str, object] = {"batch": BATCH, "connections": CONNECTIONS, "cores": os.cpu_count(), **codec()}
    with tempfile.TemporaryDirectory(dir=said.directory) as made, ExitStack() as stack:
        home = Path(made)
        log = home / "log"
        out["fsyncs_s"] = fsyncs(home, 20_000)
        port = free_port()
        with process([sys.executable, "-c", BARE, str(port)], partial(listens, port), log):
            out["bare"] = asyncio.run(pound(port, said.seconds))
        server = broker(home / "broker")
        kafka = f"kafka://127.0.0.1:{server.port}"
        command, port = serve(home / "away", kafka)
        with process(command, partial(listens, port), log):
            out["broker_away"] = away = asyncio.run(pound(port, said.seconds))
        stack.enter_context(running(server))
        command, port = serve(home / "kafka", kafka)
        with process(command, partial(listens, port), log):
            asyncio.run(pound(port, 1.0))
            out["kafka"] = with_kafka = asyncio.run(pound(port, said.seconds))
            flags = ["--home", str(home / "kafka"), "--stream", kafka]
            worker = [sys.executable, "-m", "features.cli", "worker", *flags]
            with process(worker, lambda: b"worker ready" in log.read_bytes(), log):
                _caught_up(port, f"sqlite:///{home}/kafka/online.db")
                out["single_kafka"] = alone = single(port, f"sqlite:///{home}/kafka/online.db", said.single)
        command, port = serve(home / "sqlite", "")
        with process(command, partial(listens, port), log):
            out["sqlite"] = asyncio.run(pound(port, said.seconds))
    for name in ("bare", "sqlite", "kafka", "broker_away"):
        row = out[name]
        assert isinstance(row, dict)
        waited = f"batch p50 {row['p50_ms']:6.1f} ms  p99 {row['p99_ms']:6.1f} ms"
        print(f"{name:12} {row['events_s']:10,.0f} events/s   {waited}")
    print(f"{'fsync':12} {out['fsyncs_s']:10,.0f} /s of 20 kB")
    print("one event   ", "  ".join(f"{name} {figure:,.1f}" for name, figure in alone.items()))
    print("codec       ", "  ".join(f"{name} {out[name]:.1f}" for name in ("accept_us", "encode_us", "decode_us")))
    print(json.dumps(out))
    floors = [row["events_s"] >= 5_000 for row in (away, with_kafka)] + [alone["visible_max_ms"] <= 1_000]
    return 0 if all(floors) else 1


def _caught_up(port: int, online_url: str) -> None:
    """Returns when an event that is sent now comes through: the worker has joined and has no backlog."""
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
