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

from benchmarks.faults.child import Child, commits, wait_until
from benchmarks.faults.place import Place, Places
from benchmarks.faults.report import Line
from benchmarks.faults.scenario import Scene
from benchmarks.faults.traffic import happened, records, repeated

KILL_EVERY_S = 3.0
RATE = 100  # events a second
STOPS = ("polled:1", "read:1", "read:2", "read:3", "written:1", "written:2", "appended:1", "committing:1")
TAKEN_OVER_WITHIN_S = 60.0
AWAKE_S = 4.0


def rebalanced(places: Places, kind: str, seconds: float, seed: int) -> list[Line]:
    """One line: a flow of events over `seconds`, workers 1 -> 4 -> 1."""
    chance, place = random.Random(seed), places.new(kind)
    kills = 0
    with closing(Scene(place)) as scene, ExitStack() as alive:
        done = threading.Event()
        flow = threading.Thread(target=_flow, args=(scene, chance, done))
        flow.start()
        began = time.monotonic()
        crew = [alive.enter_context(closing(Child(place)))]
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
                    crew.append(alive.enter_context(closing(Child(place))))
        finally:
            done.set()
            flow.join()
        verdict = scene.judged(90.0)
        sent, repeats = scene.sent, scene.ledger.repeats
    return [
        Line(
            "E9",
            kind,
            f"workers 1 -> 4 -> 1 over {seconds:.0f} s, {kills} killed; {sent:,} messages, {repeats:,} of them copies",
            f"{verdict}; {len(commits(place)):,} commits",
            "nothing missing, nothing twice",
            verdict.ok,
        )
    ]


def _flow(scene: Scene, chance: random.Random, done: threading.Event) -> None:
    number = 0
    while not done.wait(0.5):
        scene.send(repeated(chance, records(happened(chance, RATE // 2, start=number)), most=2, within=30))
        number += RATE // 2


def stale(places: Places, kind: str, stops: tuple[str, ...], seed: int) -> list[Line]:
    """One line: a worker that wakes up after its partitions moved, stopped at each of these points."""
    with ThreadPoolExecutor(4) as crew:
        faults = list(crew.map(lambda stop: _woken(places.new(kind), stop, random.Random(seed)), stops))
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


def _woken(place: Place, stop: str, chance: random.Random) -> str:
    """What was wrong, or nothing."""
    with (
        closing(Scene(place)) as scene,
        closing(Child(place, "--at", f"{stop}:stop").ready()) as old,
    ):
        scene.send(records(happened(chance, 200)))
        if not scene.judged().ok:
            return "the first worker did not begin"
        old.arm()
        scene.send(records(happened(chance, 200, start=200)))
        if wait_until(old.stopped, 20.0) == float("inf"):
            return "never came to that point"
        with closing(Child(place).ready()) as successor:
            scene.send(records(happened(chance, 200, start=400)))
            if not (verdict := scene.judged(TAKEN_OVER_WITHIN_S)).ok:
                return f"not taken over: {verdict}"
            old.signal(signal.SIGCONT)
            time.sleep(AWAKE_S)
            if not (verdict := scene.judged(10.0)).ok:
                return str(verdict)
            successor.kill()
            scene.send(records(happened(chance, 100, start=600)))  # whoever is woken must be of use again
            if not (verdict := scene.judged(TAKEN_OVER_WITHIN_S)).ok:
                return f"of no use afterwards: {verdict}"
    return ""
