"""`recsys-worker`: fold the stream into the stores; other commands look after what is kept (`--help` names them)."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event

from features.events.dead_letters import DeadLetter, dead_letter_ends, read_dead_letters, replay, replayed_at
from features.events.identity import SEEN_MAX
from features.events.stream.connect import open_stream
from features.events.stream.port import Stream
from features.history.event_log import EventLog
from features.settings import Settings
from features.state.online.connect import open_online
from features.worker.commands import (
    COMMANDS,
    CommandContext,
    add_commands,
    apply_retention,
    background_compaction,
    rfc3339,
)
from features.worker.lagging_groups import LagReporter
from features.worker.rebuild_fence import is_rebuild_in_progress
from features.worker.worker import Worker
from recsys.domain.errors import Conflict, EventError, MainstayError, SettingsError
from recsys.domain.viewer import DAY_S

FLAGS = ("home", "stream", "online", "event_log", "topic", "group", "partitions", "stream_days", "item_ttl_days",
         "viewer_ttl_days")  # fmt: skip
UNHEARD = 128 + signal.SIGPIPE
"""Exit code when nobody reads the output any more, as of any command in a shell's pipe."""

STORE_TIMEOUT_S = 10.0  # nobody waits for a page here


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 done or asked to stop, 1 for what cannot go on or is wrong, 2 for a wrong command line or setting, 3
    for what `verify` cannot judge before a rebuild, 141 when whoever read its output stopped reading."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    arguments = _parser().parse_args(argv)
    try:
        settings = Settings.read(os.environ, **{name: getattr(arguments, name) for name in FLAGS})
    except SettingsError as error:
        print(f"recsys-worker: {error}", file=sys.stderr)
        return 2
    try:
        with closing(open_stream(settings.stream_url, partitions=settings.partitions)) as stream:
            if arguments.what == "dlq":
                code = _dlq(stream, settings.topic, arguments)
            elif arguments.what in COMMANDS:
                code = _keep(stream, settings, arguments)
            else:
                code = _run(stream, settings, arguments.until_idle)
            sys.stdout.flush()
            return code
    except BrokenPipeError:  # whoever read what it writes has had enough (`... | head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor does Python complain at its own end
        return UNHEARD
    except MainstayError as error:
        print(f"recsys-worker: {error}", file=sys.stderr)
        return 1


def _keep(stream: Stream, settings: Settings, arguments: argparse.Namespace) -> int:
    """One of the commands that look after log and online store."""
    with closing(open_online(settings.online_url, STORE_TIMEOUT_S)) as online:
        kept = CommandContext(stream, online, EventLog(Path(settings.event_log_dir)), settings)
        return COMMANDS[arguments.what](kept, arguments)


def _run(stream: Stream, settings: Settings, until_idle_s: float | None) -> int:
    with closing(open_online(settings.online_url, STORE_TIMEOUT_S)) as online:
        if is_rebuild_in_progress(online):
            raise Conflict("the online store is being made anew; if nobody does any more: `recsys-worker rebuild`")
        log = EventLog(Path(settings.event_log_dir))
        log.erased.agree_with(online)
        worker = Worker(
            stream,
            online,
            log,
            topic=settings.topic,
            group=settings.group,
            viewer_ttl_s=settings.viewer_ttl_days * DAY_S,
            item_ttl_s=settings.item_ttl_days * DAY_S,
        )
        holders = LagReporter(stream.retention, settings)

        def retain() -> None:
            apply_retention(stream, settings, time.time())
            holders.report(time.time())

        with closing(worker), _asked_to_stop() as stop, background_compaction(log, retain):
            taken = worker.run(stop, until_idle_s, ready=lambda: print("worker ready", flush=True))
    aside = f", {worker.dead:,} of them unreadable (recsys-worker dlq list)" if worker.dead else ""
    print(f"worker stopped after {taken:,} messages{aside}", flush=True)
    return 0


@contextmanager
def _asked_to_stop() -> Iterator[Event]:
    """An event that SIGTERM and SIGINT set, so that the batch at hand is finished first."""
    stop = Event()
    before = {asked: signal.signal(asked, lambda *_: stop.set()) for asked in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for asked, handler in before.items():
            signal.signal(asked, handler)


def _dlq(stream: Stream, topic: str, arguments: argparse.Namespace) -> int:
    """list: one line each; show: causes and contents; replay: send again what can be read by now and was not sent
    again before, or the one that is named."""
    action, place = arguments.action, arguments.place
    ends = dead_letter_ends(stream, topic) if action == "replay" else None  # not those that replaying makes
    sent, before = replayed_at(stream, topic), 0
    failed, found = 0, False
    for one in read_dead_letters(stream, topic, ends):
        if place not in (None, one.location):
            continue
        found, sent_at = True, sent.get(one.replay_key)
        if action == "list":
            print(f"{one.location}\t{one.size} bytes\t{one.cause}{_again(sent_at)}")
        elif action == "show":
            print(_shown(one, sent_at))
        elif place is None and sent_at is not None:
            before += 1
        elif one.topic != topic:
            failed += 1
            print(f"{one.location}\tno letter of {topic}: whoever wrote it there must send it")
        else:
            try:
                replay(stream, one, arguments.without_client_time)
                print(f"{one.location}\tsent again")
            except EventError as error:
                failed += 1
                print(f"{one.location}\tstill unreadable: {error}{_advice(one, arguments.without_client_time)}")
    if before:
        were = "letter was" if before == 1 else "letters were"
        print(f"{before:,} {were} sent again before: name one to send it once more")
    if place is not None and not found:
        print(
            f"recsys-worker: no dead letter {place} (a place is TOPIC/PARTITION@OFFSET, as list says it)",
            file=sys.stderr,
        )
        return 1
    return 1 if failed else 0


def _advice(one: DeadLetter, without_client_time: bool) -> str:
    return (
        ""
        if without_client_time or not one.is_future_dated
        else "; --without-client-time takes it at the time when it came"
    )


def _again(sent_at: float | None) -> str:
    return "" if sent_at is None else f"\tsent again {rfc3339(sent_at)}"


def _shown(one: DeadLetter, sent_at: float | None) -> str:
    lines = [f"{name:9} {getattr(one, name)}" for name in ("location", "key", "size", "sha256", "cause")]
    if sent_at is not None:
        lines.append(f"{'sent':9} {rfc3339(sent_at)}, again")
    return "\n".join([*lines, one.value.decode(errors="backslashreplace"), ""])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="recsys-worker", description=__doc__)
    for name in FLAGS:
        parser.add_argument(f"--{name.replace('_', '-')}", help=Settings.help_of(name))
    parser.add_argument(
        "--until-idle",
        type=float,
        metavar="S",
        help="stop after S seconds without messages (a Kafka group needs about 3 s to form)",
    )
    what = parser.add_subparsers(dest="what", metavar="[COMMAND]")
    add_commands(what)
    dlq = what.add_parser("dlq", help="dead letters: messages that could not be read")
    dlq.add_argument(
        "action",
        choices=["list", "show", "replay"],
        help="replay: send them again, each once however often one says so; list and show tell when",
    )
    dlq.add_argument(
        "place",
        nargs="?",
        help="TOPIC/PARTITION@OFFSET; all when left out. A letter that is named is sent again though it was before: it "
        f"counts once as long as its id is among its viewer's newest {SEEN_MAX:,}",
    )
    dlq.add_argument(
        "--without-client-time",
        action="store_true",
        help="replay: leave out what the clients' clocks said, so that events from the future are taken",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
