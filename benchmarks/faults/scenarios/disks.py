"""D5: disks of 8 MiB that are full, for the spool and for the event log; `audit.py` has the control plane's."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from benchmarks.faults.harness.api import ApiProcess, Sender, cloud_event
from benchmarks.faults.harness.worker_process import WorkerProcess, commits, wait_until
from benchmarks.faults.harness.environment import SESSION_S, Environments
from benchmarks.faults.report import Line
from benchmarks.faults.harness.scenario import Scenario
from benchmarks.faults.harness.traffic import make_events, to_records
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


def spool_disk_full(environments: Environments, kind: str) -> list[Line]:
    """The broker is away and the spool's disk runs full; then the broker comes."""
    what = "spool's disk of 8 MiB full, broker away; then the broker comes"
    passes = "no false 202, 503 with Retry-After, resumes by itself"
    given = environments.new(kind)
    try:
        with ExitStack() as stack:
            stack.enter_context(small_disk(given.home / "spool"))
            server = stack.enter_context(closing(broker(given.home / "broker")))
            env = replace(given, stream_url=f"kafka://127.0.0.1:{server.port}?session_s={SESSION_S}")
            api = stack.enter_context(closing(ApiProcess(env))).wait_ready()
            sender = stack.enter_context(closing(Sender(api, "d5", size=200, every_s=0.0, padding=300)))
            sender.start()
            filled_s = wait_until(lambda: sender.statuses[503] >= 5, 120.0)
            polite = _retry_after(api)
            before = len(sender.ids)
            server.start()
            resumed_s = wait_until(lambda: len(sender.ids) > before + 1000, 60.0)
            sender.stop()
            with closing(Scenario(env)) as scenario, closing(WorkerProcess(env).wait_ready()):
                wait_until(lambda: sender.ids <= scenario.read_new(), 90.0, every_s=0.5)
                false = len(sender.ids - scenario.read_new())
                verdict = scenario.wait_for_verdict(90.0)
            bad = {status for status in sender.statuses if status not in (202, 503)}
    except PermissionError as error:
        return [Line("D5", kind, what, f"not run: {error}", passes, False)]
    return [
        Line(
            "D5",
            kind,
            what,
            f"full after {filled_s:.0f} s and {before:,} events; {sender.statuses[503]} x 503, Retry-After "
            f"{'said' if polite else 'NOT said'}; taken again {resumed_s:.1f} s after the broker came; "
            f"{false} false 202; {verdict}",
            passes,
            not false and polite and not bad and resumed_s < float("inf") and verdict.ok,
        )
    ]


def _retry_after(api: ApiProcess) -> bool:
    """Whether a refusal says when to come again; asked with batches until one is refused."""
    for number in range(50):
        answer = api.post([cloud_event(f"probe{number}-{n}", "probe", "i", pad="x" * 900) for n in range(500)])
        if answer.status_code == 503:
            return "retry-after" in answer.headers
    return False


def event_log_disk_full(environments: Environments, kind: str, seed: int) -> list[Line]:
    """The event log's disk is full when events come; then there is room."""
    what, passes = (
        "event log's disk of 8 MiB full; then there is room",
        "nothing committed meanwhile, resumes by itself",
    )
    env, chance = environments.new(kind), random.Random(seed)
    try:
        with ExitStack() as stack:
            stack.enter_context(small_disk(env.event_log))
            scenario = stack.enter_context(closing(Scenario(env)))
            worker = stack.enter_context(closing(WorkerProcess(env).wait_ready()))
            scenario.send(to_records(make_events(chance, 100)))
            begun = scenario.wait_for_verdict()
            done = len(commits(env))
            filler = env.event_log / "filler"
            fill(filler)
            scenario.send(to_records(make_events(chance, 500, start=100)))
            time.sleep(6.0)
            meanwhile, half = len(commits(env)) - done, scenario.verdict().truncated_files
            filler.unlink()
            freed = time.monotonic()
            verdict = scenario.wait_for_verdict(60.0)
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
