"""Goal D1: the online store killed, stopped, full and read-only, each for a while, under an open loop of page requests.

    python -m benchmarks.faults.redis [--seconds 30] [--rate 60]

A real Valkey server from its wheel and a serving process of its own; the load generator, this process, shares the
machine. Every page is checked by counting its own slots: the legal floor on every beginning, the cap, and what its
receipt says of both. Passes when, for each fault, at least 99.9 % of the pages are 2xx, their 99th percentile at most
150 ms, no page breaks the policy, and pages are personal again within 5 s of the server's recovery. Prints a table and,
last, one JSON object; exit code 1 when a goal is missed.
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
FLOOR, CAP = 0.3, 4
PLACEMENT = "cn.zj-mobile-home"
POLICY = f"""
outlet: cn
controls:
  - {{id: floor, action: quota, where: {{label: public-service}}, at_least: {FLOOR}, prefixes: every, enforcement: legal}}
  - {{id: one-topic, action: cap, attribute: topic, at_most: {CAP}}}
"""
GOALS = {"ok_share": 0.999, "p99_ms": 150.0, "personal_again_s": 5.0}


def tell(server: Server, *command: object) -> None:
    """One command from an operator."""
    with closing(redis.Redis(port=server.port)) as operator:
        operator.execute_command(*command)


Fault = tuple[Callable[[Server], object], Callable[[Server], object]]
FAULTS: Mapping[str, Fault] = {
    "none": (lambda _: None, lambda _: None),
    "killed": (Server.kill, Server.start),
    "stopped": (lambda server: server.signal(signal.SIGSTOP), lambda server: server.signal(signal.SIGCONT)),
    "full": (
        lambda server: tell(server, "CONFIG", "SET", "maxmemory", "1mb"),
        lambda server: tell(server, "CONFIG", "SET", "maxmemory", "0"),
    ),
    "read-only": (
        lambda server: tell(server, "REPLICAOF", "127.0.0.1", "1"),
        lambda server: tell(server, "REPLICAOF", "NO", "ONE"),
    ),
}
"""Fault -> how it begins and how it ends."""


def broken(page: Mapping[str, Any]) -> list[str]:
    """What is wrong with a page under POLICY, counted slot by slot, and where its receipt says otherwise."""
    items = [slot["item"] for slot in page["items"]]
    public = np.cumsum(["public-service" in item["labels"] for item in items])
    topics = [item["topic"] for item in items]
    most = max((topics.count(topic) for topic in topics), default=0)
    wrong = [] if len(items) == SLOTS else [f"{len(items)} of {SLOTS} slots"]
    wrong += [f"floor on the first {k + 1}" for k, n in enumerate(public[:-1]) if n < int(FLOOR * (k + 1) + 1e-9)]
    wrong += ["floor on the page"] if items and public[-1] < FLOOR * len(items) else []
    wrong += ["cap"] if most > CAP else []
    lines = {line["id"]: line for line in page["receipt"]["controls"]}
    wrong += [f"receipt without {name}" for name in ("floor", "one-topic") if name not in lines]
    wrong += [f"receipt: {name} gave way by {line['by']}" for name, line in lines.items() if line["by"]]
    if "floor" in lines and lines["floor"]["required"]["first_slots"] is None:
        wrong += [] if lines["floor"]["achieved"] == public[-1] else ["receipt counts the floor otherwise"]
    return wrong


@dataclass
class Answer:
    """One page: when it was due and answered (monotonic), its HTTP status (0: none), and what became of it."""

    due: float
    took_s: float
    status: int
    fallback_level: str
    missing: bool
    wrong: list[str]


async def load(address: str, rate: float, until: Callable[[], bool], answers: list[Answer]) -> None:
    """Ask for pages at a steady rate whatever becomes of them; a late answer counts from when it was due."""
    limits = httpx.Limits(max_connections=200, max_keepalive_connections=200, keepalive_expiry=3)  # uvicorn's is 5 s
    async with httpx.AsyncClient(base_url=address, timeout=10, limits=limits) as client:
        asked, began, n = set[asyncio.Task[None]](), time.monotonic(), 0
        while not until():
            due = began + n / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            task = asyncio.create_task(_ask(client, f"v{n % VIEWERS}", due, answers))
            asked.add(task)
            task.add_done_callback(asked.discard)
            n += 1
        await asyncio.gather(*asked)


async def _ask(client: httpx.AsyncClient, viewer: str, due: float, answers: list[Answer]) -> None:
    body = {"viewer_id": viewer, "slots": SLOTS}
    try:
        answer = await client.post(f"/v1/placements/{PLACEMENT}:recommend", json=body)
        took_s, page = time.monotonic() - due, answer.json()
        good = answer.status_code == 200
        answers.append(
            Answer(
                due,
                took_s,
                answer.status_code,
                page["fallback_level"] if good else "",
                "online" in page["degraded_parts"] if good else True,
                broken(page) if good else [],
            )
        )
    except (httpx.HTTPError, ValueError) as error:
        answers.append(Answer(due, time.monotonic() - due, 0, "", True, [repr(error)]))


def waited_s(processes: Sequence[int]) -> float:
    """Seconds in which threads of these processes that live by now could have run and no core was free; 0 where Linux
    does not say. What threads waited that have ended is not known any more, so differences are at least this much."""
    total = 0.0
    for file in (file for pid in processes for file in Path(f"/proc/{pid}/task").glob("*/schedstat")):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended since
            total += int(file.read_text().split()[1]) / 1e9
    return total


def trial(
    server: Server, address: str, fault: str, seconds: float, rate: float, processes: Sequence[int]
) -> dict[str, Any]:
    """The figures of one fault that lasts so long, watched until six seconds after its end.

    processes  those that make the load and the pages: what they wait for a core is the machine's and not the fault's
    """
    waited_before_s = waited_s(processes)
    answers: list[Answer] = []
    ended: list[float] = []
    begin, end = FAULTS[fault]

    async def play() -> None:
        finish = [float("inf")]
        pages = asyncio.create_task(load(address, rate, lambda: time.monotonic() > finish[0], answers))
        await asyncio.to_thread(begin, server)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(end, server)
        ended.append(time.monotonic())
        finish[0] = ended[0] + GOALS["personal_again_s"] + 1
        await pages

    asyncio.run(play())
    answers.sort(key=lambda one: one.due)
    during = [one for one in answers if one.due < ended[0]]
    good = [one for one in answers if 200 <= one.status < 300]
    lower = [one.due for one in answers if one.fallback_level != "personal"]
    tooks = np.array([one.took_s for one in answers]) * 1000
    levels = sorted({one.fallback_level for one in during})
    return {
        "fault": fault,
        "pages": len(answers),
        "ok_share": round(len(good) / len(answers), 5),
        "p50_ms": round(float(np.percentile(tooks, 50)), 1),
        "p99_ms": round(float(np.percentile(tooks, 99)), 1),
        "max_ms": round(float(tooks.max()), 1),
        "broken": sum(bool(one.wrong) for one in answers),
        "fallback_levels": {level or "none": sum(one.fallback_level == level for one in during) for level in levels},
        "personal_again_s": round(max(0.0, max(lower, default=0.0) - ended[0]), 2),
        "waited_for_a_core_s": round(max(0.0, waited_s(processes) - waited_before_s), 1),
    }


def missed(figures: Mapping[str, Any]) -> list[str]:
    """The goals that a fault's figures miss."""
    wrong = [] if figures["ok_share"] >= GOALS["ok_share"] else ["2xx"]
    wrong += [] if figures["p99_ms"] <= GOALS["p99_ms"] else ["p99"]
    wrong += [] if figures["broken"] == 0 else ["policy"]
    return wrong + ([] if figures["personal_again_s"] <= GOALS["personal_again_s"] else ["personal again"])


def main(argv: Sequence[str] | None = None) -> int:
    """0 when every goal is met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults.redis", description="Goal D1.")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long each fault lasts")
    parser.add_argument("--rate", type=float, default=60.0, help="pages asked for per second")
    parser.add_argument("--serve", nargs=2, metavar=("HOME", "URL"), help=argparse.SUPPRESS)  # the child
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS), metavar="FAULT")
    asked = parser.parse_args(argv)
    if asked.serve:
        return _serve(*asked.serve)
    with tempfile.TemporaryDirectory() as home:
        server = valkey(Path(home) / "valkey").start()
        url = f"redis://127.0.0.1:{server.port}/0"
        command = [sys.executable, "-m", "benchmarks.faults.redis", "--serve", home, url]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert child.stdout is not None
            address = child.stdout.readline().strip()
            rows = [
                trial(server, address, fault, asked.seconds, asked.rate, (os.getpid(), child.pid))
                for fault in asked.faults
            ]
        finally:
            server.kill()
            child.send_signal(signal.SIGTERM)
            child.wait(20)
    goals = {row["fault"]: missed(row) for row in rows}
    print(
        f"{'fault':<10} {'pages':>6} {'2xx':>8} {'p50 ms':>7} {'p99 ms':>7} {'max ms':>7} {'broken':>6}  again s "
        " no core s  fallback levels"
    )
    for row in rows:
        print(
            f"{row['fault']:<10} {row['pages']:>6} {row['ok_share']:>8.3%} {row['p50_ms']:>7} {row['p99_ms']:>7} "
            f"{row['max_ms']:>7} {row['broken']:>6} {row['personal_again_s']:>8} {row['waited_for_a_core_s']:>10}  "
            f"{row['fallback_levels']}"
        )
    print(json.dumps({"goal": "D1", "rate": asked.rate, "seconds": asked.seconds, "faults": rows, "missed": goals}))
    return int(any(goals.values()))


def _serve(home: str, url: str) -> int:
    """A serving process with a catalogue, a policy, a random model, and a history for every viewer."""
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
    holders, content = services.holders, services.content
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as recsys-serve does
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    runner = uvicorn.Server(uvicorn.Config(app, log_level="critical"))

    def stock() -> None:
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
            while holders.current.revision != services.control.revision() or not services.pollers["engine"].ok:
                time.sleep(0.05)
            while content is not None and (content.vectors.n_pending or not services.pollers["content"].ok):
                time.sleep(0.2)  # an encoder that works through a new catalogue takes a core to itself
            holders.set_model(ServedModel.load(_bundle(), FEATURES))
            body = {"viewer_id": "v0", "slots": SLOTS}
            while (
                client.post(f"/v1/placements/{PLACEMENT}:recommend", json=body).json()["fallback_level"] != "personal"
            ):
                time.sleep(0.05)
        print(address, flush=True)

    import threading

    threading.Thread(target=stock, daemon=True).start()
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
    """Random factors and a random ranker: what a page costs does not depend on how well they were learned."""
    import torch

    from features.columns import FEATURES
    from recsys.domain.types import ACTIONS
    from recsys.models.bundle import Bundle
    from recsys.models.ranker import Predictor, Ranker, tensors

    rng = np.random.default_rng(3)
    torch.manual_seed(3)
    network = tensors(Ranker(len(FEATURES), len(ACTIONS)))
    probe = rng.normal(size=(4, len(FEATURES))).astype(np.float32)
    return Bundle(
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


if __name__ == "__main__":
    sys.exit(main())
