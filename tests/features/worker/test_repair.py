"""The budget of repairs in a step, and repairs around the crash of a worker."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa  # type: ignore[import-untyped]
import pytest

from features.events.schema import ViewerEvent
from features.events.stream.memory import MemoryStream
from features.history.event_log import EventLog
from features.state.codec import (
    VERSION,
    NewerState,
    StateError,
    frame,
    item_at,
    item_key,
    viewer_at,
    viewer_key,
)
from features.state.keys import COUNTS, ITEMS, TRAFFIC, VIEWERS
from features.state.online.memory import MemoryStore
from features.state.online.port import CasEntry, OnlineStore
from features.state.quarantine import quarantined
from features.state.votes import LoggedEvent
from features.worker import repair
from recsys.domain.decay import LANDMARK
from recsys.domain.errors import Unavailable
from recsys.domain.item_statistics import ItemState
from recsys.domain.viewer import ViewerState
from tests.features.state.test_quarantine import READ, corrupt_some, dump, is_state
from tests.features.worker.runs import folded, happened, published, worker

READ_WITH_VIEWERS = (ITEMS, COUNTS, TRAFFIC)
"""Prefixes of states that depend on the decisions of viewers' states."""


@pytest.fixture(scope="module", autouse=True)
def _no_fsync() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("os.fsync", lambda handle: None)
        yield


class CountingLog(EventLog):
    """An event log that counts its queries."""

    n_queries = 0

    def queries(self, *args: Any, **kwargs: Any) -> list[pa.Table]:
        self.n_queries += 1
        return super().queries(*args, **kwargs)


def test_all_damaged_states_of_a_kind_are_repaired_by_one_query_of_the_log(tmp_path: Path) -> None:
    stream, online, log = MemoryStream(partitions=2), MemoryStore(), CountingLog(tmp_path)
    events = happened(random.Random(5), 120)
    published(stream, events)
    folded(stream, online, log)
    damaged = dict.fromkeys(dump(online), b"?")
    online.put(damaged)
    published(stream, events)  # duplicates: nothing counts, but viewers are read
    new_events = happened(random.Random(6), 200)
    published(stream, [msgspec.structs.replace(event, id=f"n{n}") for n, event in enumerate(new_events)])
    with closing(worker(stream, online, log, batch=1000)) as member:
        log.n_queries = 0
        assert member.step(wait_s=0) == 320
        assert log.n_queries <= len(READ)
    corrupt = list(quarantined(online))
    assert len(corrupt) > 3 * len(READ)
    assert all(state.repaired for state in corrupt)


@pytest.mark.parametrize("max_events", [0, 30, 60, 100, 10_000])
def test_a_step_repairs_the_states_that_fit_into_its_event_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_events: int
) -> None:
    stream, online, log = MemoryStream(partitions=1), MemoryStore(), EventLog(tmp_path)
    events = happened(random.Random(7), 120)
    published(stream, events)
    folded(stream, online, log)
    expected = dump(online)
    keys = sorted(expected)
    event_counts = Counter(event.viewer_id for event in events)
    refolded: list[LoggedEvent] = []
    monkeypatch.setattr(repair, "EVENTS_MAX", max_events)

    def make_fold(store: OnlineStore) -> Callable[[Sequence[LoggedEvent]], None]:
        fold = worker(stream, store, log).refold

        def recorded(events: Sequence[LoggedEvent]) -> None:
            refolded.extend(events)
            fold(events)

        return recorded

    repairer = repair.StateRepairer(online, log, make_fold)
    repaired_keys: set[str] = set()
    for prefix, decode in READ.items():  # as a step does: kind by kind, within one budget
        states = repairer.read({key: b"?" for key in keys if key.startswith(prefix)}, decode)  # type: ignore[type-var]
        repaired_keys |= {key for key, state in states.items() if state is not None}
        assert all(states[key] == decode(key, expected[key]) for key in states if key in repaired_keys)
    assert len(refolded) <= max_events
    viewers = sorted(event_counts.values())
    fits = sum(sum(viewers[: n + 1]) <= max_events for n in range(len(viewers)))
    assert len([key for key in repaired_keys if key.startswith(VIEWERS)]) == fits
    assert repaired_keys == {state.key for state in quarantined(online) if state.repaired}
    refolded.clear()
    repairer.begin()
    repairer.read({viewer_key(min(event_counts, key=lambda viewer_id: event_counts[viewer_id])): b"!"}, viewer_at)
    assert len(refolded) == (viewers[0] if viewers[0] <= max_events else 0)


def test_every_step_of_a_worker_has_its_own_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream, online, log = MemoryStream(partitions=1), MemoryStore(), EventLog(tmp_path)
    monkeypatch.setattr(repair, "EVENTS_MAX", 4)
    with closing(worker(stream, online, log)) as member:
        for number in range(5):
            published(
                stream, [ViewerEvent(id=f"{number}", kind="play", viewer_id="v", at=LANDMARK + number, item_id="i")]
            )
            assert member.step(wait_s=0) == 1
            online.put({viewer_key("v"): b"%d" % number})
    assert {state.raw: state.repaired for state in quarantined(online)} == {b"%d" % number: True for number in range(4)}


def test_a_step_starts_no_query_after_its_time_limit(tmp_path: Path) -> None:
    stream, online, log, now = MemoryStream(partitions=1), MemoryStore(), CountingLog(tmp_path), [0.0]
    published(stream, happened(random.Random(8), 60))
    folded(stream, online, log)
    keys = sorted(key for key in dump(online) if key.startswith(VIEWERS))[:3]

    def make_fold(store: OnlineStore) -> Callable[[Sequence[LoggedEvent]], None]:
        now[0] += repair.SECONDS_MAX / 2
        return worker(stream, store, log).refold

    repairer = repair.StateRepairer(online, log, make_fold, elapsed=lambda: now[0])
    log.n_queries = 0
    assert [repairer.read({key: b"?"}, viewer_at)[key] is not None for key in keys] == [True, False, False]
    assert log.n_queries == 2
    repairer.begin()
    assert repairer.read({keys[1]: b"?"}, viewer_at)[keys[1]] is not None


class CrashingLog(EventLog):
    """An event log at which the worker crashes on request: before or after the batch is appended."""

    crash = ""

    def append(self, source: str, first: int, last: int, events: Sequence[LoggedEvent]) -> None:
        if self.crash == "before":
            raise Unavailable("the worker crashed")
        super().append(source, first, last, events)
        if self.crash == "after":
            raise Unavailable("the worker crashed")


@pytest.mark.parametrize("batch", [5, 20, 21, 50])
@pytest.mark.parametrize("crash", ["before", "after"])
def test_repaired_states_lack_nothing_after_damage_between_crash_and_redelivery(
    tmp_path: Path, crash: str, batch: int
) -> None:
    """Twenty events that viewers contain already are delivered again: in several steps, in one, or with new ones."""
    for seed in range(2):
        chance, events = random.Random(seed), happened(random.Random(seed), 120)
        stream, intact = MemoryStream(partitions=1), MemoryStore()
        published(stream, events)
        folded(stream, intact, EventLog(tmp_path / f"intact{seed}"))
        stream, broken, log = MemoryStream(partitions=1), MemoryStore(), CrashingLog(tmp_path / f"broken{seed}")
        published(stream, events)
        with closing(worker(stream, broken, log, batch=20)) as member:
            assert [member.step(wait_s=0) for _ in range(3)] == [20, 20, 20]
            log.crash = crash
            with pytest.raises(Unavailable, match="crashed"):
                member.step(wait_s=0)
            log.crash = ""
        corrupt_some(chance, broken, 3)
        folded(stream, broken, log, batch)
        expected, actual = dump(intact), dump(broken)
        damaged = {state.key: state.repaired for state in quarantined(broken)}
        assert damaged
        untouched = {key for key, raw in actual.items() if not is_state(key, raw)}  # not read by any later step
        wrong = {key for key in expected if expected[key] != actual[key]} - untouched
        assert wrong <= {key for key, is_repaired in damaged.items() if not is_repaired}
        assert all(key.startswith(READ_WITH_VIEWERS) for key in wrong)
        if crash == "after" or batch > 20:
            assert all(damaged.values())


class FailingStore(MemoryStore):
    """A store that fails writes of states on request."""

    failing = False

    def compare_and_set(self, entries: Mapping[str, CasEntry], ttl_s: float | None = None) -> list[str]:
        if self.failing:
            raise Unavailable("the worker crashed")
        return super().compare_and_set(entries, ttl_s)


def test_a_viewer_damaged_after_its_batch_was_logged_still_counts_for_items(tmp_path: Path) -> None:
    """The worker appended its batch to repair an item and crashed before it wrote any state."""
    stream, intact, broken, log = (
        MemoryStream(partitions=1),
        MemoryStore(),
        FailingStore(),
        EventLog(tmp_path / "broken"),
    )
    events = happened(random.Random(3), 80)
    published(stream, events)
    folded(stream, intact, EventLog(tmp_path / "intact"))
    stream = MemoryStream(partitions=1)
    published(stream, events)
    with closing(worker(stream, broken, log, batch=40)) as member:
        member.step(wait_s=0)
        broken.put({next(key for key in dump(broken) if key.startswith(ITEMS)): b"?"})
        broken.failing = True
        with pytest.raises(Unavailable, match="crashed"):
            member.step(wait_s=0)
    broken.failing = False
    assert len(list(log.replay())) > 40
    broken.put({key: b"?" for key in dump(broken) if key.startswith(VIEWERS)})
    folded(stream, broken, log, 40)
    damaged = list(quarantined(broken))
    assert all(state.repaired for state in damaged)
    expected, actual = dump(intact), dump(broken)
    readable = {key for key in actual if actual[key] != b"?"}
    assert {state.key for state in damaged if state.key.startswith(VIEWERS)} & readable
    assert {key: expected[key] for key in readable} == {key: actual[key] for key in readable}


@pytest.mark.parametrize("number", [0, VERSION + 1, 255])
def test_a_corrupt_version_byte_is_repaired_and_does_not_stop_the_worker(tmp_path: Path, number: int) -> None:
    stream, intact, broken, log = (
        MemoryStream(partitions=1),
        MemoryStore(),
        MemoryStore(),
        EventLog(tmp_path / "broken"),
    )
    events = happened(random.Random(11), 120)
    published(stream, events)
    folded(stream, intact, EventLog(tmp_path / "intact"))
    stream = MemoryStream(partitions=1)
    published(stream, events)
    with closing(worker(stream, broken, log, batch=60)) as member:
        member.step(wait_s=0)
        broken.put({key: bytes([number]) + raw[1:] for key, raw in dump(broken).items()})
        member.step(wait_s=0)
    repaired = {state.key for state in quarantined(broken) if state.repaired}
    assert {prefix for prefix in READ if any(key.startswith(prefix) for key in repaired)} == set(READ)
    assert {key: dump(broken)[key] for key in repaired} == {key: dump(intact)[key] for key in repaired}


def test_only_intact_bytes_are_reported_as_newer() -> None:
    """A newer version may add a field, or be unreadable; a changed version byte alone is damage."""
    for state, decode in ((ViewerState("v"), viewer_at), (ItemState("i"), item_at)):
        number = VERSION + 1
        fields = msgspec.msgpack.decode(msgspec.msgpack.encode(state), strict=False)
        key = viewer_key("v") if decode is viewer_at else item_key("i", "t/0")
        with pytest.raises(StateError, match="checksum") as raised:
            decode(key, bytes([number]) + frame(msgspec.msgpack.encode(state))[1:])
        assert not isinstance(raised.value, NewerState)
        for payload in (msgspec.msgpack.encode([*fields, 1]), b"", b"?", msgspec.msgpack.encode(state) + b"?"):
            with pytest.raises(NewerState):
                decode(key, frame(payload, number))
