"""Under any batches, duplicates, redeliveries and crashes, the stores equal a naive replay of single events.

The replay has no batches, threads or optimisations: for each event in log order it decodes the state, folds the event
and encodes the state. It is the specification of the worker.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.events.decode import decode, encode
from features.events.schema import ViewerEvent
from features.events.stream.memory import MemoryStream
from features.events.stream.port import Record
from features.history.event_log import EventLog
from features.state.codec import (
    decode_item,
    decode_viewer,
    encode_item,
    encode_state,
    encode_viewer,
    item_key,
    unframe,
    viewer_key,
)
from features.state.exposure_counts import (
    DeliveryCount,
    TrafficDay,
    count_key,
    fold_count,
    fold_traffic,
    target_credits,
    traffic_key,
)
from features.state.fold import FOREVER, deduplicate_and_fold, fold_item
from features.state.online.memory import MemoryStore
from features.state.online.port import OnlineStore
from features.state.votes import LoggedEvent, items_of
from features.worker.worker import Worker
from recsys.domain.decay import DAY_S, LANDMARK
from recsys.domain.item_statistics import ItemState
from recsys.domain.placement import Screen
from recsys.domain.viewer import ViewerState, unexpired
from tests.features.worker.test_worker import store_contents

TOPIC = "t"
KINDS = ("impression", "impression", "click", "open", "play", "play", "ping", "complete", "like", "dislike", "hide",
         "follow", "pause")  # fmt: skip
VIEWERS = ("v", "w", "x")


@pytest.fixture(scope="module", autouse=True)
def _a_fast_disk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("os.fsync", lambda handle: None)
        yield


class Crash(Exception):
    """The simulated process crashes."""


class CrashingAdapter:
    """A store or log that crashes at its n-th operation, possibly in the middle of a put."""

    def __init__(self, inner: Any, operations_left: list[int]) -> None:
        self._inner, self._operations_left = inner, operations_left

    def _count_down(self) -> bool:
        self._operations_left[0] -= 1
        return self._operations_left[0] == 0

    def put(self, entries: Mapping[str, bytes], ttl_s: float | None = None) -> None:
        if self._count_down():
            self._inner.put(dict(list(entries.items())[: len(entries) // 2]), ttl_s)
            raise Crash
        self._inner.put(entries, ttl_s)
        if self._count_down():
            raise Crash

    def append(self, *args: Any) -> None:
        if self._count_down():
            raise Crash
        self._inner.append(*args)
        if self._count_down():
            raise Crash

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def replayed(stream: MemoryStream, ttl_s: float = FOREVER) -> dict[str, bytes]:
    """Return the expected contents of the stores."""
    states: dict[str, bytes] = {}

    def apply_step(
        key: str, initial: object, read: Callable[[bytes], Any], write: Callable[[Any], bytes], step: Any
    ) -> None:
        before = read(states[key]) if key in states else initial
        states[key] = write(step(before))

    for partition in range(stream.partitions(TOPIC)):
        source = f"{TOPIC}/{partition}"
        for message in stream.read(TOPIC, partition, 0, 10**6):
            event = decode(message.value)
            key = viewer_key(event.viewer_id)
            before = decode_viewer(states[key]) if key in states else ViewerState(event.viewer_id)
            weighted_events, after = deduplicate_and_fold(before, [LoggedEvent(source, message.offset, event)], ttl_s)
            states[key] = encode_viewer(after)
            for weighted in weighted_events:
                for item in items_of(event):
                    apply_step(item_key(item, source), ItemState(item), decode_item, encode_item,
                          lambda state, weighted=weighted: fold_item(state, [weighted]))  # fmt: skip
                for target in target_credits(event):
                    apply_step(count_key(target, source), DeliveryCount(target), _reader(DeliveryCount), encode_state,
                          lambda state, weighted=weighted: fold_count(state, [weighted]))  # fmt: skip
                if event.kind == "impression" and event.context and event.placement and event.attention:
                    day = TrafficDay(event.placement, event.region, int(event.at // DAY_S))
                    apply_step(traffic_key(day.placement, day.region, day.day, source), day, _reader(TrafficDay),
                          encode_state, lambda state, weighted=weighted: fold_traffic(state, [weighted]))  # fmt: skip
    return states


def _reader(kind: Any) -> Callable[[bytes], Any]:
    return lambda raw: msgspec.msgpack.decode(unframe(raw)[1], type=kind)


def happened(chance: random.Random, number: int, at: float) -> ViewerEvent:
    """Return a random event of any kind, about few items, with all fields that the fold reads."""
    kind = chance.choice(KINDS)
    fields: dict[str, Any] = {
        "region": chance.choice(["", "cn", "cn.zj.hz"]),
        "session_id": chance.choice(["", "s", "t"]),
    }
    fields |= {"screen": chance.choice([None, Screen.TV]), "placement": chance.choice(["", "cn.zj-mobile-home"])}
    if kind == "impression":
        fields["items"] = tuple(chance.sample("abcdef", chance.randint(1, 4)))
        fields["request_id"] = chance.choice(["", "r"])
        if chance.random() < 0.5:
            fields["attention"] = tuple(0.5 for _ in fields["items"])
            fields["context"] = {"targets": {"cn/a": [0.5, 1.0, chance.randint(0, 2)]}}
    elif kind != "follow":
        fields["item_id"] = chance.choice("abcdef")
        fields |= {"duration_s": chance.choice([None, 100.0]), "percent": chance.choice([None, 10.0, 99.0])}
    if kind == "ping":
        fields["position_s"] = chance.choice([1.0, 60.0])
    if "context" not in fields:
        fields["trust"] = chance.choice(["trusted", "anonymous", "anonymous", "excess"])
    return ViewerEvent(id=f"e{number}", kind=kind, viewer_id=chance.choice(VIEWERS), at=at, **fields)  # type: ignore[arg-type]


def log_of(seed: int, count: int, lateness_s: float) -> list[Record]:
    """Return a log that is out of order in time. One event in six is a duplicate of an earlier one, received now."""
    chance, events, now = random.Random(seed), [], LANDMARK
    for number in range(count):
        now += chance.choice([1.0, 20.0, 600.0, 0.4 * DAY_S])
        original = chance.randrange(number + 1) if chance.random() < 1 / 6 else number
        events.append(happened(random.Random(seed * 1000 + original), original, now - chance.uniform(0, lateness_s)))
    return [Record(event.viewer_id, encode(event)) for event in events]


runs_strategy = st.lists(st.tuples(st.integers(1, 14), st.integers(1, 30)), max_size=6)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 60), st.sampled_from([0.0, 3000.0, 3 * DAY_S]), runs_strategy,
       st.sampled_from([FOREVER, DAY_S]))  # fmt: skip
def test_stores_equal_a_naive_replay(
    seed: int, count: int, lateness_s: float, runs: list[tuple[int, int]], ttl_s: float
) -> None:
    """Each run of the worker has its own batch size and crashes at some operation; the last run finishes."""
    stream, store = MemoryStream(partitions=2), MemoryStore(clock=lambda: 0.0)
    records = log_of(seed, count, lateness_s)
    stream.publish(TOPIC, records)
    with tempfile.TemporaryDirectory() as directory:
        for fuse, batch in [*runs, (10**6, 1 + seed % 30)]:
            run(stream, store, directory, [fuse], batch, ttl_s)
        assert store_contents(store) == replayed(stream, ttl_s)
        logged = [(event.event.viewer_id, event.event.id) for event in EventLog(directory).replay()]
    assert sorted(logged) == sorted({(record.key, decode(record.value).id) for record in records})


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(0, 12), min_size=1, max_size=12))
def test_redelivery_from_an_older_commit_changes_nothing(seed: int, batch_sizes: Sequence[int]) -> None:
    """A consumer group with a different name starts from the beginning and redelivers committed events."""
    stream, store = MemoryStream(partitions=2), MemoryStore()
    records = log_of(seed, 40, 3000.0)
    with tempfile.TemporaryDirectory() as directory:
        for number, size in enumerate(batch_sizes):
            stream.publish(TOPIC, records[:size])
            records = records[size:]
            run(stream, store, directory, [10**6], 7, FOREVER, group=f"g{number % 3}")
        run(stream, store, directory, [10**6], 7, FOREVER, group="g0")
    assert store_contents(store) == replayed(stream)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([600.0, 0.4 * DAY_S, 2 * DAY_S]), st.floats(0, 3 * DAY_S))
def test_online_and_offline_state_expire_at_the_same_time(seed: int, ttl_s: float, later_s: float) -> None:
    """Online, the store's clock expires states while the worker follows; offline, one fold runs over the whole log."""
    stream, now = MemoryStream(partitions=1), [LANDMARK]
    store = MemoryStore(clock=lambda: now[0])
    with tempfile.TemporaryDirectory() as directory:
        for record in log_of(seed, 40, 0.0):
            now[0] = max(now[0], decode(record.value).at)
            stream.publish(TOPIC, [record])
            run(stream, store, directory, [10**6], 7, ttl_s)
    now[0] += later_s
    online = {v: store.get([viewer_key(v)])[0] for v in VIEWERS}
    offline = replayed(stream, ttl_s)
    for viewer in VIEWERS:
        raw, expected = online[viewer], offline.get(viewer_key(viewer))
        actual = unexpired(None if raw is None else decode_viewer(raw), now[0], ttl_s)
        assert actual == unexpired(None if expected is None else decode_viewer(expected), now[0], ttl_s)
    for key, raw in store.scan("item:"):
        assert raw == offline[key]


def run(
    stream: MemoryStream,
    store: OnlineStore,
    directory: str,
    operations_left: list[int],
    batch: int,
    ttl_s: float,
    group: str = "g",
) -> None:
    """Run a worker until it is idle or crashes."""
    worker = Worker(
        stream,
        CrashingAdapter(store, operations_left),
        CrashingAdapter(EventLog(directory), operations_left),  # type: ignore[arg-type]
        topic=TOPIC,
        group=group,
        batch=batch,
        viewer_ttl_s=None if ttl_s == FOREVER else ttl_s,
    )
    with suppress(Crash):
        while worker.step(wait_s=0):
            pass
    worker.close()
