"""D5: 8 MiB disks of the spool and of the event log are full. `audit.py` covers the disk of the control plane."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from benchmarks.faults.harness.api import ApiProcess, Sender, cloud_event
from benchmarks.faults.harness.environment import SESSION_S, Environment, EnvironmentFactory
from benchmarks.faults.harness.scenario import Scenario
from benchmarks.faults.harness.traffic import make_events, to_records
from benchmarks.faults.harness.worker_process import WorkerProcess, commits, wait_until
from benchmarks.faults.report import Line
from benchmarks.servers import broker

DISK = "8m"


@contextmanager
def small_disk(at: Path) -> Iterator[None]:
    """Mount an 8 MiB file system at `at`. Raises PermissionError if mounting is not permitted."""
    at.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(at)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        raise PermissionError("mounting a tmpfs is not permitted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(at)], check=False)


def spool_disk_full(environments: EnvironmentFactory, kind: str) -> list[Line]:
    """Fill the spool's disk while the broker is down, then start the broker; returns one result."""
    fault = "8 MiB disk of the spool full while the broker is down; then the broker starts"
    criterion = "no false 202, 503 with Retry-After, resumes by itself"
    base = environments.new(kind)
    try:
        with ExitStack() as stack:
            stack.enter_context(small_disk(base.home / "spool"))
            server = stack.enter_context(closing(broker(base.home / "broker")))
            env = replace(base, stream_url=f"kafka://127.0.0.1:{server.port}?session_s={SESSION_S}")
            api = stack.enter_context(closing(ApiProcess(env))).wait_ready()
            sender = stack.enter_context(closing(Sender(api, "d5", size=200, every_s=0.0, padding=300)))
            sender.start()
            filled_s = wait_until(lambda: sender.statuses[503] >= 5, 120.0)
            has_retry_after = _retry_after(api)
            n_before = len(sender.ids)
            server.start()
            resumed_s = wait_until(lambda: len(sender.ids) > n_before + 1000, 60.0)
            sender.stop()
            with closing(Scenario(env)) as scenario, closing(WorkerProcess(env).wait_ready()):
                wait_until(lambda: sender.ids <= scenario.read_new(), 90.0, every_s=0.5)
                n_false = len(sender.ids - scenario.read_new())
                verdict = scenario.wait_for_verdict(90.0)
            unexpected = {status for status in sender.statuses if status not in (202, 503)}
    except PermissionError as error:
        return [Line("D5", kind, fault, f"not run: {error}", criterion, False)]
    return [
        Line(
            "D5",
            kind,
            fault,
            f"full after {filled_s:.0f} s and {n_before:,} events; {sender.statuses[503]} x 503, Retry-After "
            f"{'present' if has_retry_after else 'MISSING'}; events accepted {resumed_s:.1f} s after its start; "
            f"{n_false} false 202; {verdict}",
            criterion,
            not n_false and has_retry_after and not unexpected and resumed_s < float("inf") and verdict.ok,
        )
    ]


def _retry_after(api: ApiProcess) -> bool:
    """Send batches until one is refused; returns whether the refusal has a Retry-After header."""
    for number in range(50):
        answer = api.post([cloud_event(f"probe{number}-{n}", "probe", "i", pad="x" * 900) for n in range(500)])
        if answer.status_code == 503:
            return "retry-after" in answer.headers
    return False


def event_log_disk_full(environments: EnvironmentFactory, kind: str, seed: int) -> list[Line]:
    """Fill the event log's disk while events arrive, then free it; returns one result."""
    fault, criterion = (
        "8 MiB disk of the event log full; then space is freed",
        "no commits while full, resumes by itself",
    )
    env, rng = environments.new(kind), random.Random(seed)
    try:
        with ExitStack() as stack:
            stack.enter_context(small_disk(env.event_log))
            scenario = stack.enter_context(closing(Scenario(env)))
            worker = stack.enter_context(closing(WorkerProcess(env).wait_ready()))
            scenario.send(to_records(make_events(rng, 100)))
            initial = scenario.wait_for_verdict()
            filler = env.event_log / "filler"
            fill(filler)
            commits_before = _settled_commits(env)
            scenario.send(to_records(make_events(rng, 500, start=100)))
            time.sleep(6.0)
            commits_during, truncated = len(commits(env)) - commits_before, scenario.verdict().truncated_files
            filler.unlink()
            freed = time.monotonic()
            verdict = scenario.wait_for_verdict(60.0)
            resumed_s = time.monotonic() - freed
            alive = worker.process.poll() is None
    except PermissionError as error:
        return [Line("D5", kind, fault, f"not run: {error}", criterion, False)]
    return [
        Line(
            "D5",
            kind,
            fault,
            f"{commits_during} commits while full, {truncated} truncated files; "
            f"{resumed_s:.1f} s after space was freed: {verdict}",
            criterion,
            initial.ok and verdict.ok and not commits_during and not truncated and alive,
        )
    ]


def _settled_commits(env: Environment) -> int:
    """Return the number of commits once there are no new ones: a step is committed after its states are written."""
    count = -1
    while count != (count := len(commits(env))):
        time.sleep(1.0)
    return count


def fill(file: Path) -> None:
    """Write until the disk is full."""
    with file.open("wb", buffering=0) as out, suppress(OSError):
        while True:
            out.write(bytes(4096))
