"""D5: disks of 8 MiB that are full, for the spool and for the event log; `audit.py` has the control plane's."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from benchmarks.faults.api import Api, Sender, cloud_event
from benchmarks.faults.child import Child, commits, wait_until
from benchmarks.faults.place import SESSION_S, Places
from benchmarks.faults.report import Line
from benchmarks.faults.scenario import Scene
from benchmarks.faults.traffic import happened, records
from benchmarks.servers import broker

DISK = "8m"


@contextmanager
def small_disk(at: Path) -> Iterator[None]:
    """A file system of 8 MiB. Raises PermissionError where none may be mounted."""
    at.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(at)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        raise PermissionError("mounting a tmpfs is not permitted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(at)], check=False)


def spool_full(places: Places, kind: str) -> list[Line]:
    """The broker is away and the spool's disk runs full; then the broker comes."""
    what = "spool's disk of 8 MiB full, broker away; then the broker comes"
    passes = "no false 202, 503 with Retry-After, resumes by itself"
    given = places.new(kind)
    try:
        with ExitStack() as stack:
            stack.enter_context(small_disk(given.home / "spool"))
            server = stack.enter_context(closing(broker(given.home / "broker")))
            place = replace(given, stream_url=f"kafka://127.0.0.1:{server.port}?session_s={SESSION_S}")
            api = stack.enter_context(closing(Api(place))).ready()
            sender = stack.enter_context(closing(Sender(api, "d5", size=200, every_s=0.0, padding=300)))
            sender.start()
            filled_s = wait_until(lambda: sender.answers[503] >= 5, 120.0)
            polite = _retry_after(api)
            before = len(sender.ids)
            server.start()
            resumed_s = wait_until(lambda: len(sender.ids) > before + 1000, 60.0)
            sender.end()
            with closing(Scene(place)) as scene, closing(Child(place).ready()):
                wait_until(lambda: sender.ids <= scene.hear(), 90.0, every_s=0.5)
                false = len(sender.ids - scene.hear())
                verdict = scene.judged(90.0)
            bad = {status for status in sender.answers if status not in (202, 503)}
    except PermissionError as error:
        return [Line("D5", kind, what, f"not run: {error}", passes, False)]
    return [
        Line(
            "D5",
            kind,
            what,
            f"full after {filled_s:.0f} s and {before:,} events; {sender.answers[503]} x 503, Retry-After "
            f"{'said' if polite else 'NOT said'}; taken again {resumed_s:.1f} s after the broker came; "
            f"{false} false 202; {verdict}",
            passes,
            not false and polite and not bad and resumed_s < float("inf") and verdict.ok,
        )
    ]


def _retry_after(api: Api) -> bool:
    """Whether a refusal says when to come again; asked with batches until one is refused."""
    for number in range(50):
        answer = api.post([cloud_event(f"probe{number}-{n}", "probe", "i", pad="x" * 900) for n in range(500)])
        if answer.status_code == 503:
            return "retry-after" in answer.headers
    return False


def log_full(places: Places, kind: str, seed: int) -> list[Line]:
    """The event log's disk is full when events come; then there is room."""
    what, passes = (
        "event log's disk of 8 MiB full; then there is room",
        "nothing committed meanwhile, resumes by itself",
    )
    place, chance = places.new(kind), random.Random(seed)
    try:
        with ExitStack() as stack:
            stack.enter_context(small_disk(place.event_log))
            scene = stack.enter_context(closing(Scene(place)))
            worker = stack.enter_context(closing(Child(place).ready()))
            scene.send(records(happened(chance, 100)))
            begun = scene.judged()
            done = len(commits(place))
            filler = place.event_log / "filler"
            fill(filler)
            scene.send(records(happened(chance, 500, start=100)))
            time.sleep(6.0)
            meanwhile, half = len(commits(place)) - done, scene.verdict().half
            filler.unlink()
            freed = time.monotonic()
            verdict = scene.judged(60.0)
            resumed_s = time.monotonic() - freed
            alive = worker.process.poll() is None
    except PermissionError as error:
        return [Line("D5", kind, what, f"not run: {error}", passes, False)]
    return [
        Line(
            "D5",
            kind,
            what,
            f"{meanwhile} commits meanwhile, {half} half files; {resumed_s:.1f} s after there was room: {verdict}",
            passes,
            begun.ok and verdict.ok and not meanwhile and not half and alive,
        )
    ]


def fill(file: Path) -> None:
    """Write until the disk is full."""
    with file.open("wb", buffering=0) as out, suppress(OSError):
        while True:
            out.write(bytes(4096))
