"""E7 and P3 by the commands of the worker: stores rebuilt from what is kept, viewers erased beside a worker."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing

from msgspec import structs

from benchmarks.faults.child import ROOT, Child, environment
from benchmarks.faults.place import Place, Places, held
from benchmarks.faults.report import Line
from benchmarks.faults.scenario import Scene
from benchmarks.faults.traffic import happened, records
from features.events.decode import ViewerEvent
from features.state.codec import viewer_key
from features.state.keys import VIEWERS

AT_LEAST = 5_000  # events rebuilt in a second
JUDGED_FROM = 100_000  # events: of fewer, most of the time is a process that starts
COMMAND_WITHIN_S = 900.0
VIEWERS_OF = 10  # events for each viewer, about


def rebuilt(places: Places, kind: str, events: int, seed: int) -> list[Line]:
    """E7: the online store wiped and rebuilt from the event log; then the event log as well, from the stream."""
    place, lines = places.new(kind), []
    timed = events >= JUDGED_FROM
    with closing(Scene(place)) as scene, closing(Child(place).ready()) as worker:
        scene.send(records(_lately(random.Random(seed), events)))
        begun = scene.judged(300.0)
        _ended(worker)
        expected = place.dump()
        for origin in ("log", "stream"):
            _wipe(place)
            if origin == "stream":
                shutil.rmtree(place.event_log)
            before = os.times()
            status, said = _command(place, "rebuild", "--from", origin)
            cpu_s = sum(os.times()[2:4]) - sum(before[2:4])  # of children that ended: this one
            verified, differing = _command(place, "verify")
            rate = _rate(said)
            found, verdict = place.dump(), scene.verdict()
            same = sum(found.get(key) == raw for key, raw in expected.items())
            lines.append(
                Line(
                    "E7",
                    kind,
                    f"online store {'and Parquet files ' if origin == 'stream' else ''}wiped, {events:,} events "
                    f"rebuilt from the {origin}",
                    f"{same:,} of {len(expected):,} keys equal byte for byte, {rate:,.0f} events/s, "
                    f"{events / cpu_s:,.0f} by processor time, the start included; {verdict}; "
                    f"verify: {differing.strip().splitlines()[-1] if differing.strip() else verified}",
                    f"all equal, at least {AT_LEAST:,} events/s" + ("" if timed else " (judged in full only)"),
                    begun.ok
                    and not status
                    and not verified
                    and found == expected
                    and verdict.ok
                    and (rate >= AT_LEAST or not timed),
                )
            )
    return lines


def erased(places: Places, kind: str, viewers: int, seed: int) -> list[Line]:
    """P3: viewers erased while a worker folds, and what they did sent again afterwards."""
    chance, place = random.Random(seed), places.new(kind)
    happenings = _lately(chance, VIEWERS_OF * viewers, viewers)
    gone = sorted({event.viewer_id for event in happenings})[::2][:viewers]
    with closing(Scene(place)) as scene, closing(Child(place).ready()) as worker:
        half = len(happenings) // 2
        scene.send(records(happenings[:half]))
        scene.expected()  # read before an erasure takes it out of the log
        failed = 0
        for number, viewer in enumerate(gone):
            if number == len(gone) // 2:
                scene.send(records(happenings[half:]))  # the worker is at work on some of them meanwhile
                scene.expected()
            failed += _command(place, "viewers", "erase", viewer)[0] != 0
        scene.send(records([event for event in happenings if event.viewer_id in gone]))  # a spool, a dead letter
        left = _left(scene, place, gone)
        _ended(worker)
        others = _viewers(place)
        _wipe(place)
        status, _ = _command(place, "rebuild", "--from", "stream")
        again = _left(scene, place, gone)
        files = _bytes(place, gone)
        expected = {key: raw for key, raw in scene.expected().items() if key.startswith(VIEWERS)}
        for viewer in gone:
            expected.pop(viewer_key(viewer), None)
        kept = _viewers(place)
    return [
        Line(
            "P3",
            kind,
            f"{len(gone)} viewers erased beside a worker, their {sum(e.viewer_id in gone for e in happenings):,} "
            "events sent again, the store rebuilt from the stream",
            f"{left} came back by the worker, {again} by the rebuild, {files} stand in files of the log; states of "
            f"{len(expected)} others {'equal' if others == kept == expected else 'differ'}; "
            f"{failed + bool(status)} commands failed",
            "none comes back, no byte of them is left, nobody else is changed",
            not (left or again or files or failed or status) and others == kept == expected,
        )
    ]


def _lately(chance: random.Random, count: int, viewers: int = 60) -> list[ViewerEvent]:
    """Events of the last days: a rebuild forgets who is idle for too long."""
    events = happened(chance, count, viewers=viewers, items=max(60, count // 100))
    began = time.time() - 60.0 - 10.0 * count
    return [structs.replace(event, at=round(began + 10.0 * number, 3)) for number, event in enumerate(events)]


def _ended(worker: Child) -> None:
    worker.signal(signal.SIGTERM)
    worker.process.wait(60)


def _wipe(place: Place) -> None:
    """All keys, also those that no rebuild would delete."""
    with closing(place.online()) as store:
        store.delete([key for key, _ in store.scan("")])


def _command(place: Place, *said: str) -> tuple[int, str]:
    """Status and output of a `mainstay` command."""
    done = subprocess.run(
        [sys.executable, "-m", "features.cli", *said, *place.flags],
        capture_output=True,
        text=True,
        timeout=COMMAND_WITHIN_S,
        cwd=ROOT,
        env=environment(place.home.parent),
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def _rate(said: str) -> float:
    """`…: 12,345 a second` as a number."""
    found = re.search(r"([\d,]+) a second", said)
    return float(found[1].replace(",", "")) if found else 0.0


def _left(scene: Scene, place: Place, gone: list[str]) -> int:
    """How many of them have a state once all is folded: when those who are not gone are what they should be."""
    expected = {key: raw for key, raw in scene.expected().items() if key.startswith(VIEWERS)}
    for viewer in gone:
        expected.pop(viewer_key(viewer), None)
    give_up = time.monotonic() + 60.0
    while _viewers(place) != expected and time.monotonic() < give_up:
        time.sleep(0.2)
    time.sleep(1.0)  # an erased viewer would come with the last batch
    there = _viewers(place)
    return sum(viewer_key(viewer) in there for viewer in gone)


def _viewers(place: Place) -> dict[str, bytes]:
    with closing(place.online()) as store:
        return {key: raw for key, raw in held(store).items() if key.startswith(VIEWERS)}


def _bytes(place: Place, gone: list[str]) -> int:
    """How many of them the log's files name: the ids are looked for as rows, as one may be part of another."""
    import pyarrow.parquet as pq

    named = set()
    for file in place.event_log.rglob("*.parquet"):
        named.update(pq.read_table(file, columns=["viewer_id"])["viewer_id"].to_pylist())
    return sum(viewer in named for viewer in gone)
