"""E9: workers join, leave and are killed while events flow; a state never goes backwards.

`rebalance_workers` runs one worker, then four, then one, and kills and replaces one every few seconds. `stale_worker`
stops a worker (SIGSTOP) inside a step for longer than its session. Another worker takes over its partitions; then the
first one resumes and finishes its step with the states that it had read before.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

from benchmarks.faults.harness.environment import Environment, EnvironmentFactory
from benchmarks.faults.harness.scenario import Scenario
from benchmarks.faults.harness.traffic import make_events, to_records, with_duplicates
from benchmarks.faults.harness.worker_process import WorkerProcess, commits, wait_until
from benchmarks.faults.report import Line

KILL_EVERY_S = 3.0
RATE = 100  # events a second
STOPS = ("polled:1", "read:1", "read:2", "read:3", "written:1", "written:2", "appended:1", "committing:1")
TAKEOVER_TIMEOUT_S = 60.0
RESUMED_S = 4.0


def rebalance_workers(environments: EnvironmentFactory, kind: str, seconds: float, seed: int) -> list[Line]:
    """Send events for `seconds` while the number of workers changes 1 -> 4 -> 1; returns one result."""
    rng, env = random.Random(seed), environments.new(kind)
    kills = 0
    with closing(Scenario(env)) as scenario, ExitStack() as stack:
        done = threading.Event()
        flow = threading.Thread(target=_flow, args=(scenario, rng, done))
        flow.start()
        began = time.monotonic()
        workers = [stack.enter_context(closing(WorkerProcess(env)))]
        try:
            while (elapsed := time.monotonic() - began) < seconds:
                time.sleep(KILL_EVERY_S)
                target_count = 4 if 0.15 < elapsed / seconds < 0.85 else 1
                victim = workers.pop(rng.randrange(len(workers)))
                victim.kill()
                kills += 1
                while len(workers) > max(target_count - 1, 0):
                    workers.pop().kill()
                    kills += 1
                while len(workers) < target_count:
                    workers.append(stack.enter_context(closing(WorkerProcess(env))))
        finally:
            done.set()
            flow.join()
        verdict = scenario.wait_for_verdict(90.0)
        sent, repeats = scenario.sent, scenario.ledger.repeats
    return [
        Line(
            "E9",
            kind,
            f"workers 1 -> 4 -> 1 over {seconds:.0f} s, {kills} killed; {sent:,} messages, {repeats:,} duplicates",
            f"{verdict}; {len(commits(env)):,} commits",
            "nothing lost, nothing counted twice",
            verdict.ok,
        )
    ]


def _flow(scenario: Scenario, rng: random.Random, done: threading.Event) -> None:
    number = 0
    while not done.wait(0.5):
        scenario.send(
            with_duplicates(rng, to_records(make_events(rng, RATE // 2, start=number)), max_copies=2, within=30)
        )
        number += RATE // 2


def stale_worker(environments: EnvironmentFactory, kind: str, stops: tuple[str, ...], seed: int) -> list[Line]:
    """Stop a worker at each of these points and resume it after its partitions moved; returns one result."""
    with ThreadPoolExecutor(4) as pool:
        faults = list(pool.map(lambda stop: _stop_and_resume(environments.new(kind), stop, random.Random(seed)), stops))
    failures = [f"{stop}: {fault}" for stop, fault in zip(stops, faults, strict=True) if fault]
    return [
        Line(
            "E9",
            kind,
            f"worker stopped inside a step ({', '.join(stops)}) until its partitions moved, then resumed",
            f"{len(stops) - len(failures)}/{len(stops)} dumps equal"
            + "".join(f"; {failure}" for failure in failures[:3]),
            "no state goes backwards",
            not failures,
        )
    ]


def _stop_and_resume(env: Environment, stop: str, rng: random.Random) -> str:
    """Return what went wrong, or an empty string."""
    with (
        closing(Scenario(env)) as scenario,
        closing(WorkerProcess(env, "--at", f"{stop}:stop").wait_ready()) as old,
    ):
        scenario.send(to_records(make_events(rng, 200)))
        if not scenario.wait_for_verdict().ok:
            return "the first worker did not start"
        old.arm()
        scenario.send(to_records(make_events(rng, 200, start=200)))
        if wait_until(old.is_stopped, 20.0) == float("inf"):
            return "the worker did not reach the point"
        with closing(WorkerProcess(env).wait_ready()) as successor:
            scenario.send(to_records(make_events(rng, 200, start=400)))
            if not (verdict := scenario.wait_for_verdict(TAKEOVER_TIMEOUT_S)).ok:
                return f"no takeover: {verdict}"
            old.signal(signal.SIGCONT)
            time.sleep(RESUMED_S)
            if not (verdict := scenario.wait_for_verdict(10.0)).ok:
                return str(verdict)
            successor.kill()
            scenario.send(to_records(make_events(rng, 100, start=600)))  # the resumed worker must work again
            if not (verdict := scenario.wait_for_verdict(TAKEOVER_TIMEOUT_S)).ok:
                return f"not working after it resumed: {verdict}"
    return ""
