"""No child process outlives the demo, whatever signals arrive, and each child has time to stop by itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CHILD = """
import os, pathlib, signal, sys, time
def end(*_):
    time.sleep(float(sys.argv[2]))
    pathlib.Path(sys.argv[1] + ".ended").touch()
    os._exit(0)
signal.signal(signal.SIGTERM, end)
pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
print("ready", flush=True)
while True:
    time.sleep(1)
"""
DEMO = """
import pathlib, signal, sys, time
from serving.demo.main import _interrupt
from serving.demo.processes import ProcessGroup, until
home, takes, stop_timeout_s = pathlib.Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, _interrupt)
try:
    with ProcessGroup(home, stop_timeout_s) as processes:
        for name in ("worker", "serve"):
            processes.start(name, "child", [str(home / name), takes])
        for line in processes.run("child", [str(home / "train"), takes]):
            until(lambda: all((home / name).exists() for name in ("worker", "serve")), 60)
            print(line, flush=True)
except KeyboardInterrupt:
    print("Stopped.", flush=True)
"""


def alive(pid: int) -> bool:
    """Return whether the process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc").exists(), reason="reads /proc")
@pytest.mark.parametrize(("takes_s", "stop_timeout_s", "ended"), [(1.0, 20.0, 3), (60.0, 1.5, 0)])
def test_repeated_interrupts_leave_no_child_process(
    tmp_path: Path, takes_s: float, stop_timeout_s: float, ended: int
) -> None:
    (tmp_path / "child.py").write_text(CHILD)
    environ = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    command = [sys.executable, "-c", DEMO, str(tmp_path), str(takes_s), str(stop_timeout_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ) as demo:
        assert demo.stdout is not None
        line = demo.stdout.readline()
        assert line == "ready\n", demo.communicate()
        pids = [int((tmp_path / name).read_text()) for name in ("worker", "serve", "train")]
        try:
            assert all(map(alive, pids))
            for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGINT):
                demo.send_signal(number)
                time.sleep(0.2)
            demo.wait(60)
            assert not any(map(alive, pids))
            assert len(list(tmp_path.glob("*.ended"))) == ended, "a child that stops in time is not killed"
        finally:
            for pid in filter(alive, pids):
                os.kill(pid, signal.SIGKILL)
        assert (demo.communicate(), demo.returncode) == (("Stopped.\n", ""), 0)
