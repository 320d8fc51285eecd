"""One damaged byte of a stored value, in every store: it is found and repaired, and nothing else changes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from features.events.schema import ViewerEvent
from features.events.stream.memory import MemoryStream
from features.history.erasures import ErasureList, viewer_hash
from features.history.event_log import EventLog
from features.history.log_epochs import LogEpoch, epoch_partitions
from features.history.privacy import export_viewer
from features.state.codec import encode_state, frame, item_of_key, unframe
from features.state.item_columns import read_stats
from features.state.keys import (
    COUNTS,
    ERASURES,
    ITEMS,
    LOG_EPOCHS,
    PACING,
    QUARANTINE,
    REBUILD_STARTED,
    TRAFFIC,
    VIEWERS,
)
from features.state.online.connect import open_online
from features.state.online.memory import MemoryStore
from features.state.online.port import OnlineStore
from features.state.quarantine import CorruptState, quarantine, quarantined
from features.worker.rebuild import expire_idle
from features.worker.rebuild_fence import mark_rebuilt, rebuild_started_at
from features.worker.verify import find_damaged_values, find_differences
from recsys.domain.catalog import Catalog
from recsys.domain.decay import DAY_S
from recsys.domain.errors import Unavailable
from tests.features.worker.runs import END, TOPIC, TTL_S, folded, happened, published

STATES = (VIEWERS, ITEMS, COUNTS, TRAFFIC)
NOT_DERIVED = (PACING, QUARANTINE, ERASURES, LOG_EPOCHS, REBUILD_STARTED)


@pytest.fixture(scope="module", autouse=True)
def _no_fsync() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("os.fsync", lambda handle: None)
        yield


@pytest.fixture(params=["memory", "sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path, unique: str) -> Iterator[OnlineStore]:
    url = {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path}/online.db"}.get(request.param)
    if url is None:
        url = f"{request.getfixturevalue('redis_url')}?prefix={unique}"
    with closing(open_online(url, timeout_s=5.0)) as opened:
        yield opened


def damage(chance: random.Random, raw: bytes) -> bytes:
    """Return the bytes with one of them changed."""
    position = chance.randrange(len(raw))
    return raw[:position] + bytes([raw[position] ^ chance.randrange(1, 256)]) + raw[position + 1 :]


def dump(store: OnlineStore) -> dict[str, bytes]:
    return {key: raw for prefix in STATES for key, raw in store.scan(prefix)}


def event_for(key: str, number: int) -> ViewerEvent:
    """Return an event that makes a worker read the state of this key."""
    name = key.partition(":{")[2].rpartition("}")[0]
    day = int(key.rpartition("}:")[2].partition(":")[0]) if key.startswith(TRAFFIC) else 0
    return ViewerEvent(
        id=f"late-{number}",
        kind="impression",
        viewer_id=name if key.startswith(VIEWERS) else "viewer-1",
        at=day * DAY_S + 3_600.0 if day else END + number,
        region="cn.zj",
        placement="cn-tv-home",
        items=(item_of_key(key) if key.startswith(ITEMS) else "i1",),
        attention=(1.0,),
        context={"seed": number, "features": "AAAA", "targets": {"cn/a": [0.5, 1.5, 1]}},
    )


def test_a_damaged_byte_of_a_state_is_repaired_and_changes_no_other_state(
    store: OnlineStore, tmp_path: Path, scaled: Callable[..., int]
) -> None:
    chance, streams = random.Random(1), [MemoryStream(partitions=1) for _ in range(2)]
    intact, logs = MemoryStore(), [EventLog(tmp_path / name) for name in ("intact", "damaged")]
    for stream, online, log in zip(streams, (intact, store), logs, strict=True):
        published(stream, happened(random.Random(2), 100))
        folded(stream, online, log)
    for number in range(scaled(1_000, 10)):
        prefix = STATES[number % len(STATES)]
        key, raw = chance.choice(sorted(store.scan(prefix)))
        damaged = damage(chance, raw)
        store.put({key: damaged})
        assert [name for name, _ in find_differences(store, intact, END, TTL_S)] == [key]
        assert len(list(export_viewer(logs[1], store, event_for(key, number).viewer_id))) > 1
        read_stats(store, Catalog.empty(), END)
        expire_idle(store, 0.0, TTL_S)
        assert store.get([key]) == [damaged]
        for stream, online, log in zip(streams, (intact, store), logs, strict=True):
            published(stream, [event_for(key, number)])
            folded(stream, online, log)
        assert dump(store) == dump(intact)
        assert (damaged, True) in {(state.raw, state.repaired) for state in quarantined(store, key)}


def test_a_damaged_byte_of_another_value_is_reported_and_breaks_no_reader(
    store: OnlineStore, tmp_path: Path, scaled: Callable[..., int]
) -> None:
    """Erasures and log epochs are restored from the event log; pacing states belong to serving."""
    chance, log, at = random.Random(3), EventLog(tmp_path), 5.0
    log.erasures.add(viewer_hash("v"), at)
    log.erasures.sync_with(store)
    epoch = LogEpoch("one", 4)
    log.epochs.name(store, TOPIC, epoch)
    quarantine(store, [CorruptState("viewer:{v}", "cause", 1.0, True, b"?")])
    store.put({f"{PACING}{{cn/a}}": encode_state(CorruptState("any", "fields", 1.0, True, b""))})
    mark_rebuilt(store, 7.0)
    intact = {key: raw for prefix in NOT_DERIVED for key, raw in store.scan(prefix)}
    assert len(intact) == len(NOT_DERIVED)
    assert list(find_damaged_values(store)) == []
    for number in range(scaled(1_000, 10)):
        prefix = NOT_DERIVED[number % len(NOT_DERIVED)]
        (key,) = (key for key in intact if key.startswith(prefix))
        store.put({key: damage(chance, intact[key])})
        assert [name for name, _ in find_damaged_values(store)] == [key]
        assert len(list(quarantined(store))) == 1
        assert rebuild_started_at(store) == (7.0 if prefix != REBUILD_STARTED else float("-inf"))
        if prefix == LOG_EPOCHS:
            with pytest.raises(Unavailable, match="damaged"):
                epoch_partitions(store, TOPIC, 4)
        log.erasures.sync_with(store)
        log.epochs.repair(store, TOPIC)
        assert log.epochs.name(store, TOPIC, epoch) == TOPIC
        restored = dict(store.scan(ERASURES)) | dict(store.scan(LOG_EPOCHS))
        assert restored == {name: intact[name] for name in restored}
        store.put(intact)


def test_a_damaged_erasure_without_a_line_in_the_log_still_erases(store: OnlineStore, tmp_path: Path) -> None:
    erasures = ErasureList(tmp_path / "a")
    erasures.add(viewer_hash("v"), 5.0)
    erasures.sync_with(store)
    ((key, raw),) = store.scan(ERASURES)
    store.put({key: damage(random.Random(4), raw)})
    restored = ErasureList(tmp_path / "b")
    restored.sync_with(store)
    assert restored.erased_at("v") >= 5.0


def test_a_damaged_line_of_an_erasure_or_epoch_is_restored_from_the_store(
    store: OnlineStore, tmp_path: Path, scaled: Callable[..., int]
) -> None:
    chance = random.Random(5)
    log = EventLog(tmp_path)
    log.erasures.add(viewer_hash("v"), 5.0)
    log.erasures.add(viewer_hash("w"), 6.0)
    log.erasures.sync_with(store)
    log.epochs.name(store, TOPIC, LogEpoch("one", 4))
    files = sorted(path for path in tmp_path.iterdir() if path.suffix in (".json", ".jsonl"))
    assert len(files) == 2
    for number in range(scaled(1_000, 10)):
        file = files[number % 2]
        intact = file.read_bytes()
        file.write_bytes(damage(chance, intact))
        reopened = EventLog(tmp_path)
        reopened.erasures.sync_with(store)
        assert reopened.erasures.all() == {viewer_hash("v"): 5.0, viewer_hash("w"): 6.0}
        assert reopened.epochs.name(store, TOPIC, LogEpoch("one", 4)) == TOPIC
        file.write_bytes(intact)


@pytest.mark.parametrize("sealed", [False, True])
def test_a_text_that_is_not_utf_8_does_not_stop_the_worker(store: OnlineStore, tmp_path: Path, sealed: bool) -> None:
    """Also if the checksum is correct, as after an error of the program that wrote the state."""
    stream, log = MemoryStream(partitions=1), EventLog(tmp_path)
    published(stream, [event_for("viewer:{viewer-1}", 0)])
    folded(stream, store, log)
    (raw,) = store.get([key := "viewer:{viewer-1}"])
    assert raw is not None
    body = bytes(unframe(raw)[1]).replace(b"viewer-1", b"view\xf9r-1")
    store.put({key: frame(body) if sealed else raw[:5] + body})
    published(stream, [event_for(key, 1), event_for("viewer:{viewer-2}", 2)])
    folded(stream, store, log)
    assert [state.repaired for state in quarantined(store, key)] == [True]
    assert {name for name, _ in store.scan(VIEWERS)} == {key, "viewer:{viewer-2}"}
