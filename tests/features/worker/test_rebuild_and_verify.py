"""A rebuild restores the online store byte for byte, and `verify` finds every difference from the event log."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from features.checksum import seal
from features.events.stream.memory import MemoryStream
from features.events.stream.port import Record
from features.history.compaction import compact
from features.history.event_log import EventLog
from features.state.codec import viewer_key
from features.state.exposure_counts import TRAFFIC_TTL_S
from features.state.keys import REBUILD_STARTED, TRAFFIC, VIEWERS
from features.state.online.memory import MemoryStore
from features.worker.rebuild import expire_idle, from_log, from_stream, rebuild
from features.worker.verify import find_differences
from recsys.domain.decay import DAY_S, LANDMARK
from tests.features.worker.runs import END, TOPIC, TTL_S, dump, folded, happened, published, worker


@pytest.fixture(scope="module", autouse=True)
def _no_fsync() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda handle: None)
        yield


@settings(
    max_examples=8,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.generate],  # no shrinking: each example opens databases
)
@given(st.integers(0, 10**6), st.booleans(), st.booleans())
def test_a_rebuilt_store_equals_the_original_byte_for_byte(
    tmp_path_factory: pytest.TempPathFactory, seed: int, from_parquet: bool, compacted: bool
) -> None:
    chance = random.Random(seed)
    stream, online, log = MemoryStream(partitions=3), MemoryStore(), EventLog(tmp_path_factory.mktemp("events"))
    published(stream, happened(chance, 150))
    stream.publish(TOPIC, [Record("viewer-1", b"rubbish")])
    folded(stream, online, log, chance.choice([7, 40]))
    expected = dump(online)
    if compacted:
        compact(log)
    if from_parquet:
        sources = from_log(log)
    else:
        log = EventLog(tmp_path_factory.mktemp("lost"))  # the Parquet files are lost too
        unreadable: list[object] = []
        sources = from_stream(stream, log, TOPIC, unreadable.append)
    online.put({viewer_key("stray"): b"?", "other:key": b"kept"})
    assert rebuild(worker(stream, online, log), online, sources, LANDMARK, TTL_S) == 150
    assert dump(online) == expected | {"other:key": b"kept", REBUILD_STARTED: seal(repr(LANDMARK).encode())}
    assert len({(p.source, p.offset) for source in log.sources() for p in log.by_offset(source)}) == 150
    now = END + TTL_S / 2
    assert rebuild(worker(stream, online, log), online, from_log(log), now, TTL_S) == 150
    assert {key for key in expected if key not in dump(online)} == {
        viewer_key(viewer)
        for viewer in {p.event.viewer_id for p in log.replay()}
        if now - max(p.event.at for p in log.replay() if p.event.viewer_id == viewer) > TTL_S
    }


def test_verify_names_each_difference(tmp_path: Path) -> None:
    stream, online, log = MemoryStream(partitions=1), MemoryStore(), EventLog(tmp_path)
    published(stream, happened(random.Random(5), 80))
    folded(stream, online, log)
    replay = MemoryStore()
    replay.put(dump(online))
    assert list(find_differences(online, replay, END, TTL_S)) == []
    first, second = sorted(key for key in dump(online) if key.startswith(VIEWERS))[:2]
    online.put({first: dump(online)[second], viewer_key("stray"): b"?"})
    replay.put({"item:{new}:t/0": b"?"})
    differences = dict(find_differences(online, replay, END, TTL_S))
    assert differences.pop(first).startswith("differs in viewer_id, recent")
    assert differences == {viewer_key("stray"): "is not in the replay", "item:{new}:t/0": "is missing online"}


def test_expired_traffic_is_not_a_difference(tmp_path: Path) -> None:
    stream, online, log = MemoryStream(partitions=1), MemoryStore(), EventLog(tmp_path)
    published(stream, happened(random.Random(6), 80))
    folded(stream, online, log)
    later = END + TRAFFIC_TTL_S + DAY_S
    with_traffic, replay = dump(online), MemoryStore()
    replay.put(with_traffic)
    expire_idle(replay, later, TTL_S)
    assert any(key.startswith(TRAFFIC) for key in with_traffic)
    assert not any(key.startswith(TRAFFIC) for key in dump(replay))
    without_traffic = {key: raw for key, raw in with_traffic.items() if not key.startswith(TRAFFIC)}
    for states in (with_traffic, without_traffic):
        store = MemoryStore()
        store.put(states)
        assert list(find_differences(store, replay, later, TTL_S)) == []
