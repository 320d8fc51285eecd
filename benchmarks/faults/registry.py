"""The benches by name, with their full and short counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.faults.audit import control_full
from benchmarks.faults.brokers import stopped, wiped
from benchmarks.faults.clocks import clocks
from benchmarks.faults.disks import log_full, spool_full
from benchmarks.faults.kill_points import killed
from benchmarks.faults.order import alone, repeats, shuffled
from benchmarks.faults.place import Places
from benchmarks.faults.poison import poison
from benchmarks.faults.rebalance import STOPS, rebalanced, stale
from benchmarks.faults.rebuild_and_erase import erased, rebuilt
from benchmarks.faults.report import Line
from benchmarks.faults.subprocess_benches import away, served

BOTH = ("embedded", "servers")
LANES = 1
"""Places that E5 works on side by side: a worker is to be back in time on a machine that has a core for it, and two are
taken by one worker with its servers and the oracle beside it."""


@dataclass(frozen=True)
class Bench:
    """One goal's injection; `run` takes the ground, the kind of place, whether short, and a seed."""

    what: str
    run: Callable[[Places, str, bool, int], list[Line]]
    kinds: tuple[str, ...] = BOTH


BENCHES: dict[str, Bench] = {
    "E1": Bench(
        "one single event on an idle system",
        lambda places, kind, short, seed: alone(places, kind, 5 if short else 100, seed),
    ),
    "E2": Bench(
        "every event sent 1 to 5 times",
        lambda places, kind, short, seed: repeats(places, kind, 600 if short else 10_000, seed),
    ),
    "E3": Bench(
        "every event out of order, some of them days late",
        lambda places, kind, short, seed: shuffled(places, kind, 600 if short else 20_000, seed),
    ),
    "E4": Bench(
        "clients whose clocks are wrong",
        lambda places, kind, short, seed: clocks(places, kind, 3 if short else 100),
    ),
    "E5": Bench(
        "workers killed at random moments and at every point of a step",
        lambda places, kind, short, seed: killed(places, kind, 6 if short else 200, LANES, seed),
    ),
    "E6": Bench(
        "poison in the log",
        lambda places, kind, short, seed: poison(places, kind, 2_000 if short else 50_000, seed),
    ),
    "E7": Bench(
        "the online store, then the event log as well, wiped and rebuilt",
        lambda places, kind, short, seed: rebuilt(places, kind, 2_000 if short else 200_000, seed),
    ),
    "E8": Bench(
        "features as served against features from the log",
        lambda places, kind, short, seed: served(kind, 500 if short else 10_000, seed),
        ("embedded",),
    ),
    "E9": Bench(
        "workers 1 -> 4 -> 1, one killed every 3 s",
        lambda places, kind, short, seed: rebalanced(places, kind, 12.0 if short else 120.0, seed),
    ),
    "E9-stale": Bench(
        "a worker stopped in a step wakes up after its partitions moved",
        lambda places, kind, short, seed: stale(places, kind, STOPS[1:3] if short else STOPS, seed),
        ("servers",),
    ),
    "P3": Bench(
        "viewers erased beside a worker, their events sent again",
        lambda places, kind, short, seed: erased(places, kind, 8 if short else 60, seed),
    ),
    "D1": Bench(
        "the online store killed, stopped, full, read-only",
        lambda places, kind, short, seed: away(kind, 4.0 if short else 30.0, 20.0 if short else 60.0),
        ("servers",),
    ),
    "D2": Bench(
        "the broker stopped, then killed with its log",
        lambda places, kind, short, seed: [
            *stopped(places, kind, 6.0 if short else 60.0),
            *wiped(places, kind, 3.0),
        ],
        ("servers",),
    ),
    "D5-spool": Bench(
        "the spool's disk is full",
        lambda places, kind, short, seed: spool_full(places, kind),
        ("servers",),
    ),
    "D5-log": Bench(
        "the event log's disk is full",
        lambda places, kind, short, seed: log_full(places, kind, seed),
    ),
    "D5-audit": Bench(
        "the disk of the control plane and its audit trail is full",
        lambda places, kind, short, seed: control_full(places, kind, 3.0 if short else 20.0),
        ("embedded",),
    ),
}
