"""E4: clients whose clocks are wrong, through the real door; only the server's clock counts."""

from __future__ import annotations

import time
from contextlib import closing
from datetime import UTC, datetime, timedelta

from benchmarks.faults.harness.api import APP, ApiProcess, cloud_event
from benchmarks.faults.harness.worker_process import WorkerProcess, wait_until
from benchmarks.faults.harness.environment import Environments
from benchmarks.faults.report import Line
from benchmarks.faults.harness.scenario import Scenario
from features.events.identity import event_key

NOW = "now"
CLOCKS: tuple[tuple[str, str | float | None, str], ...] = (
    ("none", None, "accepted"),
    ("right", NOW, "accepted"),
    ("an hour slow", "-1 hour", "accepted"),
    ("ten years slow", "-3652 days", "accepted"),
    ("four minutes fast", "+4 minutes", "accepted"),
    ("six minutes fast", "+6 minutes", "quarantined"),
    ("an hour fast", "+1 hour", "quarantined"),
    ("ten years fast", "+3652 days", "quarantined"),
    ("1970", "1970-01-01T00:00:00Z", "accepted"),
    ("1970 in China", "1970-01-01T00:00:00+08:00", "accepted"),
    ("1969", "1969-12-31T23:59:59Z", "accepted"),
    ("a leap second", "2016-12-31T23:59:60Z", "accepted"),
    ("9999", "9999-12-31T23:59:59Z", "quarantined"),
    ("NaN", "NaN", "refused"),
    ("a number", 1767225600.0, "refused"),
    ("no time zone", "2026-01-01T00:00:00", "accepted"),
    ("31 February", "2026-02-31T00:00:00Z", "refused"),
)
"""What the client's clock says, how an event carries it, and what must become of the event."""


def client_clocks(environments: Environments, kind: str, rounds: int) -> list[Line]:
    """One line: each clock, `rounds` times, each batch ending with an event whose clock is right."""
    env, wrong, last = environments.new(kind), list[str](), ""
    with closing(Scenario(env)) as scenario, closing(WorkerProcess(env).wait_ready()), closing(ApiProcess(env)) as api:
        api.wait_ready()
        began, accepted = time.time(), set[tuple[str, str]]()
        for number in range(rounds):
            batch = [
                cloud_event(f"{number}-{n}", f"v{n}", "i", time=_timestamp(said)) for n, (_, said, _) in enumerate(CLOCKS)
            ]
            for event in batch:
                if event["time"] is None:
                    del event["time"]
            results = api.post(batch).json()["results"]
            for n, (name, _, due) in enumerate(CLOCKS):
                if results[n]["status"] != due:
                    wrong.append(f"{name}: {results[n]['status']}, not {due}")
                if due == "accepted":
                    accepted.add((f"v{n}", event_key(APP, f"{number}-{n}")))
            last = event_key(APP, f"{number}-1")
        arrived = wait_until(lambda: accepted <= scenario.read_new(), 60.0)
        verdict = scenario.wait_for_verdict()
        times = [one.event.at for some in scenario.oracle.events.values() for one in some]
        odd = sum(not began - 1 <= at <= time.time() + 1 for at in times)
        aside, due_aside = len(scenario.oracle.dead), rounds * sum(due == "quarantined" for *_, due in CLOCKS)
        behind = ("v1", last) not in scenario.oracle.counted_events()
    return [
        Line(
            "E4",
            kind,
            f"{len(CLOCKS)} kinds of clock: {', '.join(name for name, *_ in CLOCKS)}; {rounds} times each",
            f"{len(wrong)} wrong verdicts{''.join(f' ({w})' for w in wrong[:2])}; "
            f"{aside} of {due_aside} in quarantine; {odd} events dated by a client; {verdict}",
            "over 5 min ahead quarantined; unreadable refused by name; the server's clock counts; nothing is live_entries up",
            not wrong and not odd and not behind and aside == due_aside and verdict.ok and arrived < float("inf"),
        )
    ]


def _timestamp(said: str | float | None) -> str | float | None:
    if not isinstance(said, str) or (said != NOW and said[0] not in "+-"):
        return said
    words = said.split() if said != NOW else ["0", "days"]
    delta = timedelta(**{words[1] if words[1].endswith("s") else words[1] + "s": float(words[0])})
    return (datetime.now(UTC) + delta).isoformat()
