"""E5: the worker is killed with SIGKILL at random times and at named points of a step, and recovers every time."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field

from benchmarks.faults.harness.environment import Environment, EnvironmentFactory
from benchmarks.faults.harness.instrumented_worker import POINTS
from benchmarks.faults.harness.scenario import Scenario
from benchmarks.faults.harness.traffic import make_events, to_records, with_duplicates
from benchmarks.faults.harness.worker_process import WorkerProcess, commits
from benchmarks.faults.report import Line

CHUNK = 150
MAX_RECOVERY_S = 5.0


@dataclass
class KillResult:
    """The kills of workers in one environment, and how they recovered."""

    kills: int = 0
    n_recovered: int = 0  # kills after which all stores equal the oracle
    at: dict[str, int] = field(default_factory=dict)  # point -> kills at this point
    recovery_s: list[float] = field(default_factory=list)  # from a kill to the next commit, if there was work left
    faults: list[str] = field(default_factory=list)


def kill_worker(environments: EnvironmentFactory, kind: str, kills: int, lanes: int, seed: int) -> list[Line]:
    """Kill workers in `lanes` parallel environments; returns one result for recovery and one for its time."""
    kills_per_lane = [kills // lanes + (lane < kills % lanes) for lane in range(lanes)]
    with ThreadPoolExecutor(lanes) as pool:
        results = list(
            pool.map(
                lambda lane: _kill_repeatedly(environments.new(kind), kills_per_lane[lane], random.Random(seed + lane)),
                range(lanes),
            )
        )
    n_recovered, n_kills = sum(x.n_recovered for x in results), sum(x.kills for x in results)
    at = {point: sum(x.at.get(point, 0) for x in results) for point in ("any moment", "while recovering", *POINTS)}
    recovery_s = sorted(s for x in results for s in x.recovery_s)
    faults = [fault for x in results for fault in x.faults]
    points = ", ".join(f"{point} {count}" for point, count in at.items() if count)
    return [
        Line(
            "E5",
            kind,
            f"kill -9, {n_kills} times: {points}",
            f"{n_recovered}/{n_kills} dumps equal" + "".join(f"; {fault}" for fault in faults[:3]),
            "all equal to the oracle, no truncated Parquet file",
            n_recovered == n_kills == kills,
        ),
        Line(
            "E5",
            kind,
            f"from kill to the next commit, {len(recovery_s)} times with work left, a new process each",
            f"median {recovery_s[len(recovery_s) // 2]:.1f} s, worst {recovery_s[-1]:.1f} s"
            if recovery_s
            else "no work left",
            f"worst at most {MAX_RECOVERY_S:.0f} s",
            bool(recovery_s) and recovery_s[-1] <= MAX_RECOVERY_S,
        ),
    ]


def _kill_repeatedly(env: Environment, kills: int, rng: random.Random) -> KillResult:
    result, n_events, death_times, unchecked = KillResult(), 0, list[float](), list[str]()
    with closing(Scenario(env)) as scenario:
        while True:
            point, spec = _choose_point(rng)
            with closing(WorkerProcess(env, *spec).wait_ready()) as worker:
                if unchecked and len(death_times) < kills and rng.random() < 0.15:
                    time.sleep(rng.uniform(0.0, 0.3))
                    point = "while recovering"
                else:
                    verdict = scenario.wait_for_verdict()
                    if verdict.ok:
                        result.n_recovered += len(unchecked)
                    else:
                        result.faults.append(f"after {unchecked}: {verdict}")
                    unchecked = []
                    if len(death_times) == kills or not verdict.ok:
                        break
                    worker.arm()
                    batch = to_records(make_events(rng, CHUNK, start=n_events))
                    n_events += CHUNK
                    scenario.send(with_duplicates(rng, batch, max_copies=2, within=60))
                    if point == "any moment" or not worker.exits(10.0):
                        point = "any moment"
                        time.sleep(rng.uniform(0.0, 0.25))
                worker.kill()
                death_times.append(time.time())
                unchecked.append(point)
                result.kills += 1
                result.at[point] = result.at.get(point, 0) + 1
        result.recovery_s = _recovery_times(death_times, [at for at, _, _ in commits(env)])
    return result


def _choose_point(rng: random.Random) -> tuple[str, list[str]]:
    """Return a random point and the trigger flags for it; 40 % of the time a random moment without a trigger."""
    if rng.random() < 0.4:
        return "any moment", []
    point = rng.choice(POINTS[:5] + POINTS[5:])
    times = rng.randint(1, 4) if point in ("read", "writing", "written", "appending", "synced", "appended") else 1
    return point, ["--at", f"{point}:{times}:kill"]


def _recovery_times(deaths: list[float], committed: list[float]) -> list[float]:
    """Return the seconds from each kill to the first commit after it, if it comes before the next kill."""
    spans = []
    for this, following in zip(deaths, [*deaths[1:], float("inf")], strict=True):
        later = [at for at in committed if this < at < following]
        if later:
            spans.append(min(later) - this)
    return spans
