"""The worker's commands that look after what is kept: compact, rebuild, verify, damaged, groups, export,
erase."""

from __future__ import annotations

import argparse
import logging
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from features.events.change_feed import changes_topic
from features.events.dead_letters import DeadLetter, dead_topic
from features.events.stream.port import Stream
from features.history.compaction import compact
from features.history.event_log import EventLog
from features.history.privacy import erase_viewer, export_viewer
from features.settings import Settings
from features.state.keys import VIEWERS
from features.state.online.memory import MemoryStore
from features.state.online.port import OnlineStore
from features.state.quarantine import quarantined
from features.worker.lagging_groups import DELETE_HINT, delete_group, describe, list_groups
from features.worker.rebuild import from_log, from_stream, rebuild
from features.worker.rebuild_fence import rebuild_started_at
from features.worker.verify import find_differences, replay_log
from features.worker.worker import Worker
from recsys.domain.decay import DAY_S
from recsys.domain.errors import Unavailable

COMPACT_EVERY_S = 300.0
COMPACT_MIN_FILES = 32
"""A day's files are compacted beside a running worker when there are so many."""

MAX_LISTED = 1000
"""Differences that are named one by one; all are counted."""

EXIT_INCONCLUSIVE = 3
"""Exit code of a `verify` that found nothing but what an erasure explains: only after a rebuild it can tell."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CommandContext:
    """What the commands work on."""

    stream: Stream
    online: OnlineStore
    log: EventLog
    settings: Settings

    @property
    def ttl_s(self) -> float:
        """After this long without an event a viewer is forgotten."""
        return self.settings.viewer_ttl_days * DAY_S

    @property
    def item_ttl_s(self) -> float:
        """And an item."""
        return self.settings.item_ttl_days * DAY_S

    def worker(self, online: OnlineStore) -> Worker:
        """One that folds into this store."""
        return Worker(
            self.stream,
            online,
            self.log,
            topic=self.settings.topic,
            group=self.settings.group,
            viewer_ttl_s=self.ttl_s,
            item_ttl_s=self.item_ttl_s,
        )


def add_commands(what: Any) -> None:
    """The commands, for the parser of the worker's command line."""
    command = what.add_parser("compact", help="make one file a day of the event log's many")
    command = what.add_parser(
        "rebuild", help="wipe the online store and fold it anew, one rebuild at a time; running workers wait"
    )
    command.add_argument(
        "--from",
        dest="origin",
        choices=["log", "stream"],
        default="log",
        help="what is folded: the event log (default), or what the stream still has; the log is given what it lost",
    )
    what.add_parser("verify", help="compare the online store with a replay of the event log")
    command = what.add_parser("damaged", help="damaged states that were set aside; of one key, their bytes as well")
    command.add_argument("key", metavar="KEY", nargs="?", help="as the list names it")
    command = what.add_parser("groups", help="groups that have not passed all of the embedded stream, which keeps it")
    command.add_argument("--drop", metavar="NAME", help="forget a group that is gone for good: it keeps nothing then")
    of_viewers = {"export": "all that is held of a viewer, as JSON lines", "erase": "forget a viewer for good"}
    for name, about in of_viewers.items():
        command = what.add_parser(name, help=about)
        command.add_argument("viewer", metavar="VIEWER", help="the viewer_id of the events")


def _compact(kept: CommandContext, _: argparse.Namespace) -> int:
    before = len(kept.log.files())  # not `Compacted`'s: a file of strays is merged twice, and counted twice there
    compact(kept.log, wait=True)
    print(f"{before:,} files became {len(kept.log.files()):,}")
    return 0


def _rebuild(kept: CommandContext, said: argparse.Namespace) -> int:
    began, unreadable = time.monotonic(), 0

    def set_aside(_: DeadLetter) -> None:
        nonlocal unreadable
        unreadable += 1

    kept.log.erasures.sync_with(kept.online)
    kept.log.epochs.restore(kept.online, kept.settings.topic)
    worker = kept.worker(kept.online)
    sources = (
        from_log(kept.log)
        if said.origin == "log"
        else from_stream(kept.stream, kept.log, kept.settings.topic, set_aside, worker.log_name())
    )
    events = rebuild(worker, kept.online, sources, time.time(), kept.ttl_s, _progress, kept.item_ttl_s)
    took_s = time.monotonic() - began
    if said.origin == "stream":
        _report_discarded(kept)
    aside = f", {unreadable:,} unreadable messages left out" if unreadable else ""
    print(
        f"rebuilt from {events:,} events of the {said.origin}{aside} in {took_s:.1f} s: {events / took_s:,.0f} a second"
    )
    return 0


def _report_discarded(kept: CommandContext) -> None:
    """What a rebuild from the stream could not see."""
    topic = kept.settings.topic
    for partition in range(kept.stream.partitions(topic)):
        if first := kept.stream.oldest(topic, partition):
            print(f"{topic}/{partition} begins at {first:,}: what was before has left the stream and is not in the "
                  "store now; the event log has it (rebuild --from log)")  # fmt: skip


def _progress(events: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{events:,} events", end="", file=sys.stderr, flush=True)


def _verify(kept: CommandContext, _: argparse.Namespace) -> int:
    """0 when the store is what the log says, 1 when not, 3 when only sums differ and that may be an erasure's doing.

    What an erased viewer added to items and audiences stays in the store until a rebuild: only until then is it an
    excuse.
    """
    into, now = MemoryStore(), time.time()
    anew = {one.key: one.at for one in quarantined(kept.online) if not one.repaired}
    events = replay_log(kept.log, kept.worker(into), into, now, kept.ttl_s, kept.item_ttl_s)
    since = rebuild_started_at(kept.online)
    erased, found, sums = sum(at >= since for at in kept.log.erasures.with_data().values()), 0, 0
    for key, what in find_differences(kept.online, into, now, kept.ttl_s, kept.item_ttl_s):
        found += 1
        sums += not key.startswith(VIEWERS) and key not in anew
        if found <= MAX_LISTED:
            began = f"; damaged, and begun anew at {rfc3339(anew[key])}" if key in anew else ""
            print(f"{key}\t{what}{began}")
    print(f"{found:,} differences against {events:,} events of the log")
    if erased and sums:
        print(f"{sums:,} are of items and audiences: not judged, since they may hold what {erased:,} viewers added who "
              "were erased after the last rebuild; rebuild, and verify again")  # fmt: skip
        return 1 if found > sums else EXIT_INCONCLUSIVE
    return 1 if found else 0


def _quarantine(kept: CommandContext, said: argparse.Namespace) -> int:
    """Lists them; of one key says their bytes as well, in base64."""
    for one in quarantined(kept.online, said.key):
        became = "made again from the event log" if one.repaired else "begun anew: say `recsys-worker rebuild`"
        print(f"{one.key}\t{len(one.raw)} bytes\t{rfc3339(one.at)}\t{one.cause}\t{became}")
        if said.key:
            print(b64encode(one.raw).decode())
    return 0


def _export(kept: CommandContext, said: argparse.Namespace) -> int:
    for line in export_viewer(kept.log, kept.online, said.viewer, stream=kept.stream, topic=kept.settings.topic):
        sys.stdout.write(line.decode())
    return 0


def _erase(kept: CommandContext, said: argparse.Namespace) -> int:
    settings = kept.settings
    did = erase_viewer(
        kept.log, kept.online, said.viewer, time.time(), stream=kept.stream, topic=settings.topic, group=settings.group
    )
    state = "the state" if did.had_state else "no state"
    print(f"erased {state} and {did.events:,} events; {did.files:,} files of the log were written anew")
    if did.messages_left is None:
        print("the stream keeps its messages until its retention ends; nobody reads the viewer's any more")
    elif did.messages_left and kept.stream.retention is not None:
        now = time.time()
        held = kept.stream.retention.backlog(settings.topic, float("inf"), [settings.group], said.viewer)
        print(f"{did.messages_left:,} messages of the viewer stay in the stream until these groups have passed them: "
              f"{describe(held, now)}. The workers fold none of them. Once passed they leave with another erasure, or "
              f"when they are {settings.stream_days:,} days old. A group that is gone for good: "
              f"{DELETE_HINT}")  # fmt: skip
    return 0


def _groups(kept: CommandContext, said: argparse.Namespace) -> int:
    """Return 1 when there is no such group to delete, and for a broker, which manages its groups itself."""
    retention = kept.stream.retention
    if retention is None:
        print("recsys-worker groups: the stream is a broker, whose retention waits for no group; list and delete its "
              "consumer groups with the broker's own tools", file=sys.stderr)  # fmt: skip
        return 1
    if said.drop is None:
        list_groups(retention, kept.settings, time.time())
    elif delete_group(retention, kept.settings, said.drop):
        print(f"{said.drop} keeps nothing any more; what is old leaves with the workers' next look")
    else:
        print(f"recsys-worker: no group {said.drop} keeps anything here", file=sys.stderr)
        return 1
    return 0


def rfc3339(at: float) -> str:
    """A moment for people.

    >>> rfc3339(0.0)
    '1970-01-01T00:00:00Z'
    """
    return datetime.fromtimestamp(int(at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


COMMANDS: Mapping[str, Callable[[CommandContext, argparse.Namespace], int]] = {
    "compact": _compact,
    "rebuild": _rebuild,
    "verify": _verify,
    "damaged": _quarantine,
    "groups": _groups,
    "export": _export,
    "erase": _erase,
}


def apply_retention(stream: Stream, settings: Settings, now: float) -> None:
    """Delete messages older than `stream_days` from an embedded stream, dead letters included. Raises Unavailable."""
    if (retention := stream.retention) is None:
        return
    before, dead = now - settings.stream_days * DAY_S, dead_topic(settings.topic)
    retention.apply_retention(settings.topic, before, [settings.group])
    retention.apply_retention(changes_topic(settings.topic), before)
    if left := retention.apply_retention(dead, before):
        said = "%d dead letters, or notes of their replay, are older than %d days and have left %s"
        logger.warning(said, left, settings.stream_days, dead)


@contextmanager
def background_compaction(log: EventLog, also: Callable[[], None], every_s: float = COMPACT_EVERY_S) -> Iterator[None]:
    """Compact days of many files now and then while the block runs, and do something else, in a thread that nobody
    waits for."""
    stop = threading.Event()

    def tidy() -> None:
        while not stop.wait(every_s):
            for work in (lambda: compact(log, COMPACT_MIN_FILES), also):  # one that fails costs the other nothing
                try:
                    work()
                except Unavailable as error:
                    logger.warning("tidying up: %s; trying again in %.0f s", error, every_s)
                except Exception:  # a bug: it is seen, and the thread goes on
                    logger.exception("tidying up; trying again in %.0f s", every_s)

    thread = threading.Thread(target=tidy, name="tidying", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
