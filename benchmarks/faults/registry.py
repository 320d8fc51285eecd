"""The fault benchmarks by name, with their full and short counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.faults.harness.environment import EnvironmentFactory
from benchmarks.faults.report import Line
from benchmarks.faults.scenarios.audit import control_disk_full
from benchmarks.faults.scenarios.brokers import broker_stopped, broker_wiped
from benchmarks.faults.scenarios.clocks import client_clocks
from benchmarks.faults.scenarios.disks import event_log_disk_full, spool_disk_full
from benchmarks.faults.scenarios.kill_points import kill_worker
from benchmarks.faults.scenarios.order import duplicate_events, out_of_order, single_event
from benchmarks.faults.scenarios.poison import poison_messages
from benchmarks.faults.scenarios.rebalance import STOPS, rebalance_workers, stale_worker
from benchmarks.faults.scenarios.rebuild_and_erase import erase_viewers, rebuild_stores
from benchmarks.faults.scenarios.subprocess_benches import online_store_outage, serving_skew

BOTH = ("embedded", "servers")
LANES = 1
"""Environments that E5 uses in parallel. One lane keeps two cores busy (worker, servers and oracle); with more lanes,
recovery times would measure the machine."""


@dataclass(frozen=True)
class Bench:
    """The benchmark of a goal. `run` takes environments, a key of KINDS, whether to use short counts, and a seed."""

    description: str
    run: Callable[[EnvironmentFactory, str, bool, int], list[Line]]
    kinds: tuple[str, ...] = BOTH


BENCHES: dict[str, Bench] = {
    "E1": Bench(
        "a single event on an idle system",
        lambda environments, kind, short, seed: single_event(environments, kind, 5 if short else 100, seed),
    ),
    "E2": Bench(
        "every event sent 1 to 5 times",
        lambda environments, kind, short, seed: duplicate_events(environments, kind, 600 if short else 10_000, seed),
    ),
    "E3": Bench(
        "events out of order, some of them days late",
        lambda environments, kind, short, seed: out_of_order(environments, kind, 600 if short else 20_000, seed),
    ),
    "E4": Bench(
        "clients with wrong clocks",
        lambda environments, kind, short, seed: client_clocks(environments, kind, 3 if short else 100),
    ),
    "E5": Bench(
        "workers killed at random times and at every point of a step",
        lambda environments, kind, short, seed: kill_worker(environments, kind, 6 if short else 200, LANES, seed),
    ),
    "E6": Bench(
        "poison messages in the stream",
        lambda environments, kind, short, seed: poison_messages(environments, kind, 2_000 if short else 50_000, seed),
    ),
    "E7": Bench(
        "the online store, then also the event log, wiped and rebuilt",
        lambda environments, kind, short, seed: rebuild_stores(environments, kind, 2_000 if short else 200_000, seed),
    ),
    "E8": Bench(
        "features logged while serving against features recomputed from the log",
        lambda environments, kind, short, seed: serving_skew(kind, 500 if short else 10_000, seed),
        ("embedded",),
    ),
    "E9": Bench(
        "workers 1 -> 4 -> 1, one killed every 3 s",
        lambda environments, kind, short, seed: rebalance_workers(environments, kind, 12.0 if short else 120.0, seed),
    ),
    "E9-stale": Bench(
        "a worker stopped inside a step resumes after its partitions moved",
        lambda environments, kind, short, seed: stale_worker(environments, kind, STOPS[1:3] if short else STOPS, seed),
        ("servers",),
    ),
    "P3": Bench(
        "viewers erased while a worker runs, their events sent again",
        lambda environments, kind, short, seed: erase_viewers(environments, kind, 8 if short else 60, seed),
    ),
    "D1": Bench(
        "the online store killed, stopped, full and read-only",
        lambda environments, kind, short, seed: online_store_outage(
            kind, 4.0 if short else 30.0, 20.0 if short else 60.0
        ),
        ("servers",),
    ),
    "D2": Bench(
        "the broker stopped, then killed and its log lost",
        lambda environments, kind, short, seed: [
            *broker_stopped(environments, kind, 6.0 if short else 60.0),
            *broker_wiped(environments, kind, 3.0),
        ],
        ("servers",),
    ),
    "D5-spool": Bench(
        "the disk of the spool is full",
        lambda environments, kind, short, seed: spool_disk_full(environments, kind),
        ("servers",),
    ),
    "D5-log": Bench(
        "the disk of the event log is full",
        lambda environments, kind, short, seed: event_log_disk_full(environments, kind, seed),
    ),
    "D5-audit": Bench(
        "the disk of the control plane and its audit trail is full",
        lambda environments, kind, short, seed: control_disk_full(environments, kind, 3.0 if short else 20.0),
        ("embedded",),
    ),
}
