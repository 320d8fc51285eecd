"""`mainstay worker`, watched: the real main with its adapters wrapped, so that it dies or stops at a named point.

    python -m benchmarks.faults.instrumented_worker [--journal FILE] [--at POINT:N:kill] [--refusing KIND] -- FLAGS

Points are counted from SIGUSR1 on, or from the start with `--armed`. At the N-th time that the worker passes POINT it
sends itself SIGKILL (`kill`) or SIGSTOP (`stop`). The journal gets a line `unix-seconds partition offset` for every
commit. `--refusing KIND` makes it an older release that does not know an event kind.
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
    "polled", "read", "writing", "written", "letters", "appending", "synced", "appended", "committing", "committed",
)  # fmt: skip
"""In the order of a step: after a poll, after reading states, half-way through writing states, after it, after dead
letters, half-way through a Parquet file, after its fsync and before its rename, after appending, before and after the
commit."""


class Trigger:
    """Fires at the n-th passing of a point, once it is armed."""

    def __init__(self, said: str, armed: bool) -> None:
        """`said`: POINT:N:kill|stop, or empty for never."""
        self.point, n, action = said.split(":") if said else ("", "0", "kill")
        self._left, self.armed = int(n), armed
        self._signal = signal.SIGKILL if action == "kill" else signal.SIGSTOP

    def due(self, point: str) -> bool:
        """Whether this passing is the one."""
        if not self.armed or point != self.point:
            return False
        self._left -= 1
        return self._left == 0

    def passed(self, point: str) -> None:
        """Fire if it is time."""
        if self.due(point):
            self.fire()

    def fire(self) -> None:
        """Hurt this process."""
        os.kill(os.getpid(), self._signal)


class Wrapped:
    """Everything else as the wrapped adapter does it."""

    def __init__(self, inner: Any, trigger: Trigger, journal: Path | None = None) -> None:
        self._inner, self._trigger, self._journal = inner, trigger, journal

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class WatchedStore(Wrapped):
    """An online store."""

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        found: list[bytes | None] = self._inner.get(keys)
        self._trigger.passed("read")
        return found

    def put(self, entries: Mapping[str, bytes], ttl_s: float | None = None) -> None:
        self._halved(self._inner.put, entries, ttl_s)

    def swap(self, entries: Mapping[str, Any], ttl_s: float | None = None) -> Any:
        return self._halved(self._inner.swap, entries, ttl_s)

    def _halved(self, write: Any, entries: Mapping[str, Any], ttl_s: float | None) -> Any:
        if self._trigger.due("writing"):
            write(dict(list(entries.items())[: len(entries) // 2]), ttl_s)
            self._trigger.fire()
        answer = write(entries, ttl_s)
        self._trigger.passed("written")
        return answer


class WatchedStream(Wrapped):
    """A log."""

    def publish(self, topic: str, records: Any) -> None:
        self._inner.publish(topic, records)
        self._trigger.passed("letters")

    def consumer(self, topic: str, group: str) -> Any:
        return WatchedConsumer(self._inner.consumer(topic, group), self._trigger, self._journal)


class WatchedConsumer(Wrapped):
    """A member of the group."""

    def poll(self, limit: int, timeout_s: float) -> Any:
        messages = self._inner.poll(limit, timeout_s)
        if messages:
            self._trigger.passed("polled")
        return messages

    def commit(self, offsets: Mapping[int, int]) -> None:
        self._trigger.passed("committing")
        self._inner.commit(offsets)
        if self._journal is not None:
            with self._journal.open("a") as journal:
                journal.writelines(f"{time.time()} {partition} {offset}\n" for partition, offset in offsets.items())
        self._trigger.passed("committed")


def _watch_files(trigger: Trigger) -> None:
    """Parquet files are written through pyarrow and made durable through `os.fsync`, whoever calls them."""
    import pyarrow.parquet as pq

    write_table, fsync, rename = pq.write_table, os.fsync, os.rename

    def writing(table: Any, where: Any, **options: Any) -> None:
        if trigger.due("appending"):
            write_table(table.slice(0, table.num_rows // 2), where, **options)
            if hasattr(where, "flush"):
                where.flush()
                where.truncate(where.tell() // 2)
            trigger.fire()
        write_table(table, where, **options)

    def syncing(handle: int) -> None:
        fsync(handle)
        if os.readlink(f"/proc/self/fd/{handle}").endswith(".tmp"):
            trigger.passed("synced")

    pq.write_table, os.fsync, os.rename = writing, syncing, rename


def _refuse(kind: str) -> None:
    """Do not know an event kind, as an older release would not."""
    from features.events import decode as events
    from recsys.domain.errors import EventError

    decode = events.decode

    def older(raw: bytes) -> events.ViewerEvent:
        event = decode(raw)
        if event.kind == kind:
            raise EventError(f"unknown kind {kind}")
        return event

    events.decode = older


def main(argv: Sequence[str]) -> int:
    """Run the worker."""
    parser = argparse.ArgumentParser(prog="watched")
    parser.add_argument("--journal", type=Path)
    parser.add_argument("--at", default="")
    parser.add_argument("--armed", action="store_true")
    parser.add_argument("--refusing", default="")
    parser.add_argument("flags", nargs="*")
    asked = parser.parse_args(argv)
    trigger = Trigger(asked.at, asked.armed)
    signal.signal(signal.SIGUSR1, lambda *_: setattr(trigger, "armed", True))
    if asked.refusing:
        _refuse(asked.refusing)
    _watch_files(trigger)

    from features import cli
    from features.worker import main as worker
    from features.worker import worker as steps

    open_stream, open_online, append = worker.open_stream, worker.open_online, steps.EventLog.append

    def appended(self: Any, *said: Any, **more: Any) -> Any:
        answer = append(self, *said, **more)
        trigger.passed("appended")
        return answer

    worker.open_stream = lambda *a, **k: WatchedStream(open_stream(*a, **k), trigger, asked.journal)
    worker.open_online = lambda *a, **k: WatchedStore(open_online(*a, **k), trigger)
    steps.EventLog.append = appended
    return cli.main(["worker", *asked.flags])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
