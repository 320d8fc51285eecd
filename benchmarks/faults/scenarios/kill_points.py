"""E5: `kill -9` of the worker at random moments and at named points of a step; every time all is made good."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field

from benchmarks.faults.harness.worker_process import WorkerProcess, commits
from benchmarks.faults.harness.instrumented_worker import POINTS
from benchmarks.faults.harness.environment import Environment, Environments
from benchmarks.faults.report import Line
from benchmarks.faults.harness.scenario import Scenario
from benchmarks.faults.harness.traffic import make_events, to_records, with_duplicates

CHUNK = 150
MAX_RECOVERY_S = 5.0


@dataclass
class KillResult:
    """What became of the workers of one env."""

    kills: int = 0
    n_recovered: int = 0  # kills after which everything was equal to the oracle
    at: dict[str, int] = field(default_factory=dict)  # point -> kills there
    recovery_s: list[float] = field(default_factory=list)  # from a death to the next commit, where work was left
    faults: list[str] = field(default_factory=list)


def kill_worker(environments: Environments, kind: str, kills: int, lanes: int, seed: int) -> list[Line]:
    """Lines of the report; `lanes` environments are worked on side by side."""
    share = [kills // lanes + (lane < kills % lanes) for lane in range(lanes)]
    with ThreadPoolExecutor(lanes) as crew:
        all_lives = list(
            crew.map(lambda lane: _kill_repeatedly(environments.new(kind), share[lane], random.Random(seed + lane)), range(lanes))
        )
    good, done = sum(x.n_recovered for x in all_lives), sum(x.kills for x in all_lives)
    at = {point: sum(x.at.get(point, 0) for x in all_lives) for point in ("any moment", "while recovering", *POINTS)}
    again = sorted(s for x in all_lives for s in x.recovery_s)
    faults = [fault for x in all_lives for fault in x.faults]
    where = ", ".join(f"{point} {count}" for point, count in at.items() if count)
    return [
        Line(
            "E5",
            kind,
            f"kill -9, {done} times: {where}",
            f"{good}/{done} dumps equal" + "".join(f"; {fault}" for fault in faults[:3]),
            "all equal to the oracle, no half Parquet file",
            good == done == kills,
        ),
        Line(
            "E5",
            kind,
            f"from death to the next commit, {len(again)} times with work left, a new process each",
            f"median {again[len(again) // 2]:.1f} s, worst {again[-1]:.1f} s" if again else "no work was left",
            f"worst at most {MAX_RECOVERY_S:.0f} s",
            bool(again) and again[-1] <= MAX_RECOVERY_S,
        ),
    ]


def _kill_repeatedly(env: Environment, kills: int, chance: random.Random) -> KillResult:
    lives, number, died, open_checks = KillResult(), 0, list[float](), list[str]()
    with closing(Scenario(env)) as scenario:
        while True:
            point, spec = _choose_point(chance)
            with closing(WorkerProcess(env, *spec).wait_ready()) as worker:
                if open_checks and len(died) < kills and chance.random() < 0.15:
                    time.sleep(chance.uniform(0.0, 0.3))
                    point = "while recovering"
                else:
                    verdict = scenario.wait_for_verdict()
                    if verdict.ok:
                        lives.n_recovered += len(open_checks)
                    else:
                        lives.faults.append(f"after {open_checks}: {verdict}")
                    open_checks = []
                    if len(died) == kills or not verdict.ok:
                        break
                    worker.arm()
                    fresh = to_records(make_events(chance, CHUNK, start=number))
                    number += CHUNK
                    scenario.send(with_duplicates(chance, fresh, most=2, within=60))
                    if point == "any moment" or not worker.exits(10.0):
                        point = "any moment"
                        time.sleep(chance.uniform(0.0, 0.25))
                worker.kill()
                died.append(time.time())
                open_checks.append(point)
                lives.kills += 1
                lives.at[point] = lives.at.get(point, 0) + 1
        lives.recovery_s = _recovery_times(died, [at for at, _, _ in commits(env)])
    return lives


def _choose_point(chance: random.Random) -> tuple[str, list[str]]:
    """A point to die at, half of the time a random moment."""
    if chance.random() < 0.4:
        return "any moment", []
    point = chance.choice(POINTS[:5] + POINTS[5:])
    times = chance.randint(1, 4) if point in ("read", "writing", "written", "appending", "synced", "appended") else 1
    return point, ["--at", f"{point}:{times}:kill"]


def _recovery_times(died: list[float], committed: list[float]) -> list[float]:
    """Seconds from each death to the first commit after it, if that came before the next death."""
    spans = []
    for this, following in zip(died, [*died[1:], float("inf")], strict=True):
        later = [at for at in committed if this < at < following]
        if later:
            spans.append(min(later) - this)
    return spans
