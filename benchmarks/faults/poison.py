"""E6: messages that are no events, at the worst places; nothing stops for them, nothing of them is lost."""

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

from benchmarks.faults.child import ROOT, Child, commits
from benchmarks.faults.place import Place, Places
from benchmarks.faults.report import Line
from benchmarks.faults.scenario import Scene
from benchmarks.faults.traffic import happened, records
from features.events.stream.port import Record

STALLS_AT_MOST_S = 2.0
IN_A_ROW = 500
UNKNOWN_BEFORE = "share"  # the kind that the older release of this bench does not know


def poisoned(good: bytes, chance: random.Random) -> dict[str, bytes]:
    """One message of every sort that cannot be read, made of one that can."""
    said: dict[str, Any] = json.loads(good)

    def altered(**fields: Any) -> bytes:
        return json.dumps({**said, **fields}).encode()

    return {
        "not UTF-8": good[:40] + b"\xff\xfe\xc3" + good[40:],
        "broken JSON": good[: chance.randrange(1, len(good) - 1)],
        "2 MB": good[:-1] + b',"x":"' + b"x" * (2 << 20) + b'"}',
        "depth 10,000": b'{"data":' * 10_000 + b"1" + b"}" * 10_000,
        "wrong types": altered(data=["no", "object"], subject=7),
        "huge numbers": altered(data={"item_id": "i", "position_s": 10**400}),
        "unknown kind": altered(type="mainstay.viewer.levitate"),
        "empty": b"",
        "nothing but noughts": bytes(64),
        "another viewer's": altered(subject="somebody-else"),
    }


def poison(places: Places, kind: str, events: int, seed: int) -> list[Line]:
    """Two lines: poison among events; what an older release did not know, sent again after the upgrade."""
    chance, place = random.Random(seed), places.new(kind)
    good = records(happened(chance, events))
    sent = _mixed(good, chance)
    with closing(Scene(place)) as scene, closing(Child(place).ready()) as worker:
        scene.send(records(happened(chance, 20, start=events)))
        scene.judged()
        sends = []
        for start in range(0, len(sent), 250):
            scene.send_raw(sent[start : start + 250])
            sends.append((time.time(), scene.sent))
        verdict = scene.judged(120.0)
        stall_s = _longest_stall(sends, commits(place))
        letters, dead = scene.letters(), len(scene.oracle.dead)
        vague = [one for one in letters if not one["cause"] or one["topic"] != place.topic or one["offset"] < 0]
        alive = worker.process.poll() is None
    first = Line(
        "E6",
        kind,
        f"{dead:,} of {len(sent):,} messages poison: first and last of a partition, {IN_A_ROW} in a row, of 10 sorts",
        f"{verdict}; {len(letters):,} dead letters, {len(vague)} without cause or place; longest stall {stall_s:.1f} s",
        f"all aside with cause and offset, the good applied, no stall over {STALLS_AT_MOST_S:.0f} s",
        verdict.ok and not vague and stall_s <= STALLS_AT_MOST_S and alive and dead >= IN_A_ROW,
    )
    return [first, _replayed(places.new(kind), random.Random(seed + 1), max(200, events // 10))]


def _mixed(good: list[Record], chance: random.Random) -> list[Record]:
    """One in a hundred is poison; so are the first and the last message of every partition, and a row of 500."""
    sent: list[Record] = []

    def bad(like: Record) -> Record:
        return Record(like.key, chance.choice(list(poisoned(like.value, chance).values())))

    few = list({record.key: record for record in good}.values())[:12]  # enough keys to reach every partition
    small: list[Callable[[Record], Record]] = [lambda like: Record(like.key, like.value[:20])]
    sent += [bad(record) for record in few]
    for number, record in enumerate(good):
        if chance.random() < 0.01:
            sent.append(bad(record))
        sent.append(record)
        if number == len(good) // 2:
            sent += [(bad if chance.random() < 0.1 else small[0])(record) for _ in range(IN_A_ROW)]
    return [*sent, *(bad(record) for record in few)]


def _longest_stall(sends: list[tuple[float, int]], committed: list[tuple[float, int, int]]) -> float:
    """The longest time without a commit while the log held messages that were not committed.

    sends      (unix second, messages in the log from then on)
    committed  (unix second, partition, offset)
    """
    upto: dict[int, int] = {}
    done, total, longest = 0, 0, 0.0
    since = float("inf")  # since when nothing has moved although there was work
    moments = sorted([(at, 0, n, 0) for at, n in sends] + [(at, 1, p, o) for at, p, o in committed])
    for at, kind, first, offset in moments:
        if kind == 1:
            longest = max(longest, at - since)
            upto[first] = max(upto.get(first, 0), offset + 1)
            done = sum(upto.values())
            since = at if done < total else float("inf")
        else:
            total = first
            since = min(since, at) if done < total else float("inf")
    return longest if since == float("inf") else float("inf")


def _replayed(place: Place, chance: random.Random, events: int) -> Line:
    """An older release sets a kind aside; after the upgrade `dlq replay`, twice, and one by name: all count once."""
    good = records(happened(chance, events))
    theirs = sum(f"viewer.{UNKNOWN_BEFORE}".encode() in record.value for record in good)
    with closing(Scene(place)) as scene:
        with closing(Child(place, "--refusing", UNKNOWN_BEFORE).ready()) as older:
            scene.oracle.refused_kind = UNKNOWN_BEFORE
            scene.send(good)
            before = scene.judged()
            scene.oracle.refused_kind = ""
            older.signal(signal.SIGTERM)  # it finishes its batch: whatever it has not committed, the new one would read
            stopped = older.died(30.0)
        with closing(Child(place).ready()):
            one = scene.letters()[0]
            named = [f"{one['topic']}/{one['partition']}@{one['offset']}"]
            for words, sends in (([], theirs), ([], 0), (named, 1)):  # unnamed, each letter goes once
                command = [sys.executable, "-m", "features.cli", "dlq", "replay", *place.flags, *words]
                subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
                scene.sent += sends
            verdict = scene.judged()
    return Line(
        "E6",
        place.kind,
        f"a release that knows no `{UNKNOWN_BEFORE}` set {theirs:,} of {events:,} aside; upgrade; dlq replay twice, "
        "and of one by name",
        f"before: {before}; after: {verdict}",
        "exactly once",
        before.ok and stopped and verdict.ok and theirs > 0,
    )
