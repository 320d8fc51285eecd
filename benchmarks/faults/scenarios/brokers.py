"""D2: the broker stopped, and killed with all that it held, while apps go on sending."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import replace

from benchmarks.faults.harness.api import ApiProcess, Sender
from benchmarks.faults.harness.worker_process import WorkerProcess, wait_until
from benchmarks.faults.harness.environment import SESSION_S, Environment, Environments
from benchmarks.faults.report import Line
from benchmarks.faults.harness.scenario import Scenario
from benchmarks.faults.harness.traffic import to_records
from benchmarks.servers import Server, broker
from features.events.decode import ViewerEvent
from features.state.codec import decode_viewer
from features.state.keys import VIEWERS

MAX_NOTICE_S = 10.0
EVENTS_BEFORE = 300
LOSS_MESSAGE = "the stream lost its log"


def broker_stopped(environments: Environments, kind: str, seconds: float) -> list[Line]:
    """SIGSTOP for a while: it accepts connections and answers nothing."""
    with ExitStack() as stack:
        env, server, _, sender = _start(environments, kind, stack)
        time.sleep(3.0)
        server.signal(signal.SIGSTOP)
        time.sleep(seconds)
        during = Counter(sender.statuses)
        server.signal(signal.SIGCONT)
        resumed = time.monotonic()
        time.sleep(2.0)
        sender.stop()
        with closing(Scenario(env)) as scenario:
            wait_until(lambda: sender.ids <= scenario.read_new(), 90.0, every_s=0.5)
            delivered_s = time.monotonic() - resumed
            lost = len(sender.ids - scenario.read_new())
            verdict = scenario.wait_for_verdict(90.0)
    return [
        Line(
            "D2",
            kind,
            f"broker stopped (SIGSTOP) for {seconds:.0f} s, {len(sender.ids):,} events sent",
            f"answers meanwhile {_format_statuses(during)}, slowest {sender.slowest_s:.2f} s; {lost} lost; all in the log "
            f"{delivered_s:.1f} s after it went on; {verdict}",
            "ingest goes on, all delivered later",
            set(during) == {202} and not lost and verdict.ok,
        )
    ]


def broker_wiped(environments: Environments, kind: str, seconds: float) -> list[Line]:
    """kill -9: an in-memory broker comes back with nothing."""
    with ExitStack() as stack:
        env, server, api, sender = _start(environments, kind, stack, before=EVENTS_BEFORE)
        time.sleep(6.0)
        server.kill()
        time.sleep(seconds)
        server.start()
        back = time.monotonic()
        noticed_s = wait_until(lambda: LOSS_MESSAGE in api.output(), 30.0)
        time.sleep(max(0.0, 8.0 - (time.monotonic() - back)))
        sender.stop()
        due = sender.accepted + Counter(dict.fromkeys(sender.viewers, EVENTS_BEFORE))
        applied = wait_until(lambda: _counts(env) == due, 60.0, every_s=0.5)
        found = _counts(env)
    missing, twice = sum((due - found).values()), sum((found - due).values())
    return [
        Line(
            "D2",
            kind,
            f"broker killed with its log, back empty after {seconds:.0f} s; "
            f"{EVENTS_BEFORE} events a viewer that no spool held, {len(sender.ids):,} spooled",
            f"answers {_format_statuses(sender.statuses)}; noticed after {noticed_s:.1f} s; "
            f"{missing} events missing in the states, {twice} twice",
            f"noticed within {MAX_NOTICE_S:.0f} s, everything taken is applied once",
            noticed_s <= MAX_NOTICE_S and not missing and not twice and applied < float("inf"),
        )
    ]


def _start(environments: Environments, kind: str, stack: ExitStack, before: int = 0) -> tuple[Environment, Server, ApiProcess, Sender]:
    """A broker of its own, with a door, a worker and a sender.

    Each of the sender's viewers has `before` events in the log, and in the states, that no spool has ever held.
    """
    given = environments.new(kind)
    server = stack.enter_context(closing(broker(given.home / "broker"))).start()
    env = replace(given, stream_url=f"kafka://127.0.0.1:{server.port}?session_s={SESSION_S}")
    stack.enter_context(closing(WorkerProcess(env).wait_ready()))
    api = stack.enter_context(closing(ApiProcess(env))).wait_ready()
    sender = stack.enter_context(closing(Sender(api, "d2")))
    if before:
        now = time.time()
        made = [
            ViewerEvent(id=f"before-{n}", kind="play", viewer_id=viewer, at=now - EVENTS_BEFORE + n, item_id="i")
            for n in range(before)
            for viewer in sender.viewers
        ]
        with closing(Scenario(env)) as scenario:
            scenario.send(to_records(made))
            begun = scenario.wait_for_verdict(60.0)
            assert begun.ok, begun
    sender.start()
    return env, server, api, sender


def _counts(env: Environment) -> Counter[str]:
    """Viewer -> events in its state."""
    states = (decode_viewer(raw) for key, raw in env.dump().items() if key.startswith(VIEWERS))
    return Counter({state.viewer_id: sum(state.counts.values()) for state in states})


def _format_statuses(answers: Mapping[int, int]) -> str:
    return ", ".join(f"{count} x {status or 'none'}" for status, count in sorted(answers.items()))
