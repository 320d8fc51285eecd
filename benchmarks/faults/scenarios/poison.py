"""E6: unreadable messages at the worst positions. The worker does not stall, and all become dead letters."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from benchmarks.faults.harness.environment import Environment, EnvironmentFactory
from benchmarks.faults.harness.scenario import Scenario
from benchmarks.faults.harness.traffic import make_events, to_records
from benchmarks.faults.harness.worker_process import ROOT, WorkerProcess, commits
from benchmarks.faults.report import Line
from features.events.stream.port import Record

MAX_STALL_S = 2.0
BURST = 500
NEW_KIND = "share"  # an event kind that the simulated older release does not know


def corrupt_variants(valid: bytes, rng: random.Random) -> dict[str, bytes]:
    """Return an unreadable variant of a valid message for each type of corruption."""
    envelope: dict[str, Any] = json.loads(valid)

    def altered(**fields: Any) -> bytes:
        return json.dumps({**envelope, **fields}).encode()

    return {
        "not UTF-8": valid[:40] + b"\xff\xfe\xc3" + valid[40:],
        "broken JSON": valid[: rng.randrange(1, len(valid) - 1)],
        "2 MB": valid[:-1] + b',"x":"' + b"x" * (2 << 20) + b'"}',
        "depth 10,000": b'{"data":' * 10_000 + b"1" + b"}" * 10_000,
        "wrong types": altered(data=["no", "object"], subject=7),
        "huge numbers": altered(data={"item_id": "i", "position_s": 10**400}),
        "unknown kind": altered(type="mainstay.viewer.levitate"),
        "empty": b"",
        "null bytes": bytes(64),
        "another viewer's": altered(subject="somebody-else"),
    }


def poison_messages(environments: EnvironmentFactory, kind: str, events: int, seed: int) -> list[Line]:
    """Mix poison into events, then replay after an upgrade what an older release rejected; returns two results."""
    rng, env = random.Random(seed), environments.new(kind)
    valid = to_records(make_events(rng, events))
    messages = _insert_poison(valid, rng)
    with closing(Scenario(env)) as scenario, closing(WorkerProcess(env).wait_ready()) as worker:
        scenario.send(to_records(make_events(rng, 20, start=events)))
        scenario.wait_for_verdict()
        sends = []
        for start in range(0, len(messages), 250):
            scenario.send_raw(messages[start : start + 250])
            sends.append((time.time(), scenario.sent))
        verdict = scenario.wait_for_verdict(120.0)
        stall_s = _longest_stall(sends, commits(env))
        dead_letters, dead = scenario.dead_letters(), len(scenario.oracle.dead)
        incomplete = [x for x in dead_letters if not x["cause"] or x["topic"] != env.topic or x["offset"] < 0]
        alive = worker.process.poll() is None
    first = Line(
        "E6",
        kind,
        f"{dead:,} of {len(messages):,} messages poison of 10 types: first and last of a partition, {BURST} in a row",
        f"{verdict}; {len(dead_letters):,} dead letters, {len(incomplete)} without cause or offset; "
        f"longest stall {stall_s:.1f} s",
        f"all dead letters with cause and offset, valid events counted, no stall over {MAX_STALL_S:.0f} s",
        verdict.ok and not incomplete and stall_s <= MAX_STALL_S and alive and dead >= BURST,
    )
    return [first, _replay_after_upgrade(environments.new(kind), random.Random(seed + 1), max(200, events // 10))]


def _insert_poison(valid: list[Record], rng: random.Random) -> list[Record]:
    """Add poison: one message in a hundred, the first and last of every partition, and a burst of 500."""
    messages: list[Record] = []

    def poisoned(like: Record) -> Record:
        return Record(like.key, rng.choice(list(corrupt_variants(like.value, rng).values())))

    one_per_key = list({record.key: record for record in valid}.values())[:12]  # enough keys to reach every partition
    small: list[Callable[[Record], Record]] = [lambda like: Record(like.key, like.value[:20])]
    messages += [poisoned(record) for record in one_per_key]
    for number, record in enumerate(valid):
        if rng.random() < 0.01:
            messages.append(poisoned(record))
        messages.append(record)
        if number == len(valid) // 2:
            messages += [(poisoned if rng.random() < 0.1 else small[0])(record) for _ in range(BURST)]
    return [*messages, *(poisoned(record) for record in one_per_key)]


def _longest_stall(sends: list[tuple[float, int]], committed: list[tuple[float, int, int]]) -> float:
    """Return the longest time without a commit while the stream had uncommitted messages.

    sends      (Unix seconds, messages in the stream from then on)
    committed  (Unix seconds, partition, offset)
    """
    until_offset: dict[int, int] = {}
    n_committed, total, longest = 0, 0, 0.0
    idle_since = float("inf")  # since when no offset was committed although there was work
    moments = sorted([(at, 0, n, 0) for at, n in sends] + [(at, 1, p, o) for at, p, o in committed])
    for at, kind, first, offset in moments:
        if kind == 1:
            longest = max(longest, at - idle_since)
            until_offset[first] = max(until_offset.get(first, 0), offset + 1)
            n_committed = sum(until_offset.values())
            idle_since = at if n_committed < total else float("inf")
        else:
            total = first
            idle_since = min(idle_since, at) if n_committed < total else float("inf")
    return longest if idle_since == float("inf") else float("inf")


def _replay_after_upgrade(env: Environment, rng: random.Random, events: int) -> Line:
    """Let an older release reject an event kind, upgrade, and replay its dead letters repeatedly: all count once."""
    messages = to_records(make_events(rng, events))
    n_rejected = sum(f"viewer.{NEW_KIND}".encode() in record.value for record in messages)
    with closing(Scenario(env)) as scenario:
        with closing(WorkerProcess(env, "--reject-kind", NEW_KIND).wait_ready()) as old_release:
            scenario.oracle.rejected_kind = NEW_KIND
            scenario.send(messages)
            verdict_before = scenario.wait_for_verdict()
            scenario.oracle.rejected_kind = ""
            old_release.signal(signal.SIGTERM)  # it finishes its batch; the new release would read uncommitted messages
            stopped = old_release.exits(30.0)
        with closing(WorkerProcess(env).wait_ready()):
            dead_letter = scenario.dead_letters()[0]
            selection = [f"{dead_letter['topic']}/{dead_letter['partition']}@{dead_letter['offset']}"]
            for arguments, sends in (
                ([], n_rejected),
                ([], 0),
                (selection, 1),
            ):  # without a selection, each dead letter is replayed once
                command = [sys.executable, "-m", "features.cli", "dlq", "replay", *env.flags, *arguments]
                subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
                scenario.sent += sends
            verdict = scenario.wait_for_verdict()
    return Line(
        "E6",
        env.kind,
        f"a release without `{NEW_KIND}` rejected {n_rejected:,} of {events:,} events; upgrade; dlq replay twice, "
        "and of one selected message",
        f"before: {verdict_before}; after: {verdict}",
        "exactly once",
        verdict_before.ok and stopped and verdict.ok and n_rejected > 0,
    )
