"""E1, E2, E3: one single event, every event several times, every event out of order."""

from __future__ import annotations

import random
import time
from contextlib import closing

from msgspec import structs

from benchmarks.faults.harness.worker_process import WorkerProcess, wait_until
from benchmarks.faults.harness.environment import Environments
from benchmarks.faults.report import Line
from benchmarks.faults.harness.scenario import Scenario
from benchmarks.faults.harness.traffic import DAY_S, batches, make_events, to_records, with_duplicates
from features.events.decode import ViewerEvent
from features.state.codec import decode_viewer, item_key, viewer_key
from recsys.domain.viewer import LANDMARK

MAX_VISIBLE_S = 1.0
LATE_FRACTION = 0.01  # of the events
LATE_DAYS = (1.0, 30.0)


def single_event(environments: Environments, kind: str, times: int, seed: int) -> list[Line]:
    """E1: an event on an idle system, again and again; none may wait for the next one."""
    chance, env, took_s = random.Random(seed), environments.new(kind), []
    with closing(Scenario(env)) as scenario, closing(WorkerProcess(env).wait_ready()), closing(env.online()) as store:
        scenario.send(to_records(make_events(chance, 20)))
        begun = scenario.wait_for_verdict().ok  # the group has formed
        for number in range(times):
            time.sleep(chance.uniform(0.0, 0.4))
            viewer = f"alone-{number}"
            event = ViewerEvent(id="e", kind="play", viewer_id=viewer, at=LANDMARK, item_id=f"new-{number}")
            sent = to_records([event])

            def visible(viewer: str = viewer, number: int = number) -> bool:
                sources = [f"{env.source}{partition}" for partition in range(4)]
                found = store.get([viewer_key(viewer), *(item_key(f"new-{number}", at) for at in sources)])
                return found[0] is not None and bool(decode_viewer(found[0]).recent) and any(found[1:])

            began = time.monotonic()
            scenario.send(sent)
            wait_until(visible, 10.0, every_s=0.005)
            took_s.append(time.monotonic() - began)
        verdict = scenario.wait_for_verdict()
    took_s.sort()
    return [
        Line(
            "E1",
            kind,
            f"one single event on an idle system, {times} times",
            f"in both states after {took_s[len(took_s) // 2]:.2f} s (median), {took_s[-1]:.2f} s (worst); {verdict}",
            f"each within {MAX_VISIBLE_S:.0f} s",
            begun and verdict.ok and took_s[-1] <= MAX_VISIBLE_S,
        )
    ]


def duplicate_events(environments: Environments, kind: str, events: int, seed: int) -> list[Line]:
    """E2: every event 1 to 5 times, the worker killed and started anew between batches."""
    chance, env = random.Random(seed), environments.new(kind)
    sent = with_duplicates(chance, to_records(make_events(chance, events)), most=5, within=300)
    portions = list(batches(sent, max(1, len(sent) // 12)))
    kills = 0
    with closing(Scenario(env)) as scenario:
        worker = WorkerProcess(env)
        for number, portion in enumerate(portions):
            scenario.send(portion)
            if number % 4 == 2:
                worker.wait_ready()
                time.sleep(chance.uniform(0.0, 0.5))
                worker.kill()
                kills += 1
                worker = WorkerProcess(env)
        with closing(worker):
            verdict = scenario.wait_for_verdict(90.0)
    return [
        Line(
            "E2",
            kind,
            f"{events:,} events sent 1 to 5 times: {scenario.sent:,} messages, {len(portions)} portions, {kills} kill -9",
            f"{verdict}; {scenario.ledger.repeats:,} copies left out",
            "dump = oracle",
            verdict.ok and scenario.ledger.repeats == scenario.sent - events,
        )
    ]


def out_of_order(environments: Environments, kind: str, events: int, seed: int) -> list[Line]:
    """E3: no order is left within a viewer, and one in a hundred comes days after it make_events."""
    chance, env = random.Random(seed), environments.new(kind)
    made = make_events(chance, events, start=60 * 1440)  # two months after the landmark, so that late is not before it
    late = set(chance.sample(range(events), max(1, int(events * LATE_FRACTION))))
    for number in late:
        made[number] = _delayed(made[number], chance.uniform(*LATE_DAYS))
    late_ids = {(made[number].viewer_id, made[number].id) for number in late}
    chance.shuffle(made)
    with closing(Scenario(env)) as scenario, closing(WorkerProcess(env).wait_ready()):
        for portion in batches(to_records(made), 500):
            scenario.send(portion)
        verdict = scenario.wait_for_verdict(90.0)
        logged = late_ids & scenario.logged()
    return [
        Line(
            "E3",
            kind,
            f"{events:,} events in no order at all, {len(late):,} of them late by 1 to 30 days",
            f"{verdict}; {len(logged):,} of {len(late_ids):,} late ones in the offline log",
            "dump = oracle; all late ones in the offline log",
            verdict.ok and logged == late_ids,
        )
    ]


def _delayed(event: ViewerEvent, days: float) -> ViewerEvent:
    """The same, sent by a device that had been without a network: it make_events days before the server heard of it."""
    return structs.replace(event, client_at=event.at - days * DAY_S)
