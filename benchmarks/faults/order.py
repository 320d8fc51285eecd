"""E1, E2, E3: one single event, every event several times, every event out of order."""

from __future__ import annotations

import random
import time
from contextlib import closing

from msgspec import structs

from benchmarks.faults.child import Child, wait_until
from benchmarks.faults.place import Places
from benchmarks.faults.report import Line
from benchmarks.faults.scenario import Scene
from benchmarks.faults.traffic import DAY_S, batches, happened, records, repeated
from features.events.schema import ViewerEvent
from features.state.codec import decode_viewer, item_key, viewer_key
from recsys.domain.decay import LANDMARK

SEEN_WITHIN_S = 1.0
LATE = 0.01  # of the events
LATE_DAYS = (1.0, 30.0)


def alone(places: Places, kind: str, times: int, seed: int) -> list[Line]:
    """E1: an event on an idle system, again and again; none may wait for the next one."""
    chance, place, took_s = random.Random(seed), places.new(kind), []
    with closing(Scene(place)) as scene, closing(Child(place).ready()), closing(place.online()) as store:
        scene.send(records(happened(chance, 20)))
        begun = scene.judged().ok  # the group has formed
        for number in range(times):
            time.sleep(chance.uniform(0.0, 0.4))
            viewer = f"alone-{number}"
            event = ViewerEvent(id="e", kind="play", viewer_id=viewer, at=LANDMARK, item_id=f"new-{number}")
            sent = records([event])

            def visible(viewer: str = viewer, number: int = number) -> bool:
                sources = [f"{place.source}{partition}" for partition in range(4)]
                found = store.get([viewer_key(viewer), *(item_key(f"new-{number}", at) for at in sources)])
                return found[0] is not None and bool(decode_viewer(found[0]).recent) and any(found[1:])

            began = time.monotonic()
            scene.send(sent)
            wait_until(visible, 10.0, every_s=0.005)
            took_s.append(time.monotonic() - began)
        verdict = scene.judged()
    took_s.sort()
    return [
        Line(
            "E1",
            kind,
            f"one single event on an idle system, {times} times",
            f"in both states after {took_s[len(took_s) // 2]:.2f} s (median), {took_s[-1]:.2f} s (worst); {verdict}",
            f"each within {SEEN_WITHIN_S:.0f} s",
            begun and verdict.ok and took_s[-1] <= SEEN_WITHIN_S,
        )
    ]


def repeats(places: Places, kind: str, events: int, seed: int) -> list[Line]:
    """E2: every event 1 to 5 times, the worker killed and started anew between batches."""
    chance, place = random.Random(seed), places.new(kind)
    sent = repeated(chance, records(happened(chance, events)), most=5, within=300)
    portions = list(batches(sent, max(1, len(sent) // 12)))
    kills = 0
    with closing(Scene(place)) as scene:
        worker = Child(place)
        for number, portion in enumerate(portions):
            scene.send(portion)
            if number % 4 == 2:
                worker.ready()
                time.sleep(chance.uniform(0.0, 0.5))
                worker.kill()
                kills += 1
                worker = Child(place)
        with closing(worker):
            verdict = scene.judged(90.0)
    return [
        Line(
            "E2",
            kind,
            f"{events:,} events sent 1 to 5 times: {scene.sent:,} messages, {len(portions)} portions, {kills} kill -9",
            f"{verdict}; {scene.ledger.repeats:,} copies left out",
            "dump = oracle",
            verdict.ok and scene.ledger.repeats == scene.sent - events,
        )
    ]


def shuffled(places: Places, kind: str, events: int, seed: int) -> list[Line]:
    """E3: no order is left within a viewer, and one in a hundred comes days after it happened."""
    chance, place = random.Random(seed), places.new(kind)
    made = happened(chance, events, start=60 * 1440)  # two months after the landmark, so that late is not before it
    late = set(chance.sample(range(events), max(1, int(events * LATE))))
    for number in late:
        made[number] = _late(made[number], chance.uniform(*LATE_DAYS))
    late_ids = {(made[number].viewer_id, made[number].id) for number in late}
    chance.shuffle(made)
    with closing(Scene(place)) as scene, closing(Child(place).ready()):
        for portion in batches(records(made), 500):
            scene.send(portion)
        verdict = scene.judged(90.0)
        logged = late_ids & scene.logged()
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


def _late(event: ViewerEvent, days: float) -> ViewerEvent:
    """The same, sent by a device that had been without a network: it happened days before the server heard of it."""
    return structs.replace(event, client_at=event.at - days * DAY_S)
