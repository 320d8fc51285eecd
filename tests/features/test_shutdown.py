"""A process ends within the limit after SIGTERM, even if it hangs."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import signal, sys, time
from features import shutdown
shutdown.exit_within.__defaults__ = (0.2, *shutdown.exit_within.__defaults__[1:])
signal.signal(signal.SIGTERM, lambda *_: None)
shutdown.limit_shutdown()
print("ready", flush=True)
while True:
    time.sleep(60)
"""


@pytest.mark.parametrize("repeated", [1, 3])
def test_a_process_that_hangs_ends_after_the_limit_with_code_0(repeated: int) -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        for _ in range(repeated):
            process.send_signal(signal.SIGTERM)
        try:
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0
    assert b"shutdown incomplete" in errors
