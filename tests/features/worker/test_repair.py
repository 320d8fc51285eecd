"""What mending costs a step, and what it may not lose when a worker dies beside it."""

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

from features.events.decode import ViewerEvent
from features.events.stream.memory import MemoryStream
from features.history.event_log import EventLog
from features.state.codec import (
    VERSION,
    VERSIONS,
    NewerState,
    StateError,
    item_at,
    item_key,
    viewer_at,
    viewer_key,
)
from features.state.fold import LoggedEvent
from features.state.keys import COUNTS, ITEMS, TRAFFIC, VIEWERS
from features.state.online.memory import MemoryStore
from features.state.online.port import CasEntry, OnlineStore
from features.state.quarantine import quarantined
from features.worker import repair as mend
from recsys.domain.errors import Unavailable
from recsys.domain.viewer import LANDMARK, ItemState, ViewerState
from tests.features.state.test_quarantine import READ, dump, is_state, spoil
from tests.features.worker.runs import folded, happened, published, worker

READ_WITH_VIEWERS = (ITEMS, COUNTS, TRAFFIC)
"""What viewers' states decide about."""


@pytest.fixture(scope="module", autouse=True)
def _a_fast_disk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("os.fsync", lambda handle: None)
        yield


class Watched(EventLog):
    """Counts how often it is looked into."""

    looks = 0

    def queries(self, *asked: Any, **more: Any) -> list[pa.Table]:
        self.looks += 1
        return super().queries(*asked, **more)


def test_all_damaged_states_of_a_kind_are_mended_by_one_look_into_the_log(tmp_path: Path) -> None:
    stream, online, log = MemoryStream(partitions=2), MemoryStore(), Watched(tmp_path)
    events = happened(random.Random(5), 120)
    published(stream, events)
    folded(stream, online, log)
    damaged = dict.fromkeys(dump(online), b"?")
    online.put(damaged)
    published(stream, events)  # sent once more: nothing counts, but viewers are read
    fresh = happened(random.Random(6), 200)
    published(stream, [msgspec.structs.replace(one, id=f"n{at}") for at, one in enumerate(fresh)])
    with closing(worker(stream, online, log, batch=1000)) as one:
        log.looks = 0
        assert one.step(wait_s=0) == 320
        assert log.looks <= len(READ)
    met = list(quarantined(online))
    assert len(met) > 3 * len(READ)
    assert all(one.repaired for one in met)


@pytest.mark.parametrize("most", [0, 30, 60, 100, 10_000])
def test_a_step_folds_no_more_again_than_its_budget_and_mends_what_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    stream, online, log = MemoryStream(partitions=1), MemoryStore(), EventLog(tmp_path)
    events = happened(random.Random(7), 120)
    published(stream, events)
    folded(stream, online, log)
    expected = dump(online)
    keys = sorted(expected)
    of = Counter(event.viewer_id for event in events)
    again: list[LoggedEvent] = []
    monkeypatch.setattr(mend, "EVENTS_MAX", most)

    def folding(into: OnlineStore) -> Callable[[Sequence[LoggedEvent]], None]:
        fold = worker(stream, into, log).refold

        def noted(placed: Sequence[LoggedEvent]) -> None:
            again.extend(placed)
            fold(placed)

        return noted

    mender = mend.StateRepairer(online, log, folding)
    mended: set[str] = set()
    for prefix, decode in READ.items():  # as a step does: one kind after the other, out of one budget
        states = mender.read({key: b"?" for key in keys if key.startswith(prefix)}, decode)  # type: ignore[type-var]
        mended |= {key for key, state in states.items() if state is not None}
        assert all(states[key] == decode(key, expected[key]) for key in states if key in mended)
    assert len(again) <= most
    viewers = sorted(of.values())
    fits = sum(sum(viewers[: n + 1]) <= most for n in range(len(viewers)))
    assert len([key for key in mended if key.startswith(VIEWERS)]) == fits
    assert mended == {one.key for one in quarantined(online) if one.repaired}
    again.clear()
    mender.begin()
    mender.read({viewer_key(min(of, key=lambda who: of[who])): b"!"}, viewer_at)
    assert len(again) == (viewers[0] if viewers[0] <= most else 0)


def test_every_step_of_a_worker_has_a_budget_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream, online, log = MemoryStream(partitions=1), MemoryStore(), EventLog(tmp_path)
    monkeypatch.setattr(mend, "EVENTS_MAX", 4)
    with closing(worker(stream, online, log)) as one:
        for number in range(5):
            published(
                stream, [ViewerEvent(id=f"{number}", kind="play", viewer_id="v", at=LANDMARK + number, item_id="i")]
            )
            assert one.step(wait_s=0) == 1
            online.put({viewer_key("v"): b"%d" % number})
    assert {found.raw: found.repaired for found in quarantined(online)} == {b"%d" % number: True for number in range(4)}


def test_a_step_whose_seconds_are_spent_begins_no_other_look(tmp_path: Path) -> None:
    stream, online, log, now = MemoryStream(partitions=1), MemoryStore(), Watched(tmp_path), [0.0]
    published(stream, happened(random.Random(8), 60))
    folded(stream, online, log)
    keys = sorted(key for key in dump(online) if key.startswith(VIEWERS))[:3]

    def folding(into: OnlineStore) -> Callable[[Sequence[LoggedEvent]], None]:
        now[0] += mend.SECONDS_MAX / 2
        return worker(stream, into, log).refold

    mender = mend.StateRepairer(online, log, folding, elapsed=lambda: now[0])
    log.looks = 0
    assert [mender.read({key: b"?"}, viewer_at)[key] is not None for key in keys] == [True, False, False]
    assert log.looks == 2
    mender.begin()
    assert mender.read({keys[1]: b"?"}, viewer_at)[keys[1]] is not None


class Dying(EventLog):
    """The worker dies at it when told so: before the batch is in the log, or after."""

    dies = ""

    def append(self, source: str, first: int, last: int, placed: Sequence[LoggedEvent]) -> None:
        if self.dies == "before":
            raise Unavailable("the worker died")
        super().append(source, first, last, placed)
        if self.dies == "after":
            raise Unavailable("the worker died")


@pytest.mark.parametrize("batch", [5, 20, 21, 50])
@pytest.mark.parametrize("dies", ["before", "after"])
def test_damage_between_a_workers_death_and_the_redelivery_loses_nothing_that_it_calls_mended(
    tmp_path: Path, dies: str, batch: int
) -> None:
    """Twenty events that viewers know are delivered again, in several steps, in one, or with newer ones."""
    for seed in range(2):
        chance, events = random.Random(seed), happened(random.Random(seed), 120)
        stream, sound = MemoryStream(partitions=1), MemoryStore()
        published(stream, events)
        folded(stream, sound, EventLog(tmp_path / f"sound{seed}"))
        stream, hurt, log = MemoryStream(partitions=1), MemoryStore(), Dying(tmp_path / f"hurt{seed}")
        published(stream, events)
        with closing(worker(stream, hurt, log, batch=20)) as one:
            assert [one.step(wait_s=0) for _ in range(3)] == [20, 20, 20]
            log.dies = dies
            with pytest.raises(Unavailable, match="died"):
                one.step(wait_s=0)
            log.dies = ""
        spoil(chance, hurt, 3)
        folded(stream, hurt, log, batch)
        expected, found = dump(sound), dump(hurt)
        damaged = {one.key: one.repaired for one in quarantined(hurt)}
        assert damaged
        left = {key for key, raw in found.items() if not is_state(key, raw)}  # no event met it
        wrong = {key for key in expected if expected[key] != found[key]} - left
        assert wrong <= {key for key, mended in damaged.items() if not mended}
        assert all(key.startswith(READ_WITH_VIEWERS) for key in wrong)
        if dies == "after" or batch > 20:
            assert all(damaged.values())


class Stuck(MemoryStore):
    """Takes no new states when told so."""

    stuck = False

    def swap(self, entries: Mapping[str, CasEntry], ttl_s: float | None = None) -> list[str]:
        if self.stuck:
            raise Unavailable("the worker died")
        return super().compare_and_set(entries, ttl_s)


def test_a_viewer_damaged_when_its_batch_is_in_the_log_already_counts_for_items_still(tmp_path: Path) -> None:
    """The worker appended to mend an item, and died before it wrote one."""
    stream, sound, hurt, log = MemoryStream(partitions=1), MemoryStore(), Stuck(), EventLog(tmp_path / "hurt")
    events = happened(random.Random(3), 80)
    published(stream, events)
    folded(stream, sound, EventLog(tmp_path / "sound"))
    stream = MemoryStream(partitions=1)
    published(stream, events)
    with closing(worker(stream, hurt, log, batch=40)) as one:
        one.step(wait_s=0)
        hurt.put({next(key for key in dump(hurt) if key.startswith(ITEMS)): b"?"})
        hurt.stuck = True
        with pytest.raises(Unavailable, match="died"):
            one.step(wait_s=0)
    hurt.stuck = False
    assert len(list(log.replay())) > 40
    hurt.put({key: b"?" for key in dump(hurt) if key.startswith(VIEWERS)})
    folded(stream, hurt, log, 40)
    damaged = list(quarantined(hurt))
    assert all(one.repaired for one in damaged)
    expected, found = dump(sound), dump(hurt)
    met = {key for key in found if found[key] != b"?"}
    assert {one.key for one in damaged if one.key.startswith(VIEWERS)} & met
    assert {key: expected[key] for key in met} == {key: found[key] for key in met}


@pytest.mark.parametrize("number", [VERSION + 1, VERSIONS - 1])
def test_a_first_byte_that_became_a_newer_number_is_mended_and_stops_nobody(tmp_path: Path, number: int) -> None:
    stream, sound, hurt, log = MemoryStream(partitions=1), MemoryStore(), MemoryStore(), EventLog(tmp_path / "hurt")
    events = happened(random.Random(11), 120)
    published(stream, events)
    folded(stream, sound, EventLog(tmp_path / "sound"))
    stream = MemoryStream(partitions=1)
    published(stream, events)
    with closing(worker(stream, hurt, log, batch=60)) as one:
        one.step(wait_s=0)
        hurt.put({key: bytes([number]) + raw[1:] for key, raw in dump(hurt).items()})
        one.step(wait_s=0)
    met = {one.key for one in quarantined(hurt) if one.repaired}
    assert {prefix for prefix in READ if any(key.startswith(prefix) for key in met)} == set(READ)
    assert {key: dump(hurt)[key] for key in met} == {key: dump(sound)[key] for key in met}


def test_a_newer_form_that_begins_as_ours_is_newer() -> None:
    """A newer engine that only adds a field at the end; and one whose bytes nobody can read."""
    for state, at in ((ViewerState("v"), viewer_at), (ItemState("i"), item_at)):
        number = VERSION + 1
        ours = msgspec.msgpack.decode(msgspec.msgpack.encode(state), strict=False)
        key = viewer_key("v") if at is viewer_at else item_key("i", "t/0")
        with pytest.raises(StateError, match=f"under the number {number}") as told:
            at(key, bytes([number]) + msgspec.msgpack.encode(state))
        assert not isinstance(told.value, NewerState)
        for newer in (msgspec.msgpack.encode([*ours, 1]), b"", b"?", msgspec.msgpack.encode(state) + b"?"):
            with pytest.raises(NewerState):
                at(key, bytes([number]) + newer)
