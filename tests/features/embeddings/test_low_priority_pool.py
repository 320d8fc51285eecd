"""Worker processes of a pool: low priority, one thread, unaffected by Ctrl-C, and never orphaned."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from features.low_priority_pool import NICE, low_priority_pool

PARENT = """
import os, signal, sys, time
from features.low_priority_pool import low_priority_pool
pool = low_priority_pool(2, 600)
pids = {pool.submit(os.getpid).result()} | set(pool._processes)
pool.submit(time.sleep, 600)  # one worker is busy, the other idle
time.sleep(0.2)
print(*pids, flush=True)
signal.pause()
"""


def is_running(pid: int) -> bool:
    """Return whether the process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def await_end(pids: list[int], within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while any(map(is_running, pids)):
        assert time.monotonic() < deadline, "workers are still running"
        time.sleep(0.05)


def test_worker_has_low_priority_one_thread_and_ignores_interrupts() -> None:
    def prepare() -> None:  # local functions are pickled by value: workers cannot import this module
        os.environ["PREPARED"] = "yes"

    pool = low_priority_pool(1, 60, prepare)
    expected_priority = os.getpriority(os.PRIO_PROCESS, 0) + NICE
    assert pool.submit(os.getpriority, os.PRIO_PROCESS, 0).result(60) == expected_priority
    assert pool.submit(os.getenv, "OMP_NUM_THREADS").result(60) == "1"
    assert pool.submit(os.getenv, "PREPARED").result(60) == "yes"
    assert pool.submit(signal.getsignal, signal.SIGINT).result(60) is signal.SIG_IGN
    pids = list(pool._processes)
    pool.submit(time.sleep, 600)
    pool.shutdown(kill_workers=True)
    assert not any(map(is_running, pids))


@pytest.mark.skipif(not Path("/proc").exists(), reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_worker_outlives_a_killed_parent(number: signal.Signals) -> None:
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        assert all(map(is_running, pids))
        parent.send_signal(number)
        parent.wait(10)
    try:
        await_end(pids, within_s=10)
    finally:
        for pid in filter(is_running, pids):
            os.kill(pid, signal.SIGKILL)


def test_idle_workers_exit_and_new_ones_start_on_demand() -> None:
    pool = low_priority_pool(1, 2.0)
    first = pool.submit(os.getpid).result(60)
    await_end([first], within_s=20)
    while pool._processes:  # loky warns when a task arrives before it has noticed the exit
        time.sleep(0.01)
    assert pool.submit(os.getpid).result(60) != first
    pool.shutdown(kill_workers=True)
