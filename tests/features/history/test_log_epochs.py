"""A log that was wiped gives out its offsets again; what comes then is new all the same."""

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
from features.history.log_epochs import NAME, LogEpoch, LogEpochs, epoch_partitions
from features.state.codec import decode_viewer, viewer_key
from features.state.exposure_counts import read_counts
from features.state.keys import COUNTS, LOG_EPOCHS
from features.state.online.connect import open_online
from features.state.online.memory import MemoryStore
from features.state.online.port import OnlineStore
from features.worker.rebuild import from_log, from_stream, rebuild
from features.worker.verify import find_differences
from features.worker.worker import Worker
from recsys.domain.errors import Conflict, Unavailable
from recsys.domain.viewer import LANDMARK
from tests.features.state.test_replay_oracle import happened
from tests.features.worker.test_worker import TOPIC, play_record, store_contents

YEAR_S = 365 * 86_400.0


def worker(stream: MemoryStream, store: OnlineStore, log: EventLog) -> Worker:
    return Worker(stream, store, log, topic=TOPIC, group="g", batch=7)


def folded(stream: MemoryStream, store: OnlineStore, log: EventLog) -> None:
    with closing(worker(stream, store, log)) as one:
        while one.step(wait_s=0):
            pass


def plays(store: OnlineStore, viewer: str = "v") -> int:
    raw = store.get([viewer_key(viewer)])[0]
    return 0 if raw is None else decode_viewer(raw).counts["play"]


def test_events_of_a_log_that_begins_anew_are_folded(tmp_path: Path) -> None:
    store, log = MemoryStore(), EventLog(tmp_path)
    for life in ("before", "after"):  # the second log is another one, of the same name
        stream = MemoryStream(partitions=1)
        stream.publish(TOPIC, [play_record(f"{life}{n}") for n in range(5)])
        folded(stream, store, log)
    assert plays(store) == 10
    assert log.events().num_rows == 10
    assert log.sources() == ["t/0", "t~001/0"]


def test_a_file_that_was_taken_away_beneath_a_running_worker_is_another_log(tmp_path: Path) -> None:
    store, log, url = MemoryStore(), EventLog(tmp_path / "events"), f"sqlite:///{tmp_path}/log/stream.db"
    with closing(open_stream(url, partitions=1)) as stream:
        one = Worker(stream, store, log, topic=TOPIC, group="g")
        stream.publish(TOPIC, [play_record(f"before{n}") for n in range(5)])
        assert one.step(wait_s=0) == 5
        stream.publish(TOPIC, [play_record("unread")])
        for file in (tmp_path / "log").iterdir():
            file.unlink()
        with closing(open_stream(url, partitions=1)) as another:
            another.publish(TOPIC, [play_record(f"after{n}") for n in range(4)])
        with pytest.raises(Unavailable, match="recreated"):  # and what it read of the old one is of no name by now
            one.step(wait_s=0)
        one.close()
    with closing(open_stream(url, partitions=1)) as stream:
        folded(stream, store, log)  # type: ignore[arg-type]
    assert plays(store) == 9


@pytest.mark.parametrize("seed", range(4))
def test_what_several_logs_said_is_told_once_and_rebuilt_in_their_order(tmp_path: Path, seed: int) -> None:
    """Three logs of one name, of more or fewer partitions; what the spool still held is in two of them."""
    chance, store, log = random.Random(seed), MemoryStore(), EventLog(tmp_path)
    sent: list[Record] = []
    won, now = 0.0, LANDMARK
    for partitions in (2, 4, 1):
        stream = MemoryStream(partitions)
        fresh = []
        for _ in range(40):
            now += chance.choice([1.0, 20.0, 600.0])
            event = happened(chance, len(sent) + len(fresh), now)
            won += event.context["targets"]["cn/a"][0] if event.context else 0.0  # type: ignore[index, call-overload]
            fresh.append(Record(event.viewer_id, encode(event)))
        stream.publish(TOPIC, [*sent[-15:], *fresh])
        sent += fresh
        folded(stream, store, log)
    count = read_counts(store, ["cn/a"], epoch_partitions(store, TOPIC, 1))["cn/a"]
    assert count.delivered == pytest.approx(won)
    assert {key.rpartition(":")[2] for key, _ in store.scan(COUNTS)} <= set(epoch_partitions(store, TOPIC, 1))
    assert log.events().num_rows == len(sent)

    if seed % 2:
        compact(log)
    again = MemoryStore()
    rebuild(worker(stream, again, log), again, from_log(log), LANDMARK, YEAR_S)
    assert store_contents(again) == store_contents(store)
    assert not list(find_differences(store, again, LANDMARK, YEAR_S))


def test_a_rebuild_from_the_newest_log_calls_it_by_its_name(tmp_path: Path) -> None:
    store, log = MemoryStore(), EventLog(tmp_path)
    for life in ("before", "after"):
        stream = MemoryStream(partitions=1)
        stream.publish(TOPIC, [play_record(f"{life}{n}") for n in range(5)])
        folded(stream, store, log)
    one = worker(stream, store, log)
    rebuild(one, store, from_stream(stream, log, TOPIC, print, one.log_name()), LANDMARK, YEAR_S)
    assert plays(store) == 5
    assert log.events().num_rows == 10
    stream.publish(TOPIC, [play_record("more")])
    folded(stream, store, log)
    assert plays(store) == 6


def test_states_from_before_logs_were_told_apart_go_on(tmp_path: Path) -> None:
    """Nothing is counted again after an upgrade, though the worker died before it committed."""
    stream, store, log = MemoryStream(partitions=1), MemoryStore(), EventLog(tmp_path)
    stream.publish(TOPIC, [play_record(f"e{n}") for n in range(600)])  # more than a state remembers ids of
    folded(stream, store, log)
    store.delete([LOG_EPOCHS + TOPIC])
    (tmp_path / NAME).unlink()
    expected = store_contents(store)
    with closing(Worker(stream, store, EventLog(tmp_path), topic=TOPIC, group="another")) as again:
        while again.step(wait_s=0):
            pass
    assert store_contents(store) == expected


@pytest.fixture(params=["memory", "sqlite"])
def online(request: pytest.FixtureRequest, tmp_path: Path) -> OnlineStore:
    return open_online({"memory": "memory://", "sqlite": f"sqlite:///{tmp_path}/online.db"}[request.param])


def test_event_log_and_store_tell_each_other_what_they_have_lost(tmp_path: Path, online: OnlineStore) -> None:
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


def test_a_log_that_cannot_be_told_from_others_goes_by_its_topic(tmp_path: Path) -> None:
    store = MemoryStore()
    assert LogEpochs(tmp_path).name(store, TOPIC, LogEpoch("", 3)) == TOPIC
    assert not list(store.scan(""))


def test_files_and_store_of_different_pasts_are_not_mixed_until_a_rebuild(tmp_path: Path) -> None:
    store = MemoryStore()
    LogEpochs(tmp_path).name(MemoryStore(), TOPIC, LogEpoch("one", 1))
    LogEpochs(tmp_path / "elsewhere").name(store, TOPIC, LogEpoch("two", 1))
    with pytest.raises(Conflict, match=r"different logs of topic t \(one; two\)"):
        LogEpochs(tmp_path).name(store, TOPIC, LogEpoch("two", 1))
    LogEpochs(tmp_path).restore(store, TOPIC)
    assert LogEpochs(tmp_path).name(store, TOPIC, LogEpoch("two", 1)) == "t~001"
