"""After `kill -9` of a real worker process mid-stream, its successor reaches the state of a pure replay."""

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

from features.events.decode import decode, encode
from features.events.schema import ViewerEvent
from features.events.stream.connect import open_stream
from features.events.stream.port import Record, Stream
from features.history.event_log import EventLog
from features.state.codec import encode_item, encode_viewer, item_key, viewer_key
from features.state.fold import deduplicate_and_fold, fold_item, fold_viewer
from features.state.online.connect import open_online
from features.state.online.port import OnlineStore
from features.state.votes import LoggedEvent, items_of
from recsys.domain.decay import LANDMARK
from recsys.domain.item_statistics import ItemState
from recsys.domain.viewer import ViewerState

ROOT = Path(__file__).parents[3]
PARTITIONS = 3


def make_events(count: int, prefix: str, seed: int) -> list[ViewerEvent]:
    """Return events of 200 viewers on 300 items; one in twenty is a later duplicate."""
    chance = random.Random(seed)
    events: list[ViewerEvent] = []
    for number in range(count):
        if number > 100 and chance.random() < 0.05:
            events.append(events[-chance.randrange(1, 100)])
            continue
        kind = chance.choice(["play", "complete", "like", "click", "impression", "ping"])
        items = tuple(f"{prefix}i{i}" for i in chance.sample(range(300), 5))
        fields: dict[str, Any] = (
            {"items": items, "context": {"seed": 1}}
            if kind == "impression"
            else {"item_id": items[0], "position_s": 3.0}
        )
        viewer = f"{prefix}v{int(chance.paretovariate(0.7)) % 200}"
        events.append(
            ViewerEvent(id=f"e{number}", kind=kind, viewer_id=viewer, at=LANDMARK + number, region="cn.zj", **fields)
        )
    return events


def expected_contents(stream: Stream, topic: str, events: list[ViewerEvent]) -> dict[str, bytes]:
    """Fold the whole log at once; also check that it holds every published event."""
    viewers: dict[str, list[LoggedEvent]] = {}
    shards: dict[tuple[str, str], list[LoggedEvent]] = {}
    total = 0
    for partition in range(stream.partitions(topic)):
        logged_events: list[LoggedEvent] = []
        while messages := stream.read(topic, partition, len(logged_events), 5000):
            logged_events += [
                LoggedEvent(f"{topic}/{partition}", message.offset, decode(message.value)) for message in messages
            ]
        total += len(logged_events)
        for logged in logged_events:
            viewers.setdefault(logged.event.viewer_id, []).append(logged)
    assert total == len(events)
    dump = {}
    for viewer_id, viewer_events in viewers.items():
        new_viewer = ViewerState(viewer_id)
        dump[viewer_key(viewer_id)] = encode_viewer(fold_viewer(new_viewer, viewer_events))
        for weighted in deduplicate_and_fold(new_viewer, viewer_events).new_events:
            for item_id in items_of(weighted.event):
                shards.setdefault((item_id, weighted.source), []).append(weighted)
    for (item_id, source), item_events in shards.items():
        item_events.sort(key=lambda weighted: weighted.offset)
        dump[item_key(item_id, source)] = encode_item(fold_item(ItemState(item_id), item_events))
    return dump


@contextmanager
def worker(*flags: str) -> Iterator[subprocess.Popen[str]]:
    """Run a worker process and wait until it polls; kill it at the end if it is still running."""
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
def test_repeated_kills_lose_nothing_on_the_embedded_stores(tmp_path: Path, seed: int) -> None:
    chance, events = random.Random(seed), make_events(10_000, "", seed)
    flags = ["--home", str(tmp_path), "--partitions", str(PARTITIONS)]
    with (
        closing(open_stream(f"sqlite:///{tmp_path}/stream.db", partitions=PARTITIONS)) as stream,
        closing(open_online(f"sqlite:///{tmp_path}/online.db", timeout_s=10.0)) as online,
    ):
        publish(stream, "viewer-events", events)
        n_unfinished = 0
        for _ in range(3):
            with worker(*flags) as process:
                time.sleep(chance.uniform(0.05, 0.3))
                process.kill()
            with closing(stream.consumer("viewer-events", "features")) as successor:
                n_unfinished += bool(successor.poll(1, 0))
        assert n_unfinished >= 1
        with worker(*flags, "--until-idle", "0.5") as process:
            assert process.wait(60) == 0
        assert dump(online, "") == expected_contents(stream, "viewer-events", events)
    assert_logged_once(EventLog(tmp_path / "events"), events)


def test_a_kill_and_a_graceful_stop_lose_nothing_on_kafka_and_redis(
    tmp_path: Path, kafka_url: str, redis_url: str, unique: str
) -> None:
    events = make_events(4_000, unique, seed=2)
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
        expected = expected_contents(stream, unique, events)
        with worker(*flags) as process:
            wait_until(lambda: dump(online, unique) == expected)
            expected_ids = {(event.viewer_id, event.id) for event in events}  # some were written by the killed worker
            wait_until(lambda: len(EventLog(tmp_path / "events").events()) == len(expected_ids))
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
    assert_logged_once(EventLog(tmp_path / "events"), events)


def wait_until(condition: Any, within_s: float = 40.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"condition not met within {within_s:.0f} s"
        time.sleep(0.02)
