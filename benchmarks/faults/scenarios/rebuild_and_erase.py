"""E7 and P3 by the commands of the worker: stores rebuilt from what is kept, viewers erased beside a worker."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing

from msgspec import structs

from benchmarks.faults.harness.worker_process import ROOT, WorkerProcess, process_env
from benchmarks.faults.harness.environment import Environment, Environments, live_entries
from benchmarks.faults.report import Line
from benchmarks.faults.harness.scenario import Scenario
from benchmarks.faults.harness.traffic import make_events, to_records
from features.events.decode import ViewerEvent
from features.state.codec import viewer_key
from features.state.keys import VIEWERS

MIN_EVENTS_PER_S = 5_000  # events rebuilt in a second
RATE_CHECK_MIN_EVENTS = 100_000  # events: of fewer, most of the time is a process that starts
COMMAND_TIMEOUT_S = 900.0
EVENTS_PER_VIEWER = 10  # events for each viewer, about


def rebuild_stores(environments: Environments, kind: str, events: int, seed: int) -> list[Line]:
    """E7: the online store wiped and rebuilt from the event log; then the event log as well, from the stream."""
    env, lines = environments.new(kind), []
    timed = events >= RATE_CHECK_MIN_EVENTS
    with closing(Scenario(env)) as scenario, closing(WorkerProcess(env).wait_ready()) as worker:
        scenario.send(to_records(_recent_events(random.Random(seed), events)))
        begun = scenario.wait_for_verdict(300.0)
        _terminate(worker)
        expected = env.dump()
        for origin in ("log", "stream"):
            _wipe(env)
            if origin == "stream":
                shutil.rmtree(env.event_log)
            before = os.times()
            status, said = _command(env, "rebuild", "--from", origin)
            cpu_s = sum(os.times()[2:4]) - sum(before[2:4])  # of children that ended: this one
            verified, differing = _command(env, "verify")
            rate = _rate(said)
            found, verdict = env.dump(), scenario.verdict()
            same = sum(found.get(key) == raw for key, raw in expected.items())
            lines.append(
                Line(
                    "E7",
                    kind,
                    f"online store {'and Parquet files ' if origin == 'stream' else ''}wiped, {events:,} events "
                    f"rebuilt from the {origin}",
                    f"{same:,} of {len(expected):,} keys equal byte for byte, {rate:,.0f} events/s, "
                    f"{events / cpu_s:,.0f} by processor time, the start included; {verdict}; "
                    f"verify: {differing.strip().splitlines()[-1] if differing.strip() else verified}",
                    f"all equal, at least {MIN_EVENTS_PER_S:,} events/s" + ("" if timed else " (judged in full only)"),
                    begun.ok
                    and not status
                    and not verified
                    and found == expected
                    and verdict.ok
                    and (rate >= MIN_EVENTS_PER_S or not timed),
                )
            )
    return lines


def erase_viewers(environments: Environments, kind: str, viewers: int, seed: int) -> list[Line]:
    """P3: viewers erased while a worker folds, and what they did sent again afterwards."""
    chance, env = random.Random(seed), environments.new(kind)
    happenings = _recent_events(chance, EVENTS_PER_VIEWER * viewers, viewers)
    gone = sorted({event.viewer_id for event in happenings})[::2][:viewers]
    with closing(Scenario(env)) as scenario, closing(WorkerProcess(env).wait_ready()) as worker:
        half = len(happenings) // 2
        scenario.send(to_records(happenings[:half]))
        scenario.expected()  # read before an erasure takes it out of the log
        failed = 0
        for number, viewer in enumerate(gone):
            if number == len(gone) // 2:
                scenario.send(to_records(happenings[half:]))  # the worker is at work on some of them meanwhile
                scenario.expected()
            failed += _command(env, "erase", viewer)[0] != 0
        scenario.send(to_records([event for event in happenings if event.viewer_id in gone]))  # a spool, a dead letter
        left = _remaining(scenario, env, gone)
        _terminate(worker)
        others = _viewer_states(env)
        _wipe(env)
        status, _ = _command(env, "rebuild", "--from", "stream")
        again = _remaining(scenario, env, gone)
        files = _in_log_files(env, gone)
        expected = {key: raw for key, raw in scenario.expected().items() if key.startswith(VIEWERS)}
        for viewer in gone:
            expected.pop(viewer_key(viewer), None)
        kept = _viewer_states(env)
    return [
        Line(
            "P3",
            kind,
            f"{len(gone)} viewers erased beside a worker, their {sum(e.viewer_id in gone for e in happenings):,} "
            "events sent again, the store rebuilt from the stream",
            f"{left} came back by the worker, {again} by the rebuild, {files} stand in files of the log; states of "
            f"{len(expected)} others {'equal' if others == kept == expected else 'differ'}; "
            f"{failed + bool(status)} commands failed",
            "none comes back, no byte of them is left, nobody else is changed",
            not (left or again or files or failed or status) and others == kept == expected,
        )
    ]


def _recent_events(chance: random.Random, count: int, viewers: int = 60) -> list[ViewerEvent]:
    """Events of the last days: a rebuild forgets who is idle for too long."""
    events = make_events(chance, count, viewers=viewers, items=max(60, count // 100))
    began = time.time() - 60.0 - 10.0 * count
    return [structs.replace(event, at=round(began + 10.0 * number, 3)) for number, event in enumerate(events)]


def _terminate(worker: WorkerProcess) -> None:
    worker.signal(signal.SIGTERM)
    worker.process.wait(60)


def _wipe(env: Environment) -> None:
    """All keys, also those that no rebuild would delete."""
    with closing(env.online()) as store:
        store.delete([key for key, _ in store.scan("")])


def _command(env: Environment, *said: str) -> tuple[int, str]:
    """Status and output of a `recsys-worker` command."""
    done = subprocess.run(
        [sys.executable, "-m", "features.worker.main", *env.flags, *said],
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        cwd=ROOT,
        env=process_env(env.home.parent),
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def _rate(said: str) -> float:
    """`…: 12,345 a second` as a number."""
    found = re.search(r"([\d,]+) a second", said)
    return float(found[1].replace(",", "")) if found else 0.0


def _remaining(scenario: Scenario, env: Environment, gone: list[str]) -> int:
    """How many of them have a state once all is folded: when those who are not gone are what they should be."""
    expected = {key: raw for key, raw in scenario.expected().items() if key.startswith(VIEWERS)}
    for viewer in gone:
        expected.pop(viewer_key(viewer), None)
    give_up = time.monotonic() + 60.0
    while _viewer_states(env) != expected and time.monotonic() < give_up:
        time.sleep(0.2)
    time.sleep(1.0)  # an erased viewer would come with the last batch
    there = _viewer_states(env)
    return sum(viewer_key(viewer) in there for viewer in gone)


def _viewer_states(env: Environment) -> dict[str, bytes]:
    with closing(env.online()) as store:
        return {key: raw for key, raw in live_entries(store).items() if key.startswith(VIEWERS)}


def _in_log_files(env: Environment, gone: list[str]) -> int:
    """How many of them the log's files name: the ids are looked for as rows, as one may be part of another."""
    import pyarrow.parquet as pq

    named = set()
    for file in env.event_log.rglob("*.parquet"):
        named.update(pq.read_table(file, columns=["viewer_id"])["viewer_id"].to_pylist())
    return sum(viewer in named for viewer in gone)
