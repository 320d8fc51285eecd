"""E4: clients with wrong clocks send events to the real API. Only the server's clock counts."""

from __future__ import annotations

import time
from contextlib import closing
from datetime import UTC, datetime, timedelta

from benchmarks.faults.harness.api import APP, ApiProcess, cloud_event
from benchmarks.faults.harness.environment import EnvironmentFactory
from benchmarks.faults.harness.scenario import Scenario
from benchmarks.faults.harness.worker_process import WorkerProcess, wait_until
from benchmarks.faults.report import Line
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
"""Name of the clock, the event's `time` (a string with sign: relative to now), and the expected result of the event."""


def client_clocks(environments: EnvironmentFactory, kind: str, rounds: int) -> list[Line]:
    """Send an event of each clock in one batch, `rounds` times; returns one result."""
    env, mismatches, last_key = environments.new(kind), list[str](), ""
    with closing(Scenario(env)) as scenario, closing(WorkerProcess(env).wait_ready()), closing(ApiProcess(env)) as api:
        api.wait_ready()
        began, accepted = time.time(), set[tuple[str, str]]()
        for number in range(rounds):
            batch = [
                cloud_event(f"{number}-{n}", f"v{n}", "i", time=_timestamp(clock))
                for n, (_, clock, _) in enumerate(CLOCKS)
            ]
            for event in batch:
                if event["time"] is None:
                    del event["time"]
            results = api.post(batch).json()["results"]
            for n, (name, _, expected) in enumerate(CLOCKS):
                if results[n]["status"] != expected:
                    mismatches.append(f"{name}: {results[n]['status']}, not {expected}")
                if expected == "accepted":
                    accepted.add((f"v{n}", event_key(APP, f"{number}-{n}")))
            last_key = event_key(APP, f"{number}-1")
        arrived = wait_until(lambda: accepted <= scenario.read_new(), 60.0)
        verdict = scenario.wait_for_verdict()
        times = [logged.event.at for events in scenario.oracle.events.values() for logged in events]
        n_client_dated = sum(not began - 1 <= at <= time.time() + 1 for at in times)
        n_quarantined, expected_quarantined = (
            len(scenario.oracle.dead),
            rounds * sum(expected == "quarantined" for *_, expected in CLOCKS),
        )
        last_missing = ("v1", last_key) not in scenario.oracle.counted_events()
    return [
        Line(
            "E4",
            kind,
            f"{len(CLOCKS)} kinds of clock: {', '.join(name for name, *_ in CLOCKS)}; {rounds} times each",
            f"{len(mismatches)} wrong results{''.join(f' ({w})' for w in mismatches[:2])}; "
            f"{n_quarantined} of {expected_quarantined} quarantined; "
            f"{n_client_dated} events dated by a client's clock; {verdict}",
            "over 5 min ahead quarantined; unreadable times rejected; the server's clock counts; nothing delayed",
            not mismatches
            and not n_client_dated
            and not last_missing
            and n_quarantined == expected_quarantined
            and verdict.ok
            and arrived < float("inf"),
        )
    ]


def _timestamp(clock: str | float | None) -> str | float | None:
    if not isinstance(clock, str) or (clock != NOW and clock[0] not in "+-"):
        return clock
    words = clock.split() if clock != NOW else ["0", "days"]
    delta = timedelta(**{words[1] if words[1].endswith("s") else words[1] + "s": float(words[0])})
    return (datetime.now(UTC) + delta).isoformat()
