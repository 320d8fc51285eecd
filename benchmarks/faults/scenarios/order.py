"""E1, E2, E3: a single event on an idle system, duplicate events, and events out of order."""

from __future__ import annotations

import random
import time
from contextlib import closing

from msgspec import structs

from benchmarks.faults.harness.environment import EnvironmentFactory
from benchmarks.faults.harness.scenario import Scenario
from benchmarks.faults.harness.traffic import DAY_S, batches, make_events, to_records, with_duplicates
from benchmarks.faults.harness.worker_process import WorkerProcess, wait_until
from benchmarks.faults.report import Line
from features.events.schema import ViewerEvent
from features.state.codec import decode_viewer, item_key, viewer_key
from recsys.domain.decay import LANDMARK

MAX_VISIBLE_S = 1.0
LATE_FRACTION = 0.01  # of the events
LATE_DAYS = (1.0, 30.0)


def single_event(environments: EnvironmentFactory, kind: str, times: int, seed: int) -> list[Line]:
    """E1: send single events to an idle system and measure the time until both states show them."""
    rng, env, latencies_s = random.Random(seed), environments.new(kind), []
    with closing(Scenario(env)) as scenario, closing(WorkerProcess(env).wait_ready()), closing(env.online()) as store:
        scenario.send(to_records(make_events(rng, 20)))
        started = scenario.wait_for_verdict().ok  # the group has formed
        for number in range(times):
            time.sleep(rng.uniform(0.0, 0.4))
            viewer = f"alone-{number}"
            event = ViewerEvent(id="e", kind="play", viewer_id=viewer, at=LANDMARK, item_id=f"new-{number}")
            records = to_records([event])

            def visible(viewer: str = viewer, number: int = number) -> bool:
                sources = [f"{env.source}{partition}" for partition in range(4)]
                values = store.get([viewer_key(viewer), *(item_key(f"new-{number}", at) for at in sources)])
                return values[0] is not None and bool(decode_viewer(values[0]).recent) and any(values[1:])

            began = time.monotonic()
            scenario.send(records)
            wait_until(visible, 10.0, every_s=0.005)
            latencies_s.append(time.monotonic() - began)
        verdict = scenario.wait_for_verdict()
    latencies_s.sort()
    return [
        Line(
            "E1",
            kind,
            f"a single event on an idle system, {times} times",
            f"in both states after {latencies_s[len(latencies_s) // 2]:.2f} s (median), "
            f"{latencies_s[-1]:.2f} s (worst); {verdict}",
            f"each within {MAX_VISIBLE_S:.0f} s",
            started and verdict.ok and latencies_s[-1] <= MAX_VISIBLE_S,
        )
    ]


def duplicate_events(environments: EnvironmentFactory, kind: str, events: int, seed: int) -> list[Line]:
    """E2: send every event 1 to 5 times, and kill and restart the worker between batches."""
    rng, env = random.Random(seed), environments.new(kind)
    records = with_duplicates(rng, to_records(make_events(rng, events)), max_copies=5, within=300)
    portions = list(batches(records, max(1, len(records) // 12)))
    kills = 0
    with closing(Scenario(env)) as scenario:
        worker = WorkerProcess(env)
        for number, portion in enumerate(portions):
            scenario.send(portion)
            if number % 4 == 2:
                worker.wait_ready()
                time.sleep(rng.uniform(0.0, 0.5))
                worker.kill()
                kills += 1
                worker = WorkerProcess(env)
        with closing(worker):
            verdict = scenario.wait_for_verdict(90.0)
    return [
        Line(
            "E2",
            kind,
            f"{events:,} events sent 1 to 5 times: {scenario.sent:,} messages, {len(portions)} batches, {kills} kills",
            f"{verdict}; {scenario.ledger.repeats:,} duplicates skipped",
            "dump = oracle",
            verdict.ok and scenario.ledger.repeats == scenario.sent - events,
        )
    ]


def out_of_order(environments: EnvironmentFactory, kind: str, events: int, seed: int) -> list[Line]:
    """E3: send events in random order; one in a hundred arrives days after it happened."""
    rng, env = random.Random(seed), environments.new(kind)
    viewer_events = make_events(
        rng, events, start=60 * 1440
    )  # two months after LANDMARK: delayed events must not precede it
    delayed = set(rng.sample(range(events), max(1, int(events * LATE_FRACTION))))
    for number in delayed:
        viewer_events[number] = _delayed(viewer_events[number], rng.uniform(*LATE_DAYS))
    delayed_ids = {(viewer_events[number].viewer_id, viewer_events[number].id) for number in delayed}
    rng.shuffle(viewer_events)
    with closing(Scenario(env)) as scenario, closing(WorkerProcess(env).wait_ready()):
        for portion in batches(to_records(viewer_events), 500):
            scenario.send(portion)
        verdict = scenario.wait_for_verdict(90.0)
        logged = delayed_ids & scenario.logged()
    return [
        Line(
            "E3",
            kind,
            f"{events:,} events in random order, {len(delayed):,} of them late by 1 to 30 days",
            f"{verdict}; {len(logged):,} of {len(delayed_ids):,} late events in the event log",
            "dump = oracle; all late events in the event log",
            verdict.ok and logged == delayed_ids,
        )
    ]


def _delayed(event: ViewerEvent, days: float) -> ViewerEvent:
    """Return the event as sent by a device that was offline: its client time is `days` before the server's time."""
    return structs.replace(event, client_at=event.at - days * DAY_S)
