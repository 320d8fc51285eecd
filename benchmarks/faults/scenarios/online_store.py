"""D1: the online store is killed, stopped, full and read-only, each for a while, under an open loop of page requests.

    python -m benchmarks.faults.scenarios.online_store [--seconds 30] [--rate 60]

Runs a real Valkey server and a separate serving process; the load generator (this process) shares the machine. Every
page is checked by counting its slots: the legal minimum on every prefix, the cap, and what the receipt reports of
both. The goals for each fault: at least 99.9 % of the pages are 2xx, their 99th percentile is at most 150 ms, no page
violates the policy, and pages are personal again within 5 s of the server's recovery. Prints a table and, as the last
line, one JSON object; the exit code is 1 if a goal is missed.
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
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import redis

from benchmarks.servers import Server, valkey

ITEMS, VIEWERS, SLOTS = 1000, 500, 12
MINIMUM, CAP = 0.3, 4
PLACEMENT = "cn.zj-mobile-home"
POLICY = f"""
outlet: cn
controls:
  - id: minimum
    action: quota
    where: {{label: public-service}}
    at_least: {MINIMUM}
    prefixes: every
    enforcement: legal
  - {{id: one-topic, action: cap, attribute: topic, at_most: {CAP}}}
"""
GOALS = {"ok_share": 0.999, "p99_ms": 150.0, "recovery_s": 5.0}


def send_command(server: Server, *command: object) -> None:
    """Send a command to the server as an operator."""
    with closing(redis.Redis(port=server.port)) as operator:
        operator.execute_command(*command)


Fault = tuple[Callable[[Server], object], Callable[[Server], object]]
FAULTS: Mapping[str, Fault] = {
    "none": (lambda _: None, lambda _: None),
    "killed": (Server.kill, Server.start),
    "stopped": (lambda server: server.signal(signal.SIGSTOP), lambda server: server.signal(signal.SIGCONT)),
    "full": (
        lambda server: send_command(server, "CONFIG", "SET", "maxmemory", "1mb"),
        lambda server: send_command(server, "CONFIG", "SET", "maxmemory", "0"),
    ),
    "read-only": (
        lambda server: send_command(server, "REPLICAOF", "127.0.0.1", "1"),
        lambda server: send_command(server, "REPLICAOF", "NO", "ONE"),
    ),
}
"""Fault -> functions that begin and end it."""


def policy_violations(page: Mapping[str, Any]) -> list[str]:
    """Return how a page violates POLICY, counted slot by slot, and where its receipt disagrees with the page."""
    items = [slot["item"] for slot in page["items"]]
    public = np.cumsum(["public-service" in item["labels"] for item in items])
    topics = [item["topic"] for item in items]
    largest_topic = max((topics.count(topic) for topic in topics), default=0)
    violations = [] if len(items) == SLOTS else [f"{len(items)} of {SLOTS} slots"]
    violations += [
        f"minimum on the first {k + 1}" for k, n in enumerate(public[:-1]) if n < int(MINIMUM * (k + 1) + 1e-9)
    ]
    violations += ["minimum on the page"] if items and public[-1] < MINIMUM * len(items) else []
    violations += ["cap"] if largest_topic > CAP else []
    lines = {line["id"]: line for line in page["receipt"]["controls"]}
    violations += [f"receipt without {name}" for name in ("minimum", "one-topic") if name not in lines]
    violations += [f"receipt: {name} relaxed by {line['slack']}" for name, line in lines.items() if line["slack"]]
    if "minimum" in lines and lines["minimum"]["required"]["first_slots"] is None:
        violations += [] if lines["minimum"]["achieved"] == public[-1] else ["receipt counts the minimum differently"]
    return violations


@dataclass
class PageResponse:
    """A page request: when it was due (monotonic seconds), its HTTP status (0: no response) and the page."""

    due: float
    latency_s: float
    status: int
    fallback_level: str
    degraded: bool
    violations: list[str]


async def send_load(address: str, rate: float, until: Callable[[], bool], responses: list[PageResponse]) -> None:
    """Request pages at a steady rate, regardless of the responses; latency counts from when a request was due."""
    limits = httpx.Limits(max_connections=200, max_keepalive_connections=200, keepalive_expiry=3)  # uvicorn's is 5 s
    async with httpx.AsyncClient(base_url=address, timeout=10, limits=limits) as client:
        requests, began, n = set[asyncio.Task[None]](), time.monotonic(), 0
        while not until():
            due = began + n / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            task = asyncio.create_task(_request_page(client, f"v{n % VIEWERS}", due, responses))
            requests.add(task)
            task.add_done_callback(requests.discard)
            n += 1
        await asyncio.gather(*requests)


async def _request_page(client: httpx.AsyncClient, viewer: str, due: float, responses: list[PageResponse]) -> None:
    body = {"viewer_id": viewer, "slots": SLOTS}
    try:
        response = await client.post(f"/v1/placements/{PLACEMENT}:recommend", json=body)
        latency_s, page = time.monotonic() - due, response.json()
        good = response.status_code == 200
        responses.append(
            PageResponse(
                due,
                latency_s,
                response.status_code,
                page["fallback_level"] if good else "",
                "online" in page["degraded_parts"] if good else True,
                policy_violations(page) if good else [],
            )
        )
    except (httpx.HTTPError, ValueError) as error:
        responses.append(PageResponse(due, time.monotonic() - due, 0, "", True, [repr(error)]))


def cpu_wait_s(processes: Sequence[int]) -> float:
    """Return the seconds that live threads of these processes were runnable, but waited for a core (Linux; else 0).

    Threads that have ended are not counted, so a difference of two calls is a lower bound.
    """
    total = 0.0
    for file in (file for pid in processes for file in Path(f"/proc/{pid}/task").glob("*/schedstat")):
        with suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended
            total += int(file.read_text().split()[1]) / 1e9
    return total


def run_fault(
    server: Server, address: str, fault: str, seconds: float, rate: float, processes: Sequence[int]
) -> dict[str, Any]:
    """Return the figures of a fault that lasts `seconds`, measured until six seconds after its end.

    processes  those that make the load and the pages; their wait for a core is due to the machine, not the fault
    """
    cpu_wait_before_s = cpu_wait_s(processes)
    responses: list[PageResponse] = []
    ended: list[float] = []
    begin, end = FAULTS[fault]

    async def play() -> None:
        finish = [float("inf")]
        pages = asyncio.create_task(send_load(address, rate, lambda: time.monotonic() > finish[0], responses))
        await asyncio.to_thread(begin, server)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(end, server)
        ended.append(time.monotonic())
        finish[0] = ended[0] + GOALS["recovery_s"] + 1
        await pages

    asyncio.run(play())
    responses.sort(key=lambda response: response.due)
    during_fault = [response for response in responses if response.due < ended[0]]
    ok = [response for response in responses if 200 <= response.status < 300]
    not_personal = [response.due for response in responses if response.fallback_level != "personal"]
    latencies_ms = np.array([response.latency_s for response in responses]) * 1000
    levels = Counter(response.fallback_level or "none" for response in during_fault)
    return {
        "fault": fault,
        "pages": len(responses),
        "ok_share": round(len(ok) / len(responses), 5),
        "p50_ms": round(float(np.percentile(latencies_ms, 50)), 1),
        "p99_ms": round(float(np.percentile(latencies_ms, 99)), 1),
        "max_ms": round(float(latencies_ms.max()), 1),
        "violating_pages": sum(bool(response.violations) for response in responses),
        "fallback_levels": dict(sorted(levels.items())),
        "recovery_s": round(max(0.0, max(not_personal, default=0.0) - ended[0]), 2),
        "cpu_wait_s": round(max(0.0, cpu_wait_s(processes) - cpu_wait_before_s), 1),
    }


def missed_goals(figures: Mapping[str, Any]) -> list[str]:
    """Return the goals that the figures of a fault miss."""
    goals = [] if figures["ok_share"] >= GOALS["ok_share"] else ["2xx"]
    goals += [] if figures["p99_ms"] <= GOALS["p99_ms"] else ["p99"]
    goals += [] if figures["violating_pages"] == 0 else ["policy"]
    return goals + ([] if figures["recovery_s"] <= GOALS["recovery_s"] else ["recovery"])


def main(argv: Sequence[str] | None = None) -> int:
    """Run all faults; returns 0 if every goal is met."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.faults.scenarios.online_store", description="Online store outages (goal D1)."
    )
    parser.add_argument("--seconds", type=float, default=30.0, help="how long each fault lasts")
    parser.add_argument("--rate", type=float, default=60.0, help="page requests per second")
    parser.add_argument("--serve", nargs=2, metavar=("HOME", "URL"), help=argparse.SUPPRESS)  # the child
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS), metavar="FAULT")
    args = parser.parse_args(argv)
    if args.serve:
        return _serve(*args.serve)
    with tempfile.TemporaryDirectory() as home:
        server = valkey(Path(home) / "valkey").start()
        url = f"redis://127.0.0.1:{server.port}/0"
        command = [sys.executable, "-m", "benchmarks.faults.scenarios.online_store", "--serve", home, url]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert child.stdout is not None
            address = child.stdout.readline().strip()
            rows = [
                run_fault(server, address, fault, args.seconds, args.rate, (os.getpid(), child.pid))
                for fault in args.faults
            ]
        finally:
            server.kill()
            child.send_signal(signal.SIGTERM)
            child.wait(20)
    goals = {row["fault"]: missed_goals(row) for row in rows}
    print(
        f"{'fault':<10} {'pages':>6} {'2xx':>8} {'p50 ms':>7} {'p99 ms':>7} {'max ms':>7} {'violating':>9}  recovery s "
        " cpu wait s  fallback levels"
    )
    for row in rows:
        print(
            f"{row['fault']:<10} {row['pages']:>6} {row['ok_share']:>8.3%} {row['p50_ms']:>7} {row['p99_ms']:>7} "
            f"{row['max_ms']:>7} {row['violating_pages']:>9} {row['recovery_s']:>11} {row['cpu_wait_s']:>11}  "
            f"{row['fallback_levels']}"
        )
    print(json.dumps({"goal": "D1", "rate": args.rate, "seconds": args.seconds, "faults": rows, "missed": goals}))
    return int(any(goals.values()))


def _serve(home: str, url: str) -> int:
    """Run a serving process with a catalog, a policy, a random model, and a history for every viewer."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import uvicorn

    from features.columns import FEATURES
    from features.settings import Settings
    from features.state.codec import encode_viewer, viewer_key
    from recsys.domain.viewer import Recent, ViewerState
    from recsys.models.served_model import ServedModel
    from serving.app import build
    from serving.main import with_gc_freeze
    from serving.services import Services

    app = with_gc_freeze(build(Settings.model_validate({"home": home, "stream": "memory://", "online": url})))
    services: Services = app.state.services
    holder, content = services.holders, services.embedding_poller
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as mainstay serve does
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    runner = uvicorn.Server(uvicorn.Config(app, log_level="critical"))

    def load_data() -> None:
        with httpx.Client(base_url=address, timeout=60) as client:
            while not runner.started:
                time.sleep(0.05)
            client.post("/v1/items", json={"items": [_item(n) for n in range(ITEMS)]}).raise_for_status()
            headers = {"content-type": "application/yaml"}
            client.post("/v1/policies/cn/publish", content=POLICY, headers=headers).raise_for_status()
            now = time.time()
            services.online.put(
                {
                    viewer_key(f"v{n}"): encode_viewer(
                        ViewerState(
                            f"v{n}", tuple(Recent(f"item-{(n * 7 + k) % ITEMS}", "like", now) for k in range(9))
                        )
                    )
                    for n in range(VIEWERS)
                }
            )
            while holder.current.revision != services.control.revision() or not services.pollers["engine"].ok:
                time.sleep(0.05)
            while content is not None and (content.refresher.n_pending or not services.pollers["content"].ok):
                time.sleep(0.2)  # encoding a new catalog keeps a core busy
            holder.set_model(ServedModel.load(_bundle(), FEATURES))
            body = {"viewer_id": "v0", "slots": SLOTS}
            while (
                client.post(f"/v1/placements/{PLACEMENT}:recommend", json=body).json()["fallback_level"] != "personal"
            ):
                time.sleep(0.05)
        print(address, flush=True)

    import threading

    threading.Thread(target=load_data, daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: None)
    runner.run(sockets=[listening])
    return 0


def _item(n: int) -> dict[str, Any]:
    at = datetime.now(UTC) - timedelta(days=2, hours=n / 10)
    return {
        "id": f"item-{n}",
        "title": {"zh": f"节目{n}", "en": f"Item {n}"},
        "outlet": "cn.zj",
        "labels": ["public-service"] if n % 4 == 0 else ["film/drama"],
        "topic": f"topic-{n % 7}",
        "published_at": at.isoformat(),
    }


def _bundle() -> Any:
    """Return a bundle of random factors and a random ranker: the cost of a page does not depend on their quality."""
    import torch

    from features.columns import FEATURES
    from recsys.domain.types import ACTIONS
    from recsys.models.bundle import Bundle
    from recsys.models.probe import with_probe
    from recsys.models.ranker import Predictor, Ranker, tensors

    rng = np.random.default_rng(3)
    torch.manual_seed(3)
    network = tensors(Ranker(len(FEATURES), len(ACTIONS)))
    probe = rng.normal(size=(4, len(FEATURES))).astype(np.float32)
    unprobed = Bundle(
        version="faults",
        created_at=0.0,
        item_ids=tuple(f"item-{n}" for n in range(ITEMS)),
        item_vectors=rng.normal(size=(ITEMS, 64)).astype(np.float32),
        retriever_params={"regularization": 0.1, "alpha": 5.0},
        popularity=rng.exponential(2, ITEMS).astype(np.float32),
        network=network,
        feature_names=FEATURES,
        probe_features=probe,
        probe_p=Predictor.load(network).p(probe),
        metrics={},
    )
    return with_probe(unprobed)


if __name__ == "__main__":
    sys.exit(main())
