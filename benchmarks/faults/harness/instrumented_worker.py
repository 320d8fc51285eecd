"""The real `mainstay worker` with wrapped adapters, which kills or stops itself at a named point of its step.

    python -m benchmarks.faults.harness.instrumented_worker [--journal FILE] [--at POINT:N:kill] [--reject-kind KIND]
        -- FLAGS OF `mainstay worker`

Points are counted from SIGUSR1 on, or from the start with `--armed`. When the worker reaches POINT for the N-th time,
it sends itself SIGKILL (`kill`) or SIGSTOP (`stop`). The journal gets a line `unix-seconds partition offset` for every
commit. `--reject-kind KIND` simulates an older release that does not know an event kind.
"""

# mypy: disable-error-code="attr-defined, assignment"
from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

POINTS = (
    "polled", "read", "writing", "written", "dead_letters",
    "appending", "synced", "appended", "committing", "committed",
)  # fmt: skip
"""In the order of a step: after a poll, after reading states, half-way through writing states, after writing them,
after publishing dead letters, half-way through a Parquet file, after its fsync and before its rename, after the append
to the event log, before the commit, after the commit."""


class Trigger:
    """A trigger that kills or stops this process when a point is reached for the n-th time after arming."""

    def __init__(self, spec: str, armed: bool) -> None:
        """`spec`: POINT:N:kill or POINT:N:stop; empty: never."""
        self.point, n, action = spec.split(":") if spec else ("", "0", "kill")
        self._remaining, self.armed = int(n), armed
        self._signal = signal.SIGKILL if action == "kill" else signal.SIGSTOP

    def matches(self, point: str) -> bool:
        """Count the point; returns whether the trigger must fire now."""
        if not self.armed or point != self.point:
            return False
        self._remaining -= 1
        return self._remaining == 0

    def reach(self, point: str) -> None:
        """Count the point and fire if this is the n-th time."""
        if self.matches(point):
            self.fire()

    def fire(self) -> None:
        """Send the signal to this process."""
        os.kill(os.getpid(), self._signal)


class Instrumented:
    """A wrapper that delegates everything else to the wrapped adapter."""

    def __init__(self, inner: Any, trigger: Trigger, journal: Path | None = None) -> None:
        self._inner, self._trigger, self._journal = inner, trigger, journal

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class InstrumentedStore(Instrumented):
    """An online store with the points of reading and writing states."""

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        values: list[bytes | None] = self._inner.get(keys)
        self._trigger.reach("read")
        return values

    def put(self, entries: Mapping[str, bytes], ttl_s: float | None = None) -> None:
        self._write(self._inner.put, entries, ttl_s)

    def compare_and_set(self, entries: Mapping[str, Any], ttl_s: float | None = None) -> Any:
        return self._write(self._inner.compare_and_set, entries, ttl_s)

    def _write(self, write: Any, entries: Mapping[str, Any], ttl_s: float | None) -> Any:
        if self._trigger.matches("writing"):
            write(dict(list(entries.items())[: len(entries) // 2]), ttl_s)
            self._trigger.fire()
        result = write(entries, ttl_s)
        self._trigger.reach("written")
        return result


class InstrumentedStream(Instrumented):
    """A stream whose publishing of dead letters is a point."""

    def publish(self, topic: str, records: Any) -> None:
        self._inner.publish(topic, records)
        self._trigger.reach("dead_letters")

    def consumer(self, topic: str, group: str) -> Any:
        return InstrumentedConsumer(self._inner.consumer(topic, group), self._trigger, self._journal)


class InstrumentedConsumer(Instrumented):
    """A consumer with the points of polling and committing; writes commits to the journal."""

    def poll(self, limit: int, timeout_s: float) -> Any:
        messages = self._inner.poll(limit, timeout_s)
        if messages:
            self._trigger.reach("polled")
        return messages

    def commit(self, offsets: Mapping[int, int]) -> None:
        self._trigger.reach("committing")
        self._inner.commit(offsets)
        if self._journal is not None:
            with self._journal.open("a") as journal:
                journal.writelines(f"{time.time()} {partition} {offset}\n" for partition, offset in offsets.items())
        self._trigger.reach("committed")


def _instrument_files(trigger: Trigger) -> None:
    """Patch `pyarrow.parquet.write_table` and `os.fsync`, through which all Parquet files are written."""
    import pyarrow.parquet as pq

    write_table, fsync, rename = pq.write_table, os.fsync, os.rename

    def write_table_or_half(table: Any, file: Any, **options: Any) -> None:
        if trigger.matches("appending"):
            write_table(table.slice(0, table.num_rows // 2), file, **options)
            if hasattr(file, "flush"):
                file.flush()
                file.truncate(file.tell() // 2)
            trigger.fire()
        write_table(table, file, **options)

    def fsync_and_reach(handle: int) -> None:
        fsync(handle)
        if os.readlink(f"/proc/self/fd/{handle}").endswith(".tmp"):
            trigger.reach("synced")

    pq.write_table, os.fsync, os.rename = write_table_or_half, fsync_and_reach, rename


def _reject_kind(kind: str) -> None:
    """Patch the decoder to reject an event kind, as an older release would."""
    from features.events import decode as events
    from recsys.domain.errors import EventError

    decode = events.decode

    def decode_as_older_release(raw: bytes) -> events.ViewerEvent:
        event = decode(raw)
        if event.kind == kind:
            raise EventError(f"unknown kind {kind}")
        return event

    events.decode = decode_as_older_release


def main(argv: Sequence[str]) -> int:
    """Run the worker with the instrumentation."""
    parser = argparse.ArgumentParser(prog="instrumented_worker")
    parser.add_argument("--journal", type=Path)
    parser.add_argument("--at", default="")
    parser.add_argument("--armed", action="store_true")
    parser.add_argument("--reject-kind", default="")
    parser.add_argument("flags", nargs="*")
    args = parser.parse_args(argv)
    trigger = Trigger(args.at, args.armed)
    signal.signal(signal.SIGUSR1, lambda *_: setattr(trigger, "armed", True))
    if args.reject_kind:
        _reject_kind(args.reject_kind)
    _instrument_files(trigger)

    from features import cli
    from features.worker import main as worker
    from features.worker import worker as steps

    open_stream, open_online, append = worker.open_stream, worker.open_online, steps.EventLog.append

    def append_and_reach(self: Any, *arguments: Any, **keywords: Any) -> Any:
        result = append(self, *arguments, **keywords)
        trigger.reach("appended")
        return result

    worker.open_stream = lambda *a, **k: InstrumentedStream(open_stream(*a, **k), trigger, args.journal)
    worker.open_online = lambda *a, **k: InstrumentedStore(open_online(*a, **k), trigger)
    steps.EventLog.append = append_and_reach
    return cli.main(["worker", *args.flags])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
