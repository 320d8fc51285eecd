"""Idle items expire by the same rule in the fold, in the store and in replays."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path

import pytest
from pydantic import ValidationError

from features.events.schema import ViewerEvent
from features.events.stream.memory import MemoryStream
from features.history.event_log import EventLog
from features.settings import Settings
from features.state.codec import decode_item, encode_item
from features.state.fold import fold_item
from features.state.keys import ITEMS
from features.state.online.memory import MemoryStore
from features.state.votes import WeightedEvent
from features.worker.rebuild import expire_idle, from_log, rebuild
from features.worker.verify import find_differences
from features.worker.worker import TTL_SLACK_S, Worker
from recsys.domain.decay import DAY_S, HALF_LIFE_S, LANDMARK
from recsys.domain.item_statistics import ItemState
from tests.features.worker.runs import TOPIC, dump, published

TTL_S = 10 * DAY_S


def played(n: int, at: float, item: str = "i") -> ViewerEvent:
    return ViewerEvent(id=f"e{n}", kind="play", viewer_id=f"v{n % 5}", at=at, item_id=item, region="cn")


@pytest.mark.parametrize("seed", range(20))
def test_item_state_expires_after_a_long_silence(seed: int) -> None:
    chance, at, last = random.Random(seed), LANDMARK, 0
    events = []
    for n in range(40):
        gap = chance.choice([1.0, DAY_S, TTL_S, TTL_S + 1.0, -TTL_S - 1.0])
        newest = max((weighted.event.at for weighted in events[last:]), default=at)
        at += gap
        if at - newest > TTL_S:
            last = n
        events.append(WeightedEvent("t/0", n, played(n, at), (("i", "visit", 1.0), ("i", "play", 1.0))))
    assert fold_item(ItemState("i"), events, TTL_S) == fold_item(ItemState("i"), events[last:])
    state, end = ItemState("i"), 0
    while end < len(events):  # in batches, with redeliveries
        first, end = max(0, end - chance.randrange(3)), end + chance.randint(1, 9)
        state = decode_item(encode_item(fold_item(state, events[first:end], TTL_S)))
    assert state == fold_item(ItemState("i"), events, TTL_S)


@pytest.mark.parametrize("seed", range(6))
def test_store_and_replay_expire_the_same_items(tmp_path: Path, seed: int) -> None:
    """The store expires items by its clock while events arrive, the replay by event times."""
    chance, now = random.Random(seed), [LANDMARK]
    stream, log = MemoryStream(partitions=2), EventLog(tmp_path)
    online = MemoryStore(lambda: now[0])

    def worker(store: MemoryStore) -> Worker:
        return Worker(stream, store, log, topic=TOPIC, group="g", viewer_ttl_s=1e9, item_ttl_s=TTL_S)

    with closing(worker(online)) as follower:
        for n in range(60):
            now[0] += chance.choice([1.0, DAY_S, 5 * DAY_S, TTL_S + 2 * TTL_SLACK_S])
            published(stream, [played(n, now[0], item=chance.choice("abcdefgh"))])
            follower.step(wait_s=0)
    now[0] += chance.uniform(0, TTL_S)
    items = dict(online.scan(ITEMS))
    rebuilt = MemoryStore()
    rebuild(worker(rebuilt), rebuilt, from_log(log), now[0], 1e9, item_ttl_s=TTL_S)
    assert dict(rebuilt.scan(ITEMS)) == items
    assert len({key for key, _ in online.scan("item:")}) < 16
    assert list(find_differences(online, rebuilt, now[0], 1e9, TTL_S)) == []
    stale = MemoryStore()  # a store that has not expired items yet counts as equal
    stale.put(dump(online))
    later = now[0] + 2 * TTL_S
    expire_idle(rebuilt, later, 1e9, TTL_S)
    assert not list(rebuilt.scan(ITEMS))
    assert list(find_differences(stale, rebuilt, later, 1e9, TTL_S)) == []


def test_expired_items_weigh_less_than_a_millionth() -> None:
    with pytest.raises(ValidationError):
        Settings(item_ttl_days=279)
    assert 2.0 ** (-Settings(item_ttl_days=280).item_ttl_days * DAY_S / HALF_LIFE_S) < 1e-6
