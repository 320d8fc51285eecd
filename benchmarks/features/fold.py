"""Measures how fast a worker folds clicks, against a bare kafka-python client that reads and parses the same messages.

    python -m benchmarks.features.fold --clicks FILE [--events N] [--kafka-events M] [--only NAME ...]

Each run is a separate process that folds the whole stream into empty stores. The bare client runs before and after the
worker, and its better result counts. It runs without and with the package `crc32c`, which verifies checksums in C and
which the worker uses. "cpu us/event" is processor time; on a shared machine it is more reliable than events/s. The last
line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from benchmarks.features import clicks, servers
from features.events.stream.connect import open_stream
from features.history.event_log import EventLog
from features.state.codec import decode_viewer
from features.state.keys import VIEWERS
from features.state.online.connect import open_online
from features.worker.worker import BATCH, Worker

TOPIC, GROUP, PARTITIONS = "viewer-events", "features", 4
RUNS = ("sqlite+sqlite", "sqlite+valkey", "kafka+valkey")
TTL_S = 180 * 86_400.0
MIN_EVENTS = 2 * BATCH
BARE = {"bare kafka-python": "python", "bare kafka-python, crc32c": "crc32c"}


def main() -> None:
    """Fill the streams, start the runs and print a table; or run as a child process (`worker`, `bare`)."""
    if len(sys.argv) > 1 and sys.argv[1] in ("worker", "bare"):
        print(json.dumps((_worker if sys.argv[1] == "worker" else _bare)(*sys.argv[2:])))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clicks", type=Path, required=True, help="clicks.parquet of the Globo.com / G1 news portal")
    parser.add_argument("--events", type=int, help="number of clicks from the start; default: all")
    parser.add_argument("--kafka-events", type=int, default=500_000, help="maximum on the broker, which is in memory")
    parser.add_argument("--only", nargs="*", choices=RUNS, default=RUNS)
    args = parser.parse_args()
    if min(args.events or MIN_EVENTS, args.kafka_events) < MIN_EVENTS:
        parser.error(f"at least {MIN_EVENTS:,} events: the first batch is not measured")
    with tempfile.TemporaryDirectory() as directory:
        figures = measure(args.clicks, args.events, args.kafka_events, args.only, Path(directory))
    show(figures)
    print(json.dumps(figures))


def measure(file: Path, count: int | None, on_broker: int, only: tuple[str, ...], home: Path) -> dict[str, Any]:
    """Return the figures of each run by name."""
    figures: dict[str, Any] = {}
    if "sqlite+sqlite" in only or "sqlite+valkey" in only:
        log_url = f"sqlite:///{home}/stream.db"
        events = _fill(log_url, file, count)
        if "sqlite+sqlite" in only:
            store = f"sqlite:///{home}/online.db"
            figures["sqlite+sqlite"] = _child("worker", log_url, store, str(events), f"{home}/events-1")
            figures["state bytes"] = sizes(store)
        if "sqlite+valkey" in only:
            with servers.valkey(home / "valkey") as store:
                figures["sqlite+valkey"] = _child("worker", log_url, store, str(events), f"{home}/events-2", "second")
    if "kafka+valkey" in only:
        with ExitStack() as stack:
            log_url = stack.enter_context(servers.broker(home / "tansu"))
            store = stack.enter_context(servers.valkey(home / "valkey-2"))
            events = _fill(log_url, file, min(count or on_broker, on_broker))
            before = {name: _child("bare", log_url, str(events), checksums) for name, checksums in BARE.items()}
            worker = figures["kafka+valkey"] = _child("worker", log_url, store, str(events), f"{home}/events-3")
            after = {name: _child("bare", log_url, str(events), checksums) for name, checksums in BARE.items()}
        for name in BARE:
            bare = figures[name] = max(before[name], after[name], key=lambda run: float(run["per_s"]))
            bare["worker_ratio"] = round(worker["per_s"] / bare["per_s"], 3)
            bare["worker_ratio_by_cpu"] = round(bare["cpu_us"] / worker["cpu_us"], 3)
    return figures


def show(figures: dict[str, Any]) -> None:
    """Print a table."""
    head = f"{'run':26} {'events':>10} {'events/s':>10} {'cpu us/event':>13} {'MB early':>9} {'MB late':>8}"
    print(f"{head}  worker ratio, by cpu")
    for name, run in figures.items():
        if isinstance(run, dict) and "per_s" in run:
            print(f"{name:26} {run['events']:10,} {run['per_s']:10,.0f} {run['cpu_us']:13.1f} {run['early_mb']:9.0f} "
                  f"{run['late_mb']:8.0f}  {run.get('worker_ratio', '')} "
                  f"{run.get('worker_ratio_by_cpu', '')}")  # fmt: skip
    if "state bytes" in figures:
        print("viewer state:", ", ".join(f"{name} {number:,}" for name, number in figures["state bytes"].items()))


def sizes(store_url: str) -> dict[str, float]:
    """Return the sizes of viewer states in bytes, and the time to decode a state."""
    with closing(open_online(store_url, 10.0)) as store:
        states = sorted((state for _, state in store.scan(VIEWERS)), key=len)
    timed = {}
    for name, state in (
        ("median", states[len(states) // 2]),
        ("p99", states[int(len(states) * 0.99)]),
        ("max", states[-1]),
    ):
        began = time.perf_counter()
        for _ in range(2000):
            decode_viewer(state)
        timed[f"decode {name} us"] = round((time.perf_counter() - began) / 2000 * 1e6, 1)
    bytes_ = [len(state) for state in states]
    return {"viewers": len(states), "mean": round(statistics.fmean(bytes_)), "p99": bytes_[int(len(states) * 0.99)],
            "max": bytes_[-1], **timed}  # fmt: skip


def _fill(log_url: str, file: Path, count: int | None) -> int:
    """Publish the clicks; returns their number."""
    total = 0
    with closing(open_stream(log_url, partitions=PARTITIONS)) as stream:
        for records in clicks.records(file, count):
            stream.publish(TOPIC, records)
            total += len(records)
    return total


def _child(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.features.fold", *arguments]
    finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return figures


def _worker(log_url: str, store_url: str, events: str, event_log: str, group: str = GROUP) -> dict[str, Any]:
    total, n_folded, early_mb = int(events), 0, 0.0
    with (
        closing(open_stream(log_url, partitions=PARTITIONS)) as stream,
        closing(open_online(store_url, 10.0)) as online,
    ):
        worker = Worker(stream, online, EventLog(event_log), topic=TOPIC, group=group, viewer_ttl_s=TTL_S)
        while not (n_folded := worker.step()):
            pass  # the consumer group forms
        first, cpu, began = n_folded, time.process_time(), time.perf_counter()
        while n_folded < total:
            n_folded += worker.step()
            if not early_mb and n_folded >= total / 5:
                early_mb = rss_mb()
        seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu
        worker.close()
    return _figures(total - first, seconds, cpu_s, early_mb)


def _bare(log_url: str, events: str, checksums: str) -> dict[str, Any]:
    """Poll with kafka-python and parse with json only. `checksums`: "crc32c", or "python" for no such package."""
    if checksums == "python":
        sys.modules["crc32c"] = None  # type: ignore[assignment]  # as if it were not installed
    from kafka import KafkaConsumer  # type: ignore[import-untyped]

    total, n_read, early_mb = int(events), 0, 0.0
    consumer = KafkaConsumer(
        TOPIC, bootstrap_servers=log_url.partition("://")[2], group_id=None, auto_offset_reset="earliest",
        enable_auto_commit=False,
    )  # fmt: skip
    first, began, cpu = 0, 0.0, 0.0
    while n_read < total:
        polled = consumer.poll(timeout_ms=200, max_records=10_000)
        for records in polled.values():
            for record in records:
                json.loads(record.value)
            n_read += len(records)
        if n_read and not began:
            first, cpu, began = n_read, time.process_time(), time.perf_counter()
        if not early_mb and n_read >= total / 5:
            early_mb = rss_mb()
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    consumer.close(autocommit=False)
    return _figures(total - first, seconds, cpu_s, early_mb)


def _figures(events: int, seconds: float, cpu_s: float, early_mb: float) -> dict[str, Any]:
    return {"events": events, "seconds": round(seconds, 2), "per_s": round(events / seconds),
            "cpu_us": round(cpu_s / events * 1e6, 1), "early_mb": early_mb, "late_mb": rss_mb()}  # fmt: skip


def rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


if __name__ == "__main__":
    main()
