"""The worker's commands that look after what is kept: compact, rebuild, verify, export, erase."""

from __future__ import annotations

import argparse
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from features.codec import VIEWERS
from features.offline.compact import compact
from features.offline.log import EventLog
from features.online import OnlineStore
from features.online.memory import MemoryStore
from features.stream import Stream
from features.viewers import erase_viewer, export_viewer
from features.worker.dead import DeadLetter
from features.worker.rebuild import from_log, from_stream, rebuild, rebuilt_at
from features.worker.verify import differences, replayed
from features.worker.worker import Worker
from recsys.errors import Unavailable
from recsys.settings import Settings
from recsys.state import DAY_S

TIDY_EVERY_S = 300.0
TIDY_FROM = 32
"""A day's files are compacted beside a running worker when there are so many."""

NAMED = 1000
"""Differences that are named one by one; all are counted."""

NOT_JUDGED = 3
"""Exit code of a `verify` that found nothing but what an erasure explains: only after a rebuild it can tell."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kept:
    """What the commands work on."""

    stream: Stream
    online: OnlineStore
    log: EventLog
    settings: Settings

    @property
    def ttl_s(self) -> float:
        """After this long without an event a viewer is forgotten."""
        return self.settings.viewer_ttl_days * DAY_S

    def worker(self, online: OnlineStore) -> Worker:
        """One that folds into this store."""
        said = self.settings
        return Worker(self.stream, online, self.log, topic=said.topic, group=said.group, viewer_ttl_s=self.ttl_s)


def add_commands(what: Any) -> None:
    """The commands, for the parser of the worker's command line."""
    command = what.add_parser("compact", help="make one file a day of the event log's many")
    command = what.add_parser("rebuild", help="wipe the online store and fold it anew; stop all workers first")
    command.add_argument("--from", dest="origin", choices=["log", "stream"], default="log")
    what.add_parser("verify", help="compare the online store with a replay of the event log")
    of_viewers = {"export": "all that is held of a viewer, as JSON lines", "erase": "forget a viewer for good"}
    for name, about in of_viewers.items():
        command = what.add_parser(name, help=about)
        command.add_argument("viewer", metavar="VIEWER")


def _compact(kept: Kept, _: argparse.Namespace) -> int:
    before = len(kept.log.files())  # not `Compacted`'s: a file of strays is merged twice, and counted twice there
    compact(kept.log, wait=True)
    print(f"{before:,} files became {len(kept.log.files()):,}")
    return 0


def _rebuild(kept: Kept, said: argparse.Namespace) -> int:
    began, unreadable = time.monotonic(), 0

    def set_aside(_: DeadLetter) -> None:
        nonlocal unreadable
        unreadable += 1

    kept.log.erased.agree_with(kept.online)
    kept.log.lives.impose(kept.online, kept.settings.topic)
    worker = kept.worker(kept.online)
    sources = (
        from_log(kept.log)
        if said.origin == "log"
        else from_stream(kept.stream, kept.log, kept.settings.topic, set_aside, worker.log_name())
    )
    events = rebuild(worker, kept.online, sources, time.time(), kept.ttl_s, _progress)
    took_s = time.monotonic() - began
    aside = f", {unreadable:,} unreadable messages left out" if unreadable else ""
    print(
        f"rebuilt from {events:,} events of the {said.origin}{aside} in {took_s:.1f} s: {events / took_s:,.0f} a second"
    )
    return 0


def _progress(events: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{events:,} events", end="", file=sys.stderr, flush=True)


def _verify(kept: Kept, _: argparse.Namespace) -> int:
    """0 when the store is what the log says, 1 when not, 3 when only sums differ and that may be an erasure's doing.

    What an erased viewer added to items and audiences stays in the store until a rebuild: only until then is it an
    excuse.
    """
    into, now = MemoryStore(), time.time()
    events = replayed(kept.log, kept.worker(into), into, now, kept.ttl_s)
    since = rebuilt_at(kept.online)
    erased, found, sums = sum(at >= since for at in kept.log.erased.all().values()), 0, 0
    for key, what in differences(kept.online, into, now, kept.ttl_s):
        found += 1
        sums += not key.startswith(VIEWERS)
        if found <= NAMED:
            print(f"{key}\t{what}")
    print(f"{found:,} differences against {events:,} events of the log")
    if erased and sums:
        print(f"{sums:,} are of items and audiences: not judged, since they may hold what {erased:,} viewers added who "
              "were erased after the last rebuild; rebuild, and verify again")  # fmt: skip
        return 1 if found > sums else NOT_JUDGED
    return 1 if found else 0


def _export(kept: Kept, said: argparse.Namespace) -> int:
    for line in export_viewer(kept.log, kept.online, said.viewer):
        sys.stdout.write(line.decode())
    return 0


def _erase(kept: Kept, said: argparse.Namespace) -> int:
    did = erase_viewer(kept.log, kept.online, said.viewer, time.time())
    state = "the state" if did.state else "no state"
    print(f"erased {state} and {did.events:,} events; {did.files:,} files of the log were written anew")
    return 0


COMMANDS: Mapping[str, Callable[[Kept, argparse.Namespace], int]] = {
    "compact": _compact,
    "rebuild": _rebuild,
    "verify": _verify,
    "export": _export,
    "erase": _erase,
}


@contextmanager
def tidying(log: EventLog, every_s: float = TIDY_EVERY_S) -> Iterator[None]:
    """Compact days of many files now and then while the block runs, in a thread that nobody waits for."""
    stop = threading.Event()

    def tidy() -> None:
        while not stop.wait(every_s):
            try:
                compact(log, TIDY_FROM)
            except Unavailable as error:
                logger.warning("compaction: %s; trying again in %.0f s", error, every_s)

    thread = threading.Thread(target=tidy, name="compaction", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
