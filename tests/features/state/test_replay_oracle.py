"""Whatever is cut, sent twice, delivered again or killed: the stores hold what a plain replay of single events gives.

The replay knows no batches, no threads and no cleverness: it takes the log in its order, folds one event, writes the
state down as bytes, reads it again, and goes on. It is the definition; the worker has to keep up with it.
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

from features.events.decode import ViewerEvent, decode, encode
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
    viewer_key,
)
from features.state.exposure_counts import (
    DeliveryCount,
    TrafficDay,
    count_key,
    credits_of,
    fold_count,
    fold_traffic,
    traffic_key,
)
from features.state.fold import FOREVER, LoggedEvent, deduplicate_and_fold, fold_item, items_of
from features.state.online.memory import MemoryStore
from features.state.online.port import OnlineStore
from features.worker.worker import Worker
from recsys.domain.types import Screen
from recsys.domain.viewer import DAY_S, LANDMARK, ItemState, ViewerState, unexpired
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
    """The process is gone."""


class Dying:
    """A store or a log of a process that dies at the n-th thing it does, perhaps in the middle of a put."""

    def __init__(self, inner: Any, left: list[int]) -> None:
        self._inner, self._left = inner, left

    def _burn(self) -> bool:
        self._left[0] -= 1
        return self._left[0] == 0

    def put(self, entries: Mapping[str, bytes], ttl_s: float | None = None) -> None:
        if self._burn():
            self._inner.put(dict(list(entries.items())[: len(entries) // 2]), ttl_s)
            raise Crash
        self._inner.put(entries, ttl_s)
        if self._burn():
            raise Crash

    def append(self, *said: Any) -> None:
        if self._burn():
            raise Crash
        self._inner.append(*said)
        if self._burn():
            raise Crash

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def replayed(stream: MemoryStream, ttl_s: float = FOREVER) -> dict[str, bytes]:
    """All that the stores should hold."""
    kept: dict[str, bytes] = {}

    def go_on(key: str, fresh: object, read: Callable[[bytes], Any], write: Callable[[Any], bytes], step: Any) -> None:
        before = read(kept[key]) if key in kept else fresh
        kept[key] = write(step(before))

    for partition in range(stream.partitions(TOPIC)):
        source = f"{TOPIC}/{partition}"
        for message in stream.read(TOPIC, partition, 0, 10**6):
            event = decode(message.value)
            key = viewer_key(event.viewer_id)
            before = decode_viewer(kept[key]) if key in kept else ViewerState(event.viewer_id)
            fresh, after = deduplicate_and_fold(before, [LoggedEvent(source, message.offset, event)], ttl_s)
            kept[key] = encode_viewer(after)
            for one in fresh:
                for item in items_of(event):
                    go_on(item_key(item, source), ItemState(item), decode_item, encode_item,
                          lambda state, one=one: fold_item(state, [one]))  # fmt: skip
                for target in credits_of(event):
                    go_on(count_key(target, source), DeliveryCount(target), _reader(DeliveryCount), encode_state,
                          lambda state, one=one: fold_count(state, [one]))  # fmt: skip
                if event.kind == "impression" and event.context and event.placement and event.attention:
                    day = TrafficDay(event.placement, event.region, int(event.at // DAY_S))
                    go_on(traffic_key(day.placement, day.region, day.day, source), day, _reader(TrafficDay),
                          encode_state, lambda state, one=one: fold_traffic(state, [one]))  # fmt: skip
    return kept


def _reader(kind: Any) -> Callable[[bytes], Any]:
    return lambda raw: msgspec.msgpack.decode(raw[1:], type=kind)


def happened(chance: random.Random, number: int, at: float) -> ViewerEvent:
    """One event of somebody: of any kind, about few items, with all that the fold looks at."""
    kind = chance.choice(KINDS)
    said: dict[str, Any] = {
        "region": chance.choice(["", "cn", "cn.zj.hz"]),
        "session_id": chance.choice(["", "s", "t"]),
    }
    said |= {"screen": chance.choice([None, Screen.TV]), "placement": chance.choice(["", "cn.zj-mobile-home"])}
    if kind == "impression":
        said["items"] = tuple(chance.sample("abcdef", chance.randint(1, 4)))
        said["request_id"] = chance.choice(["", "r"])
        if chance.random() < 0.5:
            said["attention"] = tuple(0.5 for _ in said["items"])
            said["context"] = {"targets": {"cn/a": [0.5, 1.0, chance.randint(0, 2)]}}
    elif kind != "follow":
        said["item_id"] = chance.choice("abcdef")
        said |= {"duration_s": chance.choice([None, 100.0]), "percent": chance.choice([None, 10.0, 99.0])}
    if kind == "ping":
        said["position_s"] = chance.choice([1.0, 60.0])
    return ViewerEvent(id=f"e{number}", kind=kind, viewer_id=chance.choice(VIEWERS), at=at, **said)  # type: ignore[arg-type]


def log_of(seed: int, count: int, lateness_s: float) -> list[Record]:
    """A log out of order in time; one event in six is an earlier one sent again, received by the server now."""
    chance, events, now = random.Random(seed), [], LANDMARK
    for number in range(count):
        now += chance.choice([1.0, 20.0, 600.0, 0.4 * DAY_S])
        said = chance.randrange(number + 1) if chance.random() < 1 / 6 else number
        events.append(happened(random.Random(seed * 1000 + said), said, now - chance.uniform(0, lateness_s)))
    return [Record(event.viewer_id, encode(event)) for event in events]


lives = st.lists(st.tuples(st.integers(1, 14), st.integers(1, 30)), max_size=6)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 60), st.sampled_from([0.0, 3000.0, 3 * DAY_S]), lives,
       st.sampled_from([FOREVER, DAY_S]))  # fmt: skip
def test_the_stores_hold_what_a_plain_replay_gives(
    seed: int, count: int, lateness_s: float, cut: list[tuple[int, int]], ttl_s: float
) -> None:
    """Each life of the worker has its own size of batch and dies somewhere; the last one finishes."""
    stream, store = MemoryStream(partitions=2), MemoryStore(clock=lambda: 0.0)
    records = log_of(seed, count, lateness_s)
    stream.publish(TOPIC, records)
    with tempfile.TemporaryDirectory() as directory:
        for fuse, batch in [*cut, (10**6, 1 + seed % 30)]:
            run(stream, store, directory, [fuse], batch, ttl_s)
        assert store_contents(store) == replayed(stream, ttl_s)
        logged = [(one.event.viewer_id, one.event.id) for one in EventLog(directory).replay()]
    assert sorted(logged) == sorted({(record.key, decode(record.value).id) for record in records})


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(0, 12), min_size=1, max_size=12))
def test_going_back_to_an_older_commit_changes_nothing(seed: int, back: Sequence[int]) -> None:
    """The stream delivers again what was committed long ago: a group of another name starts from the beginning."""
    stream, store = MemoryStream(partitions=2), MemoryStore()
    records = log_of(seed, 40, 3000.0)
    with tempfile.TemporaryDirectory() as directory:
        for number, size in enumerate(back):
            stream.publish(TOPIC, records[:size])
            records = records[size:]
            run(stream, store, directory, [10**6], 7, FOREVER, group=f"g{number % 3}")
        run(stream, store, directory, [10**6], 7, FOREVER, group="g0")
    assert store_contents(store) == replayed(stream)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([600.0, 0.4 * DAY_S, 2 * DAY_S]), st.floats(0, 3 * DAY_S))
def test_online_and_offline_forget_at_the_same_moment(seed: int, ttl_s: float, later_s: float) -> None:
    """Online the store's clock lets go of bytes while the worker follows; offline one fold runs over the whole log."""
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
        there = unexpired(None if raw is None else decode_viewer(raw), now[0], ttl_s)
        assert there == unexpired(None if expected is None else decode_viewer(expected), now[0], ttl_s)
    for key, raw in store.scan("item:"):
        assert raw == offline[key]


def run(
    stream: MemoryStream,
    store: OnlineStore,
    directory: str,
    left: list[int],
    batch: int,
    ttl_s: float,
    group: str = "g",
) -> None:
    """One life of a worker."""
    worker = Worker(
        stream,
        Dying(store, left),
        Dying(EventLog(directory), left),  # type: ignore[arg-type]
        topic=TOPIC,
        group=group,
        batch=batch,
        viewer_ttl_s=None if ttl_s == FOREVER else ttl_s,
    )
    with suppress(Crash):
        while worker.step(wait_s=0):
            pass
    worker.close()
