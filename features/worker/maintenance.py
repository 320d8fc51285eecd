"""Maintenance of the event log, the online store and the embedded stream.

Each function of a command prints to stdout and returns an exit code.
"""

from __future__ import annotations

import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from features.commands.output import fail, rfc3339
from features.events.dead_letters import DeadLetter
from features.events.stream.connect import open_stream
from features.events.stream.port import Stream
from features.history.compaction import compact
from features.history.event_log import EventLog
from features.history.privacy import erase_viewer, export_viewer
from features.settings import Settings
from features.state.keys import VIEWERS
from features.state.online.connect import open_online
from features.state.online.memory import MemoryStore
from features.state.online.port import OnlineStore
from features.state.quarantine import CorruptState, quarantined
from features.worker.damage import damaged_databases
from features.worker.lagging_groups import DELETE_HINT, delete_group, describe, list_groups
from features.worker.rebuild import from_log, from_stream, rebuild
from features.worker.rebuild_fence import rebuild_started_at
from features.worker.verify import find_damaged_values, find_differences, replay_log
from features.worker.worker import Worker
from recsys.domain.decay import DAY_S

STORE_TIMEOUT_S = 10.0

MAX_LISTED = 1000
"""The number of differences that `verify` lists; it counts all of them."""

EXIT_INCONCLUSIVE = 3
"""The exit code of `verify` when an erasure since the last rebuild may explain all differences."""


@dataclass(frozen=True)
class CommandContext:
    """The stream, the stores and the settings that a maintenance command works on."""

    stream: Stream
    online: OnlineStore
    log: EventLog
    settings: Settings

    @property
    def ttl_s(self) -> float:
        """Seconds without an event after which a viewer's state is deleted."""
        return self.settings.viewer_ttl_days * DAY_S

    @property
    def item_ttl_s(self) -> float:
        """Seconds without an event after which an item's counts are deleted."""
        return self.settings.item_ttl_days * DAY_S

    def worker(self, online: OnlineStore) -> Worker:
        """Return a worker that folds into this store."""
        return Worker(
            self.stream,
            online,
            self.log,
            topic=self.settings.topic,
            group=self.settings.group,
            viewer_ttl_s=self.ttl_s,
            item_ttl_s=self.item_ttl_s,
        )


@contextmanager
def open_context(settings: Settings) -> Iterator[CommandContext]:
    """Open the stream and the stores for the time of the block. Raises InvalidInput for a bad URL, Unavailable."""
    with (
        closing(open_stream(settings.stream_url, partitions=settings.partitions)) as stream,
        closing(open_online(settings.online_url, STORE_TIMEOUT_S)) as online,
    ):
        yield CommandContext(stream, online, EventLog(Path(settings.event_log_dir)), settings)


def compact_log(settings: Settings) -> int:
    """Merge the files of each day. Raises Unavailable."""
    log = EventLog(Path(settings.event_log_dir))
    before = len(log.files())
    compact(log, wait=True)
    print(f"{before:,} files became {len(log.files()):,}")
    return 0


def rebuild_store(context: CommandContext, origin: Literal["log", "stream"]) -> int:
    """Wipe the online store and fold the event log, or what the stream still holds, into it. Raises Unavailable."""
    start, unreadable = time.monotonic(), 0

    def count_unreadable(_: DeadLetter) -> None:
        nonlocal unreadable
        unreadable += 1

    context.log.erasures.sync_with(context.online)
    context.log.epochs.restore(context.online, context.settings.topic)
    worker = context.worker(context.online)
    sources = (
        from_log(context.log)
        if origin == "log"
        else from_stream(context.stream, context.log, context.settings.topic, count_unreadable, worker.log_name())
    )
    with _progress("rebuild") as bar:
        events = rebuild(
            worker, context.online, sources, time.time(), context.ttl_s, lambda n: _advance(bar, n), context.item_ttl_s
        )
    took_s = time.monotonic() - start
    if origin == "stream":
        _report_discarded(context)
    _report_damaged_files(context.log)
    skipped = f", {unreadable:,} unreadable messages skipped" if unreadable else ""
    print(f"rebuilt from {events:,} events of the {origin}{skipped} in {took_s:.1f} s: {events / took_s:,.0f} a second")
    return 0


def _report_damaged_files(log: EventLog) -> bool:
    """Print which files of the event log are damaged; return whether there are any."""
    if report := log.damaged.report():
        print(f"event log: the events of damaged files are left out: {report}", file=sys.stderr)
    return report is not None


def _report_discarded(context: CommandContext) -> None:
    """Report partitions whose oldest messages the stream has deleted, since a rebuild from the stream lacks them."""
    topic = context.settings.topic
    for partition in range(context.stream.partitions(topic)):
        if first := context.stream.oldest(topic, partition):
            print(f"{topic}/{partition} begins at {first:,}: earlier messages have left the stream and are missing in "
                  "the online store; the event log has them (rebuild --from log)")  # fmt: skip


def _progress(name: str) -> tqdm[None]:
    """Return a progress bar on stderr that shows on a terminal only."""
    return tqdm(desc=name, unit=" events", leave=False, disable=not sys.stderr.isatty())


def _advance(bar: tqdm[None], events: int) -> None:
    bar.update(events - bar.n)


def verify_store(context: CommandContext) -> int:
    """Compare the online store with a replay of the event log.

    Return 0 when they are equal, 1 when not, and EXIT_INCONCLUSIVE when only sums of items and audiences differ and a
    viewer was erased since the last rebuild: the store keeps an erased viewer's contributions until a rebuild.
    Return 1 as well when values are damaged that no replay shows, or files of the event log. Raises Unavailable.
    """
    replay, now = MemoryStore(), time.time()
    incomplete = {state.key: state.at for state in quarantined(context.online) if not state.repaired}
    with _progress("replay") as bar:
        events = replay_log(
            context.log, context.worker(replay), replay, now, context.ttl_s, context.item_ttl_s,
            lambda n: _advance(bar, n),
        )  # fmt: skip
    since = rebuild_started_at(context.online)
    erased, differences, sums = sum(at >= since for at in context.log.erasures.with_data().values()), 0, 0
    for key, difference in find_differences(context.online, replay, now, context.ttl_s, context.item_ttl_s):
        differences += 1
        sums += not key.startswith(VIEWERS) and key not in incomplete
        if differences <= MAX_LISTED:
            note = f"; quarantined and restarted empty at {rfc3339(incomplete[key])}" if key in incomplete else ""
            print(f"{key}\t{difference}{note}")
    for key, fault in find_damaged_values(context.online):
        differences += 1
        print(f"{key}\t{fault}")
    print(f"{differences:,} differences against {events:,} events of the log")
    if _report_damaged_files(context.log):
        return 1
    if erased and sums:
        print(f"{sums:,} of them concern items and audiences and are inconclusive: they may stem from {erased:,} "
              "viewers erased since the last rebuild; rebuild and verify again")  # fmt: skip
        return 1 if differences > sums else EXIT_INCONCLUSIVE
    return 1 if differences else 0


def print_damaged_databases(settings: Settings) -> bool:
    """Print a line for each damaged SQLite file; return whether there are any."""
    lines = damaged_databases(settings)
    for line in lines:
        print(line)
    return bool(lines)


def list_quarantine(context: CommandContext) -> int:
    """Print one line for each quarantined state. Raises Unavailable."""
    for state in quarantined(context.online):
        print(_describe(state))
    return 0


def show_quarantine(context: CommandContext, key: str) -> int:
    """Print the quarantined states of one key and their bytes in base64. Raises Unavailable."""
    states = list(quarantined(context.online, key))
    for state in states:
        print(_describe(state))
        print(b64encode(state.raw).decode())
    return 0 if states else fail("quarantine", f"nothing is quarantined under {key}; see `mainstay quarantine list`")


def _describe(state: CorruptState) -> str:
    repair = "repaired from the event log" if state.repaired else "restarted empty: run `mainstay rebuild`"
    return f"{state.key}\t{len(state.raw)} bytes\t{rfc3339(state.at)}\t{state.cause}\t{repair}"


def export(context: CommandContext, viewer_id: str) -> int:
    """Print all data of a viewer as JSON lines. Raises Unavailable."""
    topic = context.settings.topic
    for line in export_viewer(context.log, context.online, viewer_id, stream=context.stream, topic=topic):
        sys.stdout.write(line.decode())
    _report_damaged_files(context.log)
    return 0


def erase(context: CommandContext, viewer_id: str) -> int:
    """Erase all data of a viewer and report what other consumer groups still hold back. Raises Unavailable."""
    settings, retention = context.settings, context.stream.retention
    report = erase_viewer(
        context.log,
        context.online,
        viewer_id,
        time.time(),
        stream=context.stream,
        topic=settings.topic,
        group=settings.group,
    )
    state = "the state" if report.had_state else "no state"
    print(f"erased {state} and {report.events:,} events; rewrote {report.files:,} files of the event log")
    if report.damaged_files:
        names = ", ".join(report.damaged_files)
        print(f"{len(report.damaged_files):,} damaged files of the event log were not searched and may hold events of "
              f"the viewer; delete them from {context.log.damaged.folder}: {names}")  # fmt: skip
    if report.messages_left is None:
        print("the broker keeps the viewer's messages until its retention deletes them; the workers ignore them")
    elif report.messages_left and retention is not None:
        now = time.time()
        backlog = retention.backlog(settings.topic, float("inf"), [settings.group], viewer_id)
        print(f"{report.messages_left:,} messages of the viewer stay in the stream until these consumer groups have "
              f"read them: {describe(backlog, now)}. The workers ignore them. Erase again to delete them afterwards, "
              f"or wait until they are {settings.stream_days:,} days old. Delete a group that no longer runs: "
              f"{DELETE_HINT}")  # fmt: skip
    return 0


def print_groups(context: CommandContext) -> int:
    """Print the consumer groups of an embedded stream; return 1 for a broker. Raises Unavailable."""
    if (retention := context.stream.retention) is None:
        return _refuse_broker()
    list_groups(retention, context.settings, time.time())
    return 0


def delete_consumer_group(context: CommandContext, name: str) -> int:
    """Delete a consumer group of an embedded stream.

    Return 1 when it does not exist, and for a broker. Raises Conflict when the group is in use, Unavailable.
    """
    if (retention := context.stream.retention) is None:
        return _refuse_broker()
    if not delete_group(retention, context.settings, name):
        return fail("consumer-groups", f"no group {name}; see `mainstay consumer-groups list`")
    print(f"deleted {name}; the workers delete the old messages that it held back within minutes")
    return 0


def _refuse_broker() -> int:
    return fail("consumer-groups", "the stream is a broker, which manages its consumer groups and its retention "
                "itself; use the broker's own tools")  # fmt: skip
