"""E9: workers come, go, die and come back from the dead while the log flows; a state never goes backwards.

`rebalanced`: one worker, then four, then one; one killed every few seconds and replaced. `stale`: a worker stops
(SIGSTOP) in the middle of a step for longer than its session, another takes its partitions and goes on, then the first
one wakes up and finishes its step with what it had read before.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

from benchmarks.faults.harness.worker_process import WorkerProcess, commits, wait_until
from benchmarks.faults.harness.environment import Environment, Environments
from benchmarks.faults.report import Line
from benchmarks.faults.harness.scenario import Scenario
from benchmarks.faults.harness.traffic import make_events, to_records, with_duplicates

KILL_EVERY_S = 3.0
RATE = 100  # events a second
STOPS = ("polled:1", "read:1", "read:2", "read:3", "written:1", "written:2", "appended:1", "committing:1")
TAKEOVER_TIMEOUT_S = 60.0
RESUMED_S = 4.0


def rebalance_workers(environments: Environments, kind: str, seconds: float, seed: int) -> list[Line]:
    """One line: a flow of events over `seconds`, workers 1 -> 4 -> 1."""
    chance, env = random.Random(seed), environments.new(kind)
    kills = 0
    with closing(Scenario(env)) as scenario, ExitStack() as alive:
        done = threading.Event()
        flow = threading.Thread(target=_flow, args=(scenario, chance, done))
        flow.start()
        began = time.monotonic()
        crew = [alive.enter_context(closing(WorkerProcess(env)))]
        try:
            while (passed := time.monotonic() - began) < seconds:
                time.sleep(KILL_EVERY_S)
                wanted = 4 if 0.15 < passed / seconds < 0.85 else 1
                victim = crew.pop(chance.randrange(len(crew)))
                victim.kill()
                kills += 1
                while len(crew) > max(wanted - 1, 0):
                    crew.pop().kill()
                    kills += 1
                while len(crew) < wanted:
                    crew.append(alive.enter_context(closing(WorkerProcess(env))))
        finally:
            done.set()
            flow.join()
        verdict = scenario.wait_for_verdict(90.0)
        sent, repeats = scenario.sent, scenario.ledger.repeats
    return [
        Line(
            "E9",
            kind,
            f"workers 1 -> 4 -> 1 over {seconds:.0f} s, {kills} killed; {sent:,} messages, {repeats:,} of them copies",
            f"{verdict}; {len(commits(env)):,} commits",
            "nothing missing, nothing twice",
            verdict.ok,
        )
    ]


def _flow(scenario: Scenario, chance: random.Random, done: threading.Event) -> None:
    number = 0
    while not done.wait(0.5):
        scenario.send(with_duplicates(chance, to_records(make_events(chance, RATE // 2, start=number)), most=2, within=30))
        number += RATE // 2


def stale_worker(environments: Environments, kind: str, stops: tuple[str, ...], seed: int) -> list[Line]:
    """One line: a worker that wakes up after its partitions moved, stopped at each of these points."""
    with ThreadPoolExecutor(4) as crew:
        faults = list(crew.map(lambda stop: _stop_and_resume(environments.new(kind), stop, random.Random(seed)), stops))
    wrong = [f"{stop}: {fault}" for stop, fault in zip(stops, faults, strict=True) if fault]
    return [
        Line(
            "E9",
            kind,
            f"worker stopped in a step ({', '.join(stops)}) until its partitions moved, then woken",
            f"{len(stops) - len(wrong)}/{len(stops)} dumps equal" + "".join(f"; {one}" for one in wrong[:3]),
            "no state goes backwards",
            not wrong,
        )
    ]


def _stop_and_resume(env: Environment, stop: str, chance: random.Random) -> str:
    """What was wrong, or nothing."""
    with (
        closing(Scenario(env)) as scenario,
        closing(WorkerProcess(env, "--at", f"{stop}:stop").wait_ready()) as old,
    ):
        scenario.send(to_records(make_events(chance, 200)))
        if not scenario.wait_for_verdict().ok:
            return "the first worker did not begin"
        old.arm()
        scenario.send(to_records(make_events(chance, 200, start=200)))
        if wait_until(old.is_stopped, 20.0) == float("inf"):
            return "never came to that point"
        with closing(WorkerProcess(env).wait_ready()) as successor:
            scenario.send(to_records(make_events(chance, 200, start=400)))
            if not (verdict := scenario.wait_for_verdict(TAKEOVER_TIMEOUT_S)).ok:
                return f"not taken over: {verdict}"
            old.signal(signal.SIGCONT)
            time.sleep(RESUMED_S)
            if not (verdict := scenario.wait_for_verdict(10.0)).ok:
                return str(verdict)
            successor.kill()
            scenario.send(to_records(make_events(chance, 100, start=600)))  # whoever is woken must be of use again
            if not (verdict := scenario.wait_for_verdict(TAKEOVER_TIMEOUT_S)).ok:
                return f"of no use afterwards: {verdict}"
    return ""
