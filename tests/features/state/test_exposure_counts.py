"""Delivery counts and traffic equal those of a pure replay under duplicates, redelivery and crashes."""

from __future__ import annotations

import random
import tempfile
from collections import defaultdict
from contextlib import closing, suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.events.decode import accept, decode, encode
from features.events.schema import ViewerEvent
from features.events.stream.memory import MemoryStream
from features.events.stream.port import Record
from features.history.event_log import EventLog
from features.state.codec import decode_viewer, viewer_key
from features.state.exposure_counts import (
    MAX_TARGETS_PER_VIEWER,
    DeliveryCount,
    TrafficDay,
    read_counts,
    read_traffic,
    target_credits,
)
from features.state.keys import COUNTS, ITEMS, TRAFFIC
from features.state.online.connect import open_online
from features.state.online.memory import MemoryStore
from features.worker.worker import Worker
from recsys.domain.decay import LANDMARK
from recsys.domain.errors import EventError
from tests.features.worker.test_worker import Crash, FragileLog, FragileStore, Fuse

TOPIC = "t"
SOURCES = [f"{TOPIC}/{partition}" for partition in range(2)]
TARGETS = ("cn/a", "cn.zj/b")


@pytest.fixture(scope="module", autouse=True)
def _a_fast_disk() -> Any:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("os.fsync", lambda handle: None)
        yield


def shown(id: str, viewer: str, at: float, credits: dict[str, list[float]], region: str = "cn.zj") -> Record:
    event = ViewerEvent(
        id=id, kind="impression", viewer_id=viewer, at=at, items=("x", "y"), attention=(1.0, 0.5),
        placement="cn.zj-mobile-home", region=region, context={"seed": 1, "targets": credits},
    )  # fmt: skip
    return Record(viewer, encode(event))


@st.composite
def pages(draw: st.DrawFn) -> list[Record]:
    """Draw pages of three viewers over two days, some duplicated, some without credits."""
    records = []
    for number in range(draw(st.integers(1, 25))):
        viewer, id = f"v{draw(st.integers(0, 2))}", f"e{draw(st.integers(max(0, number - 3), number))}"
        chance = st.tuples(st.sampled_from([0.0, 0.5, 1.0, 1.5]), st.integers(0, 2))
        credits = {
            key: [delivered, 1.5, impressions]
            for key, (delivered, impressions) in draw(st.dictionaries(st.sampled_from(TARGETS), chance)).items()
        }
        at = LANDMARK + draw(st.floats(0, 2 * 86_400, exclude_max=True)) // 1
        records.append(shown(id, viewer, at, credits, draw(st.sampled_from(["cn.zj", "cn.zj.hz"]))))
    return records


def replayed(records: list[Record]) -> tuple[dict[str, tuple[float, float, int, int]], dict[Any, tuple[float, int]]]:
    """Return the counts of the oracle: only the first event of each (viewer, id) counts."""
    seen_ids: set[tuple[str, str]] = set()
    counts: dict[str, list[Any]] = defaultdict(lambda: [0.0, 0.0, 0, 0])
    traffic: dict[Any, list[Any]] = defaultdict(lambda: [0.0, 0])
    for record in records:
        event = decode(record.value)
        if (event.viewer_id, event.id) in seen_ids:
            continue
        seen_ids.add((event.viewer_id, event.id))
        for key, (delivered, available, impressions) in target_credits(event).items():
            for index, amount in enumerate((delivered, available, 1, impressions)):
                counts[key][index] += amount
        hour = traffic[event.region, int(event.at // 3600)]
        hour[0], hour[1] = hour[0] + 1.5, hour[1] + 1
    return {k: tuple(v) for k, v in counts.items()}, {k: tuple(v) for k, v in traffic.items()}


def stored(store: Any) -> tuple[dict[str, tuple[float, float, int, int]], dict[Any, tuple[float, int]]]:
    counts = {
        key: (count.delivered, count.available, count.pages, count.impressions)
        for key, count in read_counts(store, TARGETS, SOURCES).items()
        if count.pages
    }
    traffic: dict[Any, list[Any]] = defaultdict(lambda: [0.0, 0])
    for day in read_traffic(store):
        for hour, (attention, number) in enumerate(zip(day.attention, day.pages, strict=True)):
            if number:
                sums = traffic[day.region, day.day * 24 + hour]
                sums[0], sums[1] = sums[0] + attention, sums[1] + number
    return counts, {k: tuple(v) for k, v in traffic.items()}


@settings(max_examples=60, deadline=None)
@given(pages(), st.lists(st.tuples(st.integers(0, 12), st.integers(1, 8)), max_size=6))
def test_crashes_anywhere_leave_the_counts_of_a_pure_replay(records: list[Record], runs: list[tuple[int, int]]) -> None:
    """Each run of the worker has its own batch size and crashes at some step; the last run finishes."""
    stream, store = MemoryStream(partitions=2), MemoryStore()
    stream.publish(TOPIC, records)
    with tempfile.TemporaryDirectory() as directory:
        for fuse_length, batch in [*runs, (10**6, 3)]:
            fuse = Fuse(fuse_length)
            log = FragileLog(directory)
            log.fuse = fuse
            worker = Worker(stream, FragileStore(store, fuse), log, topic=TOPIC, group="g", batch=batch)  # type: ignore[arg-type]
            with suppress(Crash):
                while worker.step(wait_s=0):
                    pass
            worker.close()
    assert stored(store) == replayed(records)


@pytest.mark.parametrize("url", ["sqlite", "redis"])
def test_the_counts_are_the_same_in_every_store(
    url: str, request: pytest.FixtureRequest, tmp_path: Any, unique: str
) -> None:
    store_url = str(request.getfixturevalue("redis_url")) if url == "redis" else f"sqlite:///{tmp_path}/online.db"
    stream, store = MemoryStream(partitions=2), open_online(store_url, 5.0)
    key = f"cn/{unique}"
    records = [shown(f"e{n % 15}", f"{unique}{n % 3}", LANDMARK + n, {key: [0.5, 1.5, 1]}) for n in range(20)]
    stream.publish(unique, records)
    first = Worker(stream, store, EventLog(tmp_path), topic=unique, group="g", batch=7)
    first.step(wait_s=0)
    first.close()
    worker = Worker(stream, store, EventLog(tmp_path), topic=unique, group="g", batch=7)
    while worker.step(wait_s=0):
        pass
    count = read_counts(store, [key], [f"{unique}/0", f"{unique}/1"])[key]
    assert (count.pages, count.delivered, count.impressions) == (15, 7.5, 15), "five events are duplicates"
    assert count.newest_at == LANDMARK + 14
    store.close()


def test_viewer_state_records_impressions_of_capped_targets(tmp_path: Any) -> None:
    stream, store = MemoryStream(partitions=1), MemoryStore()
    stream.publish(
        TOPIC,
        [
            shown("e1", "v", LANDMARK + 9, {"cn/a": [0.5, 1.5, 2], "cn/b": [1.0, 1.5, 0]}),
            shown("e1", "v", LANDMARK + 9, {"cn/a": [0.5, 1.5, 2]}),
            *(
                shown(f"f{n}", "v", LANDMARK + 10 + n, {"cn/a": [0.5, 1.5, 1]})
                for n in range(MAX_TARGETS_PER_VIEWER - 1)
            ),
        ],
    )
    Worker(stream, store, EventLog(tmp_path), topic=TOPIC, group="g").step(wait_s=0)
    raw = store.get([viewer_key("v")])[0]
    assert raw is not None
    impressions = decode_viewer(raw).target_impressions
    assert impressions.keys() == {"cn/a"}
    assert impressions["cn/a"] == (LANDMARK + 9, *(LANDMARK + 10 + n for n in range(MAX_TARGETS_PER_VIEWER - 1)))


def test_only_the_engine_can_credit_targets() -> None:
    sent = {
        "specversion": "1.0", "id": "e", "source": "/app", "type": "mainstay.viewer.impression", "subject": "v",
        "data": {"items": ["x"], "context": {"targets": {"cn/a": [5.0, 5.0, 0]}}},
    }  # fmt: skip
    with pytest.raises(EventError, match="only the engine"):
        accept(sent, now=LANDMARK)


@pytest.mark.parametrize(
    "targets", [None, 3, {"cn/a": 5}, {"cn/a": [1.0, 2.0]}, {"cn/a": [True, 1, 1]}, {"cn/a": [-1, 1, 1]}]
)
def test_invalid_target_credits_are_ignored(targets: Any) -> None:
    context = {} if targets is None else {"targets": targets}
    event = ViewerEvent(id="e", kind="impression", viewer_id="v", at=1.0, items=("x",), context=context)
    assert target_credits(event) == {}


def test_new_shards_have_no_offset() -> None:
    assert DeliveryCount("cn/a").offset == TrafficDay("p", "r", 0).offset == -1


def test_only_engine_impressions_count_for_items_targets_and_traffic(tmp_path: Any) -> None:
    """Impressions that clients report do not change items, targets and traffic.

    They do not change a viewer's impressions either if they confirm a page of the engine; an impression without a
    request id counts for its viewer only.
    """
    chance = random.Random(2)
    dumps, shown_to = [], []
    for clients in (False, True):
        stream, store, log = MemoryStream(partitions=2), MemoryStore(), EventLog(tmp_path / str(clients))
        for n in range(200):
            viewer, at = f"v{n % 7}", LANDMARK + 3600.0 * n
            if n % 2:
                record = shown(f"e{n}", viewer, at, {"cn/a": [0.5, 1.5, 1]})
            elif not clients:
                record = Record(viewer, encode(ViewerEvent(id=f"e{n}", kind="search", viewer_id=viewer, at=at)))
            else:
                sent = {"specversion": "1.0", "id": f"e{n}", "source": "/app", "type": "mainstay.viewer.impression",
                        "subject": viewer, "data": {"items": chance.sample("xyz", 2), "attention": [1.0, 1.0],
                        "placement": "cn.zj-mobile-home", "region": "invented", "request_id": "r"}}  # fmt: skip
                record = Record(viewer, encode(accept(sent, at)))
            stream.publish(TOPIC, [record])
        with closing(Worker(stream, store, log, topic=TOPIC, group="g")) as worker:
            worker.step(wait_s=0)
        dumps.append({k: raw for k, raw in store.scan("") if k.startswith((ITEMS, COUNTS, TRAFFIC))})
        states = {v: store.get([viewer_key(f"v{v}")])[0] for v in range(7)}
        shown_to.append({v: decode_viewer(raw).shown for v, raw in states.items() if raw is not None})
        assert len(list(log.replay())) == 200
    assert dumps[0] == dumps[1]
    assert shown_to[0] == shown_to[1]
    own = ViewerEvent(id="own", kind="impression", viewer_id="w", at=LANDMARK, items=("z",))
    stream.publish(TOPIC, [Record("w", encode(own))])
    Worker(stream, store, log, topic=TOPIC, group="g").step(wait_s=0)
    assert {k: raw for k, raw in store.scan("") if k.startswith((ITEMS, COUNTS, TRAFFIC))} == dumps[1]
    raw = store.get([viewer_key("w")])[0]
    assert raw is not None
    assert decode_viewer(raw).impressions_since("z", 0.0) == 1
