"""Measures previews: time to first figures, time for a thousand requests, and page latency while a preview runs.

Uses the worker pool of the service, the demo's catalog and policies, and real histories. Compares within the run: the
same study in a single process, cold and warm processes, and page latency with and without a running preview.
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
from recsys.domain.placement import Placement, Screen, Surface
from recsys.domain.query import Query
from recsys.guidance.compilation.compile import compile_policy
from recsys.guidance.policy.policy import Policy, parse_policy
from recsys.guidance.solver.solve import warm
from recsys.models.served_model import ServedModel
from recsys.pipeline import Engine
from recsys.preview.aggregate import Aggregate, replay
from recsys.preview.study import ReplayRequest, Study
from recsys.snapshot import ServingSnapshot
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
UNMET_DRAFT = (
    DRAFT + "  - {id: too-much, action: quota, where: {all: [{label: culture}, {kind: live}]}, at_least: 0.4}\n"
)


def main() -> None:
    """Print the figures and, as the last line, one JSON object."""
    data = load_data()
    warm()
    study, unmet = make_study(data, DRAFT), make_study(data, UNMET_DRAFT)
    pool = PreviewPool()
    report: dict[str, object] = {"cores": os.cpu_count(), "items": len(data.catalog), "requests": REQUESTS}
    report["load_before"] = round(os.getloadavg()[0], 2)
    try:
        report["cold"] = time_study(study, pool)
        report["warm"] = time_study(study, pool)
        report["warm_unmet"] = time_study(unmet, pool)
        report["single_process"] = time_single_process(study)
        report["pages_ms"] = page_latency_under_load(study, pool)
    finally:
        pool.stop()
    for name, figures in report.items():
        print(f"{name:<22} {figures}")
    print(json.dumps(report))


def make_study(data: PreviewData, draft: str) -> Study:
    """Return a study of a thousand requests, on TV and mobile in turn, under the demo's policies and a draft."""
    none = compile_policy((), data.catalog)
    snapshot = ServingSnapshot.of(data.catalog, data.stats, ServedModel.load(data.bundle, FEATURES), none)
    policies: list[list[Policy]] = [list(data.policies), [*data.policies[:2], parse_policy(draft)]]
    before, after = ({OUTLET: compile_policy(chain, data.catalog)} for chain in policies)
    viewers = list(data.viewers)
    requests = []
    for n in range(REQUESTS):
        viewer, screen = viewers[n * 7 % len(viewers)], (Screen.TV, Screen.MOBILE)[n % 2]
        slots = 24 if screen is Screen.TV else 12
        query = Query(f"r{n}", viewer, Placement(OUTLET, screen, Surface.HOME), OUTLET, ANCHOR, slots, seed=n)
        requests.append(ReplayRequest(query, data.viewers[viewer]))
    return Study(Engine(columns), snapshot, before, after, tuple(requests))


def time_study(study: Study, pool: PreviewPool) -> dict[str, float]:
    """Return the seconds to the first figures, all pairs and the complete report, and its main figure as a check."""
    began, first, pairs, spent = time.perf_counter(), 0.0, 0.0, processor_s(pool)
    aggregate: Aggregate | None = None
    for aggregate in replay(study, 0, lambda tasks: pool.run(study, tasks, threading.Event())):
        if not first and aggregate.requests >= FIRST_REPORT_AT:
            aggregate.report()
            first = time.perf_counter() - began
        if not pairs and aggregate.requests == REQUESTS:
            pairs = time.perf_counter() - began
    assert aggregate is not None
    report = aggregate.report()
    return {
        "first_figures_s": round(first, 2),
        "all_pairs_s": round(pairs, 2),
        "complete_s": round(time.perf_counter() - began, 2),
        "processor_s": round(processor_s(pool) - spent, 1),
        "pages": 3 * REQUESTS + aggregate.tasks - REQUESTS,
        "utility_change": round(report.utility.relative.mean, 5),
        "relaxed": report.relaxed_after,
    }


def processor_s(pool: PreviewPool) -> float:
    """Return the processor seconds of this process and its pool (Linux); independent of other load on the machine."""
    executor, ticks = pool._pool, os.sysconf("SC_CLK_TCK")
    spent = time.process_time()
    for process in list((executor._processes if executor else None) or ()):
        with suppress(OSError):
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            spent += (int(fields[11]) + int(fields[12])) / ticks
    return spent


def time_single_process(study: Study) -> dict[str, float]:
    """Return wall-clock and processor time of a page in a single process, without the pool."""
    began, busy = time.perf_counter(), time.process_time()
    for task in list(study.tasks())[:SINGLE_PROCESS_TASKS]:
        study.run(task)
    clock, processor = time.perf_counter() - began, time.process_time() - busy
    return {
        "clock_ms": round(1000 * clock / (3 * SINGLE_PROCESS_TASKS), 2),
        "processor_ms": round(1000 * processor / (3 * SINGLE_PROCESS_TASKS), 2),
    }


def page_latency_under_load(study: Study, pool: PreviewPool) -> dict[str, float]:
    """Return p50 and p99 of pages in this process, idle and while it collects the results of a preview."""
    stopped = threading.Event()
    idle = page_latency(study)
    collect = threading.Thread(target=lambda: [None for _ in replay(study, 0, lambda t: pool.run(study, t, stopped))])
    collect.start()
    time.sleep(1.0)
    loaded = page_latency(study)
    stopped.set()
    collect.join()
    return {"idle_p50": idle[0], "idle_p99": idle[1], "loaded_p50": loaded[0], "loaded_p99": loaded[1]}


def page_latency(study: Study) -> tuple[float, float]:
    """Return p50 and p99 of two hundred guided pages, in milliseconds."""
    latencies_ms = []
    for task in list(study.tasks())[:200]:
        request = study.requests[task.request]
        snapshot = replace(study.world, policy=study.before[OUTLET])
        began = time.perf_counter()
        study.engine.run(request.query, request.viewer, snapshot)
        latencies_ms.append(1000 * (time.perf_counter() - began))
    return round(float(np.median(latencies_ms)), 2), round(float(np.quantile(latencies_ms, 0.99)), 2)


if __name__ == "__main__":
    main()
