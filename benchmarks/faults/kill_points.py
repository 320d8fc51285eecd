"""E5: `kill -9` of the worker at random moments and at named points of a step; every time all is made good."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field

from benchmarks.faults.child import Child, commits
from benchmarks.faults.instrumented_worker import POINTS
from benchmarks.faults.place import Place, Places
from benchmarks.faults.report import Line
from benchmarks.faults.scenario import Scene
from benchmarks.faults.traffic import happened, records, repeated

CHUNK = 150
AGAIN_WITHIN_S = 5.0


@dataclass
class Lives:
    """What became of the workers of one place."""

    kills: int = 0
    good: int = 0  # kills after which everything was equal to the oracle
    at: dict[str, int] = field(default_factory=dict)  # point -> kills there
    again_s: list[float] = field(default_factory=list)  # from a death to the next commit, where work was left
    faults: list[str] = field(default_factory=list)


def killed(places: Places, kind: str, kills: int, lanes: int, seed: int) -> list[Line]:
    """Lines of the report; `lanes` places are worked on side by side."""
    share = [kills // lanes + (lane < kills % lanes) for lane in range(lanes)]
    with ThreadPoolExecutor(lanes) as crew:
        all_lives = list(
            crew.map(lambda lane: _lives(places.new(kind), share[lane], random.Random(seed + lane)), range(lanes))
        )
    good, done = sum(x.good for x in all_lives), sum(x.kills for x in all_lives)
    at = {point: sum(x.at.get(point, 0) for x in all_lives) for point in ("any moment", "while recovering", *POINTS)}
    again = sorted(s for x in all_lives for s in x.again_s)
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
            f"worst at most {AGAIN_WITHIN_S:.0f} s",
            bool(again) and again[-1] <= AGAIN_WITHIN_S,
        ),
    ]


def _lives(place: Place, kills: int, chance: random.Random) -> Lives:
    lives, number, died, open_checks = Lives(), 0, list[float](), list[str]()
    with closing(Scene(place)) as scene:
        while True:
            point, spec = _aim(chance)
            with closing(Child(place, *spec).ready()) as worker:
                if open_checks and len(died) < kills and chance.random() < 0.15:
                    time.sleep(chance.uniform(0.0, 0.3))
                    point = "while recovering"
                else:
                    verdict = scene.judged()
                    if verdict.ok:
                        lives.good += len(open_checks)
                    else:
                        lives.faults.append(f"after {open_checks}: {verdict}")
                    open_checks = []
                    if len(died) == kills or not verdict.ok:
                        break
                    worker.arm()
                    fresh = records(happened(chance, CHUNK, start=number))
                    number += CHUNK
                    scene.send(repeated(chance, fresh, most=2, within=60))
                    if point == "any moment" or not worker.died(10.0):
                        point = "any moment"
                        time.sleep(chance.uniform(0.0, 0.25))
                worker.kill()
                died.append(time.time())
                open_checks.append(point)
                lives.kills += 1
                lives.at[point] = lives.at.get(point, 0) + 1
        lives.again_s = _again(died, [at for at, _, _ in commits(place)])
    return lives


def _aim(chance: random.Random) -> tuple[str, list[str]]:
    """A point to die at, half of the time a random moment."""
    if chance.random() < 0.4:
        return "any moment", []
    point = chance.choice(POINTS[:5] + POINTS[5:])
    times = chance.randint(1, 4) if point in ("read", "writing", "written", "appending", "synced", "appended") else 1
    return point, ["--at", f"{point}:{times}:kill"]


def _again(died: list[float], committed: list[float]) -> list[float]:
    """Seconds from each death to the first commit after it, if that came before the next death."""
    spans = []
    for this, following in zip(died, [*died[1:], float("inf")], strict=True):
        later = [at for at in committed if this < at < following]
        if later:
            spans.append(min(later) - this)
    return spans
