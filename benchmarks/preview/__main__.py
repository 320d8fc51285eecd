"""`make bench-preview`: how soon a preview tells its first figures, how long a thousand requests take, what pages feel.

The crew of the service, on the demo's catalogue and policies with real histories. Compared within the run: the same
study in one process, cold processes against warm ones, and pages served alone against pages served beside a preview.
"""

from __future__ import annotations

import json
import os
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.preview.data import ANCHOR, PreviewData, load_data
from features.columns import FEATURES, columns
from recsys.domain.types import Placement, Query, Screen, Surface
from recsys.guidance.compilation.compile import compile_policy
from recsys.guidance.policy.policy import Policy, parse_policy
from recsys.guidance.solver.solve import warm
from recsys.models.served_model import ServedModel
from recsys.pipeline import Engine, ServingSnapshot
from recsys.preview.aggregate import Aggregate, replay
from recsys.preview.study import ReplayRequest, Study
from serving.editorial.preview.worker_pool import PreviewPool

REQUESTS = 1000
FIRST_REPORT_AT = 10
SINGLE_PROCESS_TASKS = 100
OUTLET = "cn.zj.hz"
DRAFT = """
outlet: cn.zj.hz
weights: {originality: 0.02, public_value: 0.03}
controls:
  - {id: local-top, action: quota, where: {locality: viewer}, at_least: 2, prefixes: [5], on: {surfaces: [home, hot]}}
  - {id: culture, action: quota, where: {label: culture}, at_least: 0.15, prefixes: every}
  - {id: one-topic, action: cap, attribute: topic, at_most: 4}
  - {id: dispersal, action: spacing, attribute: provider, at_most: 2, within: 3}
"""
UNMET_DRAFT = DRAFT + "  - {id: too-much, action: quota, where: {all: [{label: culture}, {kind: live}]}, at_least: 0.4}\n"


def main() -> None:
    """Print the table and, as the last line, one JSON object."""
    world_of = load_data()
    warm()
    study, unmet = make_study(world_of, DRAFT), make_study(world_of, UNMET_DRAFT)
    crew = PreviewPool()
    told: dict[str, object] = {"cores": os.cpu_count(), "items": len(world_of.catalog), "requests": REQUESTS}
    told["load_before"] = round(os.getloadavg()[0], 2)
    try:
        told["cold"] = time_study(study, crew)
        told["warm"] = time_study(study, crew)
        told["warm_unmet"] = time_study(unmet, crew)
        told["alone"] = time_single_process(study)
        told["pages_ms"] = page_latency_under_load(study, crew)
    finally:
        crew.stop()
    for name, figures in told.items():
        print(f"{name:<22} {figures}")
    print(json.dumps(told))


def make_study(made: PreviewData, draft: str) -> Study:
    """A thousand requests of viewers who rated, on tv and mobile by turns, under the demo's policies and a draft."""
    none = compile_policy((), made.catalog)
    world = ServingSnapshot.of(made.catalog, made.stats, ServedModel.load(made.bundle, FEATURES), none)
    policies: list[list[Policy]] = [list(made.policies), [*made.policies[:2], parse_policy(draft)]]
    before, after = ({OUTLET: compile_policy(chain, made.catalog)} for chain in policies)
    viewers = list(made.viewers)
    asked = []
    for n in range(REQUESTS):
        viewer, screen = viewers[n * 7 % len(viewers)], (Screen.TV, Screen.MOBILE)[n % 2]
        slots = 24 if screen is Screen.TV else 12
        query = Query(f"r{n}", viewer, Placement(OUTLET, screen, Surface.HOME), OUTLET, ANCHOR, slots, seed=n)
        asked.append(ReplayRequest(query, made.viewers[viewer]))
    return Study(Engine(columns), world, before, after, tuple(asked))


def time_study(study: Study, crew: PreviewPool) -> dict[str, float]:
    """Seconds to the first figures, all pairs, the complete report; and its main figure, to see it is the same."""
    began, first, pairs, spent = time.perf_counter(), 0.0, 0.0, processor_s(crew)
    tally: Aggregate | None = None
    for tally in replay(study, 0, lambda tasks: crew.run(study, tasks, threading.Event())):
        if not first and tally.requests >= FIRST_REPORT_AT:
            tally.report()
            first = time.perf_counter() - began
        if not pairs and tally.requests == REQUESTS:
            pairs = time.perf_counter() - began
    assert tally is not None
    report = tally.report()
    return {
        "first_figures_s": round(first, 2),
        "all_pairs_s": round(pairs, 2),
        "complete_s": round(time.perf_counter() - began, 2),
        "processor_s": round(processor_s(crew) - spent, 1),
        "pages": 3 * REQUESTS + tally.tasks - REQUESTS,
        "utility_change": round(report.utility.relative.mean, 5),
        "gave_way": report.relaxed_after,
    }


def processor_s(crew: PreviewPool) -> float:
    """Seconds of processor time that this process and its crew have used (Linux): no busy machine distorts them."""
    pool, ticks = crew._pool, os.sysconf("SC_CLK_TCK")
    spent = time.process_time()
    for process in list((pool._processes if pool else None) or ()):
        with suppress(OSError):
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            spent += (int(fields[11]) + int(fields[12])) / ticks
    return spent


def time_single_process(study: Study) -> dict[str, float]:
    """Per page of a pair in one process, without any of this: time by the clock and of the processor."""
    began, busy = time.perf_counter(), time.process_time()
    for task in list(study.tasks())[:SINGLE_PROCESS_TASKS]:
        study.do(task)
    clock, processor = time.perf_counter() - began, time.process_time() - busy
    return {"clock_ms": round(1000 * clock / (3 * SINGLE_PROCESS_TASKS), 2), "processor_ms": round(1000 * processor / (3 * SINGLE_PROCESS_TASKS), 2)}


def page_latency_under_load(study: Study, crew: PreviewPool) -> dict[str, float]:
    """p50 and p99 of pages in this process, alone and while the crew works on a preview whose figures it collects."""
    stopped = threading.Event()
    still = page_latency(study)
    collect = threading.Thread(target=lambda: [None for _ in replay(study, 0, lambda t: crew.run(study, t, stopped))])
    collect.start()
    time.sleep(1.0)
    busy = page_latency(study)
    stopped.set()
    collect.join()
    return {"alone_p50": still[0], "alone_p99": still[1], "beside_p50": busy[0], "beside_p99": busy[1]}


def page_latency(study: Study) -> tuple[float, float]:
    """p50 and p99 of two hundred guided pages, in milliseconds."""
    took = []
    for task in list(study.tasks())[:200]:
        asked = study.requests[task.request]
        world = replace(study.world, policy=study.before[OUTLET])
        began = time.perf_counter()
        study.engine.run(asked.query, asked.viewer, world)
        took.append(1000 * (time.perf_counter() - began))
    return round(float(np.median(took)), 2), round(float(np.quantile(took, 0.99)), 2)


if __name__ == "__main__":
    main()
