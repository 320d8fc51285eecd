"""`kill -9` of a real worker process in the middle of the stream, then another one: the state of a pure replay."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from features.events.decode import ViewerEvent, decode, encode
from features.events.stream.connect import open_stream
from features.events.stream.port import Record, Stream
from features.history.event_log import EventLog
from features.state.codec import encode_item, encode_viewer, item_key, viewer_key
from features.state.fold import LoggedEvent, deduplicate_and_fold, fold_item, fold_viewer, items_of
from features.state.online.connect import open_online
from features.state.online.port import OnlineStore
from recsys.domain.viewer import LANDMARK, ItemState, ViewerState

ROOT = Path(__file__).parents[3]
PARTITIONS = 3


def happened(count: int, prefix: str, seed: int) -> list[ViewerEvent]:
    """Events of 200 viewers on 300 items; one in twenty is sent again some time later."""
    chance = random.Random(seed)
    events: list[ViewerEvent] = []
    for number in range(count):
        if number > 100 and chance.random() < 0.05:
            events.append(events[-chance.randrange(1, 100)])
            continue
        kind = chance.choice(["play", "complete", "like", "click", "impression", "ping"])
        items = tuple(f"{prefix}i{i}" for i in chance.sample(range(300), 5))
        about: dict[str, Any] = (
            {"items": items, "context": {"seed": 1}}
            if kind == "impression"
            else {"item_id": items[0], "position_s": 3.0}
        )
        viewer = f"{prefix}v{int(chance.paretovariate(0.7)) % 200}"
        events.append(
            ViewerEvent(id=f"e{number}", kind=kind, viewer_id=viewer, at=LANDMARK + number, region="cn.zj", **about)
        )
    return events


def replayed(stream: Stream, topic: str, events: list[ViewerEvent]) -> dict[str, bytes]:
    """The whole log folded at once; also checks that all that was sent is in it."""
    viewers: dict[str, list[LoggedEvent]] = {}
    shards: dict[tuple[str, str], list[LoggedEvent]] = {}
    total = 0
    for partition in range(stream.partitions(topic)):
        placed: list[LoggedEvent] = []
        while page := stream.read(topic, partition, len(placed), 5000):
            placed += [LoggedEvent(f"{topic}/{partition}", one.offset, decode(one.value)) for one in page]
        total += len(placed)
        for one in placed:
            viewers.setdefault(one.event.viewer_id, []).append(one)
    assert total == len(events)
    dump = {}
    for viewer_id, their in viewers.items():
        nobody = ViewerState(viewer_id)
        dump[viewer_key(viewer_id)] = encode_viewer(fold_viewer(nobody, their))
        for one in deduplicate_and_fold(nobody, their).new_events:
            for item_id in items_of(one.event):
                shards.setdefault((item_id, one.source), []).append(one)
    for (item_id, source), about in shards.items():
        about.sort(key=lambda one: one.offset)
        dump[item_key(item_id, source)] = encode_item(fold_item(ItemState(item_id), about))
    return dump


@contextmanager
def worker(*flags: str) -> Iterator[subprocess.Popen[str]]:
    """A worker process that polls; killed at the end when it still runs."""
    command = [sys.executable, "-m", "features.cli", "worker", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "worker ready\n"
            yield process
        finally:
            process.kill()


def publish(stream: Stream, topic: str, events: list[ViewerEvent]) -> None:
    records = [Record(event.viewer_id, encode(event)) for event in events]
    for start in range(0, len(records), 2000):
        stream.publish(topic, records[start : start + 2000])


def dump(store: OnlineStore, prefix: str) -> dict[str, bytes]:
    return {**dict(store.scan(f"viewer:{{{prefix}")), **dict(store.scan(f"item:{{{prefix}"))}


def assert_logged_once(log: EventLog, events: list[ViewerEvent]) -> None:
    logged = [
        (viewer, id)
        for viewer, id in zip(*(log.events()[name].to_pylist() for name in ("viewer_id", "id")), strict=True)
    ]
    assert len(logged) == len(set(logged))
    assert set(logged) == {(event.viewer_id, event.id) for event in events}


@pytest.mark.parametrize("seed", [1])
def test_killed_again_and_again_on_the_embedded_stores(tmp_path: Path, seed: int) -> None:
    chance, events = random.Random(seed), happened(10_000, "", seed)
    flags = ["--home", str(tmp_path), "--partitions", str(PARTITIONS)]
    with (
        closing(open_stream(f"sqlite:///{tmp_path}/stream.db", partitions=PARTITIONS)) as stream,
        closing(open_online(f"sqlite:///{tmp_path}/online.db", timeout_s=10.0)) as online,
    ):
        publish(stream, "viewer-events", events)
        died_with_work_left = 0
        for _ in range(3):
            with worker(*flags) as process:
                time.sleep(chance.uniform(0.05, 0.3))
                process.kill()
            with closing(stream.consumer("viewer-events", "features")) as successor:
                died_with_work_left += bool(successor.poll(1, 0))
        assert died_with_work_left >= 1
        with worker(*flags, "--until-idle", "0.5") as process:
            assert process.wait(60) == 0
        assert dump(online, "") == replayed(stream, "viewer-events", events)
    assert_logged_once(EventLog(tmp_path / "events"), events)


def test_killed_on_a_broker_and_a_redis_then_stopped_politely(
    tmp_path: Path, kafka_url: str, redis_url: str, unique: str
) -> None:
    events = happened(4_000, unique, seed=2)
    flags = [
        "--home",
        str(tmp_path),
        "--stream",
        kafka_url,
        "--online",
        redis_url,
        "--topic",
        unique,
        "--group",
        unique,
    ]
    with (
        closing(open_stream(kafka_url, partitions=PARTITIONS)) as stream,
        closing(open_online(redis_url, timeout_s=10.0)) as online,
    ):
        publish(stream, unique, events)
        with worker(*flags) as process:
            wait_until(lambda: bool(dump(online, unique)))
            process.kill()
        expected = replayed(stream, unique, events)
        with worker(*flags) as process:
            wait_until(lambda: dump(online, unique) == expected)
            owed = {(event.viewer_id, event.id) for event in events}  # some by the dead one
            wait_until(lambda: len(EventLog(tmp_path / "events").events()) == len(owed))
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
    assert_logged_once(EventLog(tmp_path / "events"), events)


def wait_until(true: Any, within_s: float = 40.0) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
