"""E7 and P3: stores are wiped and rebuilt, and viewers are erased while a worker runs, by the worker's commands."""

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

from benchmarks.faults.harness.environment import Environment, EnvironmentFactory, live_entries
from benchmarks.faults.harness.scenario import Scenario
from benchmarks.faults.harness.traffic import make_events, to_records
from benchmarks.faults.harness.worker_process import ROOT, WorkerProcess, process_env
from benchmarks.faults.report import Line
from features.events.schema import ViewerEvent
from features.state.codec import viewer_key
from features.state.keys import VIEWERS

MIN_EVENTS_PER_S = 5_000
RATE_CHECK_MIN_EVENTS = 100_000  # with fewer events, the start of the process dominates
COMMAND_TIMEOUT_S = 900.0
EVENTS_PER_VIEWER = 10  # approximate


def rebuild_stores(environments: EnvironmentFactory, kind: str, events: int, seed: int) -> list[Line]:
    """E7: wipe the online store and rebuild it from the event log; then wipe both and rebuild from the stream."""
    env, lines = environments.new(kind), []
    timed = events >= RATE_CHECK_MIN_EVENTS
    with closing(Scenario(env)) as scenario, closing(WorkerProcess(env).wait_ready()) as worker:
        scenario.send(to_records(_recent_events(random.Random(seed), events)))
        initial = scenario.wait_for_verdict(300.0)
        _terminate(worker)
        expected = env.dump()
        for origin in ("log", "stream"):
            _wipe(env)
            if origin == "stream":
                shutil.rmtree(env.event_log)
            cpu_before = os.times()
            status, output = _command(env, "rebuild", "--from", origin)
            cpu_s = sum(os.times()[2:4]) - sum(cpu_before[2:4])  # of child processes that ended: the command
            verified, report = _command(env, "verify")
            rate = _rate(output)
            actual, verdict = env.dump(), scenario.verdict()
            n_equal = sum(actual.get(key) == raw for key, raw in expected.items())
            lines.append(
                Line(
                    "E7",
                    kind,
                    f"online store {'and Parquet files ' if origin == 'stream' else ''}wiped, {events:,} events "
                    f"rebuilt from the {origin}",
                    f"{n_equal:,} of {len(expected):,} keys equal byte for byte, {rate:,.0f} events/s, "
                    f"{events / cpu_s:,.0f} by processor time, including the start; {verdict}; "
                    f"verify: {report.strip().splitlines()[-1] if report.strip() else verified}",
                    f"all equal, at least {MIN_EVENTS_PER_S:,} events/s"
                    + ("" if timed else " (checked with full counts only)"),
                    initial.ok
                    and not status
                    and not verified
                    and actual == expected
                    and verdict.ok
                    and (rate >= MIN_EVENTS_PER_S or not timed),
                )
            )
    return lines


def erase_viewers(environments: EnvironmentFactory, kind: str, viewers: int, seed: int) -> list[Line]:
    """P3: erase viewers while a worker folds, then send their events again and rebuild the store."""
    rng, env = random.Random(seed), environments.new(kind)
    events = _recent_events(rng, EVENTS_PER_VIEWER * viewers, viewers)
    erased = sorted({event.viewer_id for event in events})[::2][:viewers]
    with closing(Scenario(env)) as scenario, closing(WorkerProcess(env).wait_ready()) as worker:
        middle = len(events) // 2
        scenario.send(to_records(events[:middle]))
        scenario.expected()  # read before an erasure removes them from the stream
        failed = 0
        for number, viewer in enumerate(erased):
            if number == len(erased) // 2:
                scenario.send(to_records(events[middle:]))  # the worker folds some of them meanwhile
                scenario.expected()
            failed += _command(env, "viewers", "erase", viewer)[0] != 0
        scenario.send(
            to_records([event for event in events if event.viewer_id in erased])
        )  # as a spool or a dead letter would
        n_after_worker = _remaining(scenario, env, erased)
        _terminate(worker)
        states_before = _viewer_states(env)
        _wipe(env)
        status, _ = _command(env, "rebuild", "--from", "stream")
        n_after_rebuild = _remaining(scenario, env, erased)
        n_in_files = _in_log_files(env, erased)
        expected = {key: raw for key, raw in scenario.expected().items() if key.startswith(VIEWERS)}
        for viewer in erased:
            expected.pop(viewer_key(viewer), None)
        states_after = _viewer_states(env)
    return [
        Line(
            "P3",
            kind,
            f"{len(erased)} viewers erased while a worker runs, their {sum(e.viewer_id in erased for e in events):,} "
            "events sent again, the store rebuilt from the stream",
            f"{n_after_worker} restored by the worker, {n_after_rebuild} by the rebuild, {n_in_files} in files of the "
            f"event log; states of {len(expected)} other viewers "
            f"{'equal' if states_before == states_after == expected else 'differ'}; "
            f"{failed + bool(status)} commands failed",
            "no viewer is restored or left in the files; no other viewer is changed",
            not (n_after_worker or n_after_rebuild or n_in_files or failed or status)
            and states_before == states_after == expected,
        )
    ]


def _recent_events(rng: random.Random, count: int, viewers: int = 60) -> list[ViewerEvent]:
    """Return events of the last days: a rebuild expires viewers that are idle for too long."""
    events = make_events(rng, count, viewers=viewers, items=max(60, count // 100))
    began = time.time() - 60.0 - 10.0 * count
    return [structs.replace(event, at=round(began + 10.0 * number, 3)) for number, event in enumerate(events)]


def _terminate(worker: WorkerProcess) -> None:
    worker.signal(signal.SIGTERM)
    worker.process.wait(60)


def _wipe(env: Environment) -> None:
    """Delete all keys, including those that a rebuild keeps."""
    with closing(env.online()) as store:
        store.delete([key for key, _ in store.scan("")])


def _command(env: Environment, *arguments: str) -> tuple[int, str]:
    """Run a `mainstay` command; return its exit code and output."""
    done = subprocess.run(
        [sys.executable, "-m", "features.cli", *arguments, *env.flags],
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        cwd=ROOT,
        env=process_env(env.home.parent),
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def _rate(output: str) -> float:
    """Parse `…: 12,345 a second`; 0 if there is no rate."""
    match = re.search(r"([\d,]+) a second", output)
    return float(match[1].replace(",", "")) if match else 0.0


def _remaining(scenario: Scenario, env: Environment, erased: list[str]) -> int:
    """Wait until all other viewers' states are as expected; returns how many erased viewers have a state."""
    expected = {key: raw for key, raw in scenario.expected().items() if key.startswith(VIEWERS)}
    for viewer in erased:
        expected.pop(viewer_key(viewer), None)
    give_up = time.monotonic() + 60.0
    while _viewer_states(env) != expected and time.monotonic() < give_up:
        time.sleep(0.2)
    time.sleep(1.0)  # an erased viewer would reappear with the last batch
    states = _viewer_states(env)
    return sum(viewer_key(viewer) in states for viewer in erased)


def _viewer_states(env: Environment) -> dict[str, bytes]:
    with closing(env.online()) as store:
        return {key: raw for key, raw in live_entries(store).items() if key.startswith(VIEWERS)}


def _in_log_files(env: Environment, erased: list[str]) -> int:
    """Return how many erased viewers occur in the files of the event log."""
    import pyarrow.parquet as pq

    viewer_ids = set()
    for file in env.event_log.rglob("*.parquet"):
        viewer_ids.update(pq.read_table(file, columns=["viewer_id"])["viewer_id"].to_pylist())
    return sum(viewer in viewer_ids for viewer in erased)
