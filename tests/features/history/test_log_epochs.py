"""A recreated log assigns its offsets again; its events still count as new."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path

import pytest

from features.events.decode import encode
from features.events.stream.connect import open_stream
from features.events.stream.memory import MemoryStream
from features.events.stream.port import Record
from features.history.compaction import compact
from features.history.event_log import EventLog
from features.history.log_epochs import FILE_NAME, LogEpoch, LogEpochs, epoch_partitions
from features.state.codec import decode_viewer, viewer_key
from features.state.exposure_counts import read_counts
from features.state.keys import COUNTS, LOG_EPOCHS
from features.state.online.connect import open_online
from features.state.online.memory import MemoryStore
from features.state.online.port import OnlineStore
from features.worker.rebuild import from_log, from_stream, rebuild
from features.worker.verify import find_differences
from features.worker.worker import Worker
from recsys.domain.decay import LANDMARK
from recsys.domain.errors import Conflict, Unavailable
from tests.features.state.test_replay_oracle import happened
from tests.features.worker.test_worker import TOPIC, play_record, store_contents

YEAR_S = 365 * 86_400.0


def worker(stream: MemoryStream, store: OnlineStore, log: EventLog) -> Worker:
    return Worker(stream, store, log, topic=TOPIC, group="g", batch=7)


def folded(stream: MemoryStream, store: OnlineStore, log: EventLog) -> None:
    with closing(worker(stream, store, log)) as worker_:
        while worker_.step(wait_s=0):
            pass


def plays(store: OnlineStore, viewer: str = "v") -> int:
    raw = store.get([viewer_key(viewer)])[0]
    return 0 if raw is None else decode_viewer(raw).counts["play"]


def test_events_of_a_recreated_log_are_folded(tmp_path: Path) -> None:
    store, log = MemoryStore(), EventLog(tmp_path)
    for name in ("before", "after"):  # the second log is a new one with the same name
        stream = MemoryStream(partitions=1)
        stream.publish(TOPIC, [play_record(f"{name}{n}") for n in range(5)])
        folded(stream, store, log)
    assert plays(store) == 10
    assert log.events().num_rows == 10
    assert log.sources() == ["t/0", "t~001/0"]


def test_a_replaced_stream_file_is_a_new_log_epoch(tmp_path: Path) -> None:
    store, log, url = MemoryStore(), EventLog(tmp_path / "events"), f"sqlite:///{tmp_path}/log/stream.db"
    with closing(open_stream(url, partitions=1)) as stream:
        epoch = Worker(stream, store, log, topic=TOPIC, group="g")
        stream.publish(TOPIC, [play_record(f"before{n}") for n in range(5)])
        assert epoch.step(wait_s=0) == 5
        stream.publish(TOPIC, [play_record("unread")])
        for file in (tmp_path / "log").iterdir():
            file.unlink()
        with closing(open_stream(url, partitions=1)) as another:
            another.publish(TOPIC, [play_record(f"after{n}") for n in range(4)])
        with pytest.raises(Unavailable, match="recreated"):  # and what it read of the old one is of no name by now
            epoch.step(wait_s=0)
        epoch.close()
    with closing(open_stream(url, partitions=1)) as stream:
        folded(stream, store, log)  # type: ignore[arg-type]
    assert plays(store) == 9


@pytest.mark.parametrize("seed", range(4))
def test_several_log_epochs_are_counted_once_and_rebuilt_in_order(tmp_path: Path, seed: int) -> None:
    """There are three logs of one topic with different numbers of partitions; some events are in two of them."""
    chance, store, log = random.Random(seed), MemoryStore(), EventLog(tmp_path)
    sent: list[Record] = []
    delivered, now = 0.0, LANDMARK
    for partitions in (2, 4, 1):
        stream = MemoryStream(partitions)
        records = []
        for _ in range(40):
            now += chance.choice([1.0, 20.0, 600.0])
            event = happened(chance, len(sent) + len(records), now)
            delivered += event.context["targets"]["cn/a"][0] if event.context else 0.0  # type: ignore[index, call-overload]
            records.append(Record(event.viewer_id, encode(event)))
        stream.publish(TOPIC, [*sent[-15:], *records])
        sent += records
        folded(stream, store, log)
    count = read_counts(store, ["cn/a"], epoch_partitions(store, TOPIC, 1))["cn/a"]
    assert count.delivered == pytest.approx(delivered)
    assert {key.rpartition(":")[2] for key, _ in store.scan(COUNTS)} <= set(epoch_partitions(store, TOPIC, 1))
    assert log.events().num_rows == len(sent)

    if seed % 2:
        compact(log)
    reopened = MemoryStore()
    rebuild(worker(stream, reopened, log), reopened, from_log(log), LANDMARK, YEAR_S)
    assert store_contents(reopened) == store_contents(store)
    assert not list(find_differences(store, reopened, LANDMARK, YEAR_S))


def test_a_rebuild_from_the_stream_uses_the_current_epoch(tmp_path: Path) -> None:
    store, log = MemoryStore(), EventLog(tmp_path)
    for name in ("before", "after"):
        stream = MemoryStream(partitions=1)
        stream.publish(TOPIC, [play_record(f"{name}{n}") for n in range(5)])
        folded(stream, store, log)
    worker_ = worker(stream, store, log)
    rebuild(worker_, store, from_stream(stream, log, TOPIC, print, worker_.log_name()), LANDMARK, YEAR_S)
    assert plays(store) == 5
    assert log.events().num_rows == 10
    stream.publish(TOPIC, [play_record("more")])
    folded(stream, store, log)
    assert plays(store) == 6


def test_states_from_before_log_epochs_stay_valid(tmp_path: Path) -> None:
    """Nothing is counted twice after an upgrade, even if the worker crashed before it committed."""
    stream, store, log = MemoryStream(partitions=1), MemoryStore(), EventLog(tmp_path)
    stream.publish(TOPIC, [play_record(f"e{n}") for n in range(600)])  # more than a state remembers ids of
    folded(stream, store, log)
    store.delete([LOG_EPOCHS + TOPIC])
    (tmp_path / FILE_NAME).unlink()
    expected = store_contents(store)
    with closing(Worker(stream, store, EventLog(tmp_path), topic=TOPIC, group="another")) as reopened:
        while reopened.step(wait_s=0):
            pass
    assert store_contents(store) == expected


@pytest.fixture(params=["memory", "sqlite"])
def online(request: pytest.FixtureRequest, tmp_path: Path) -> OnlineStore:
    return open_online({"memory": "memory://", "sqlite": f"sqlite:///{tmp_path}/online.db"}[request.param])


def test_event_log_and_store_restore_epochs_from_each_other(tmp_path: Path, online: OnlineStore) -> None:
    with closing(online):
        first, second = LogEpoch("one", 4), LogEpoch("two", 2)
        assert LogEpochs(tmp_path / "a").name(online, TOPIC, first) == "t"
        assert LogEpochs(tmp_path / "a").name(online, TOPIC, second) == "t~001"
        assert LogEpochs(tmp_path / "b").name(online, TOPIC, second) == "t~001"  # its file is new
        online.delete([LOG_EPOCHS + TOPIC])
        assert epoch_partitions(online, TOPIC, 2) == ["t/0", "t/1"]
        assert LogEpochs(tmp_path / "b").name(online, TOPIC, second) == "t~001"  # the store is new
        assert LogEpochs(tmp_path / "b").name(online, TOPIC, first) == "t"
        assert LogEpochs(tmp_path / "a").name(online, "other", second) == "other"
        assert epoch_partitions(online, TOPIC, 3) == [
            "t/0", "t/1", "t/2", "t/3", "t~001/0", "t~001/1", "t~001/2"
        ]  # fmt: skip


def test_a_log_without_identity_has_the_name_of_its_topic(tmp_path: Path) -> None:
    store = MemoryStore()
    assert LogEpochs(tmp_path).name(store, TOPIC, LogEpoch("", 3)) == TOPIC
    assert not list(store.scan(""))


def test_conflicting_epochs_require_a_rebuild(tmp_path: Path) -> None:
    store = MemoryStore()
    LogEpochs(tmp_path).name(MemoryStore(), TOPIC, LogEpoch("one", 1))
    LogEpochs(tmp_path / "elsewhere").name(store, TOPIC, LogEpoch("two", 1))
    with pytest.raises(Conflict, match=r"different log epochs of topic t \(one; two\)"):
        LogEpochs(tmp_path).name(store, TOPIC, LogEpoch("two", 1))
    LogEpochs(tmp_path).restore(store, TOPIC)
    assert LogEpochs(tmp_path).name(store, TOPIC, LogEpoch("two", 1)) == "t~001"
