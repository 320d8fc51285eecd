"""D2: the broker is stopped, or killed and its log lost, while apps keep sending."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import replace

from benchmarks.faults.harness.api import ApiProcess, Sender
from benchmarks.faults.harness.environment import SESSION_S, Environment, EnvironmentFactory
from benchmarks.faults.harness.scenario import Scenario
from benchmarks.faults.harness.traffic import to_records
from benchmarks.faults.harness.worker_process import WorkerProcess, wait_until
from benchmarks.faults.report import Line
from benchmarks.servers import Server, broker
from features.events.schema import ViewerEvent
from features.state.codec import decode_viewer
from features.state.keys import VIEWERS

MAX_NOTICE_S = 10.0
EVENTS_BEFORE = 300
LOSS_MESSAGE = "the stream lost its log"


def broker_stopped(environments: EnvironmentFactory, kind: str, seconds: float) -> list[Line]:
    """Stop the broker with SIGSTOP for `seconds`: it accepts connections, but does not respond."""
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
            f"responses meanwhile {_format_statuses(during)}, slowest {sender.slowest_s:.2f} s; {lost} lost; "
            f"all in the stream {delivered_s:.1f} s after it resumed; {verdict}",
            "ingest continues, all delivered later",
            set(during) == {202} and not lost and verdict.ok,
        )
    ]


def broker_wiped(environments: EnvironmentFactory, kind: str, seconds: float) -> list[Line]:
    """Kill the broker with SIGKILL: it keeps its log in memory and restarts empty."""
    with ExitStack() as stack:
        env, server, api, sender = _start(environments, kind, stack, events_before=EVENTS_BEFORE)
        time.sleep(6.0)
        server.kill()
        time.sleep(seconds)
        server.start()
        back = time.monotonic()
        noticed_s = wait_until(lambda: LOSS_MESSAGE in api.output(), 30.0)
        time.sleep(max(0.0, 8.0 - (time.monotonic() - back)))
        sender.stop()
        expected = sender.accepted + Counter(dict.fromkeys(sender.viewers, EVENTS_BEFORE))
        applied = wait_until(lambda: _counts(env) == expected, 60.0, every_s=0.5)
        actual = _counts(env)
    missing, twice = sum((expected - actual).values()), sum((actual - expected).values())
    return [
        Line(
            "D2",
            kind,
            f"broker killed and its log lost, restarted empty after {seconds:.0f} s; "
            f"{EVENTS_BEFORE} events a viewer not in the spool, {len(sender.ids):,} in the spool",
            f"responses {_format_statuses(sender.statuses)}; noticed after {noticed_s:.1f} s; "
            f"{missing} events missing in the states, {twice} counted twice",
            f"noticed within {MAX_NOTICE_S:.0f} s, every accepted event is counted once",
            noticed_s <= MAX_NOTICE_S and not missing and not twice and applied < float("inf"),
        )
    ]


def _start(
    environments: EnvironmentFactory, kind: str, stack: ExitStack, events_before: int = 0
) -> tuple[Environment, Server, ApiProcess, Sender]:
    """Start a separate broker, a worker, the API and a sender.

    Each of the sender's viewers has `events_before` events in the stream and in the states that were never in a spool.
    """
    base = environments.new(kind)
    server = stack.enter_context(closing(broker(base.home / "broker"))).start()
    env = replace(base, stream_url=f"kafka://127.0.0.1:{server.port}?session_s={SESSION_S}")
    stack.enter_context(closing(WorkerProcess(env).wait_ready()))
    api = stack.enter_context(closing(ApiProcess(env))).wait_ready()
    sender = stack.enter_context(closing(Sender(api, "d2")))
    if events_before:
        now = time.time()
        events = [
            ViewerEvent(id=f"before-{n}", kind="play", viewer_id=viewer, at=now - EVENTS_BEFORE + n, item_id="i")
            for n in range(events_before)
            for viewer in sender.viewers
        ]
        with closing(Scenario(env)) as scenario:
            scenario.send(to_records(events))
            verdict = scenario.wait_for_verdict(60.0)
            assert verdict.ok, verdict
    sender.start()
    return env, server, api, sender


def _counts(env: Environment) -> Counter[str]:
    """Return the number of events in each viewer's state."""
    states = (decode_viewer(raw) for key, raw in env.dump().items() if key.startswith(VIEWERS))
    return Counter({state.viewer_id: sum(state.counts.values()) for state in states})


def _format_statuses(statuses: Mapping[int, int]) -> str:
    return ", ".join(f"{count} x {status or 'none'}" for status, count in sorted(statuses.items()))
