"""D2: the broker stopped, and killed with all that it held, while apps go on sending."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import replace

from benchmarks.faults.api import Api, Sender
from benchmarks.faults.child import Child, wait_until
from benchmarks.faults.place import SESSION_S, Place, Places
from benchmarks.faults.report import Line
from benchmarks.faults.scenario import Scene
from benchmarks.faults.traffic import records
from benchmarks.servers import Server, broker
from features.events.schema import ViewerEvent
from features.state.codec import decode_viewer
from features.state.keys import VIEWERS

NOTICED_WITHIN_S = 10.0
BEFORE = 300
LOST = "the stream lost its log"


def stopped(places: Places, kind: str, seconds: float) -> list[Line]:
    """SIGSTOP for a while: it accepts connections and answers nothing."""
    with ExitStack() as stack:
        place, server, _, sender = _running(places, kind, stack)
        time.sleep(3.0)
        server.signal(signal.SIGSTOP)
        time.sleep(seconds)
        during = Counter(sender.answers)
        server.signal(signal.SIGCONT)
        resumed = time.monotonic()
        time.sleep(2.0)
        sender.end()
        with closing(Scene(place)) as scene:
            wait_until(lambda: sender.ids <= scene.hear(), 90.0, every_s=0.5)
            delivered_s = time.monotonic() - resumed
            lost = len(sender.ids - scene.hear())
            verdict = scene.judged(90.0)
    return [
        Line(
            "D2",
            kind,
            f"broker stopped (SIGSTOP) for {seconds:.0f} s, {len(sender.ids):,} events sent",
            f"answers meanwhile {_said(during)}, slowest {sender.slowest_s:.2f} s; {lost} lost; all in the log "
            f"{delivered_s:.1f} s after it went on; {verdict}",
            "ingest goes on, all delivered later",
            set(during) == {202} and not lost and verdict.ok,
        )
    ]


def wiped(places: Places, kind: str, seconds: float) -> list[Line]:
    """kill -9: an in-memory broker comes back with nothing."""
    with ExitStack() as stack:
        place, server, api, sender = _running(places, kind, stack, before=BEFORE)
        time.sleep(6.0)
        server.kill()
        time.sleep(seconds)
        server.start()
        back = time.monotonic()
        noticed_s = wait_until(lambda: LOST in api.said(), 30.0)
        time.sleep(max(0.0, 8.0 - (time.monotonic() - back)))
        sender.end()
        due = sender.taken + Counter(dict.fromkeys(sender.viewers, BEFORE))
        applied = wait_until(lambda: _counts(place) == due, 60.0, every_s=0.5)
        found = _counts(place)
    missing, twice = sum((due - found).values()), sum((found - due).values())
    return [
        Line(
            "D2",
            kind,
            f"broker killed with its log, back empty after {seconds:.0f} s; "
            f"{BEFORE} events a viewer that no spool held, {len(sender.ids):,} spooled",
            f"answers {_said(sender.answers)}; noticed after {noticed_s:.1f} s; "
            f"{missing} events missing in the states, {twice} twice",
            f"noticed within {NOTICED_WITHIN_S:.0f} s, everything taken is applied once",
            noticed_s <= NOTICED_WITHIN_S and not missing and not twice and applied < float("inf"),
        )
    ]


def _running(places: Places, kind: str, stack: ExitStack, before: int = 0) -> tuple[Place, Server, Api, Sender]:
    """A broker of its own, with a door, a worker and a sender.

    Each of the sender's viewers has `before` events in the log, and in the states, that no spool has ever held.
    """
    given = places.new(kind)
    server = stack.enter_context(closing(broker(given.home / "broker"))).start()
    place = replace(given, stream_url=f"kafka://127.0.0.1:{server.port}?session_s={SESSION_S}")
    stack.enter_context(closing(Child(place).ready()))
    api = stack.enter_context(closing(Api(place))).ready()
    sender = stack.enter_context(closing(Sender(api, "d2")))
    if before:
        now = time.time()
        made = [
            ViewerEvent(id=f"before-{n}", kind="play", viewer_id=viewer, at=now - BEFORE + n, item_id="i")
            for n in range(before)
            for viewer in sender.viewers
        ]
        with closing(Scene(place)) as scene:
            scene.send(records(made))
            begun = scene.judged(60.0)
            assert begun.ok, begun
    sender.start()
    return place, server, api, sender


def _counts(place: Place) -> Counter[str]:
    """Viewer -> events in its state."""
    states = (decode_viewer(raw) for key, raw in place.dump().items() if key.startswith(VIEWERS))
    return Counter({state.viewer_id: sum(state.counts.values()) for state in states})


def _said(answers: Mapping[int, int]) -> str:
    return ", ".join(f"{count} x {status or 'none'}" for status, count in sorted(answers.items()))
