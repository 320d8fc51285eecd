"""The fold: idempotent, indifferent to how the log is cut, and bounded."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import fold as module
from features.codec import StateError, decode_item, decode_viewer, encode_item, encode_viewer, item_key, viewer_key
from features.events import ViewerEvent
from features.fold import Placed, fold_item, fold_viewer, items_of, sift
from features.fold_viewer import OUTLETS_MAX, SHOWN_TIMES
from features.marks import MARK, event_mark
from recsys.state import LANDMARK, RECENT_MAX, ItemState, ViewerState

NONE = ViewerState("v")
KINDS = ("impression", "click", "play", "pause", "ping", "complete", "like", "dislike", "hide", "follow")


def event(id: str, kind: str, at: float = LANDMARK, **said: Any) -> ViewerEvent:
    if kind == "impression":
        said.setdefault("items", ("a", "b"))
    elif kind != "follow":
        said.setdefault("item_id", "a")
    if kind == "ping":
        said.setdefault("position_s", 5.0)
    return ViewerEvent(id=id, kind=kind, viewer_id="v", at=at, **said)


def placed(*events: ViewerEvent, source: str = "t/0", first: int = 0) -> list[Placed]:
    return [Placed(source, first + i, one) for i, one in enumerate(events)]


@st.composite
def logs(draw: st.DrawFn) -> list[Placed]:
    """A viewer's log: out of order in time, with events sent twice."""
    return placed(
        *(
            event(
                f"e{draw(st.integers(0, max(0, number)))}",
                draw(st.sampled_from(KINDS)),
                LANDMARK + draw(st.integers(0, 50)),
                duration_s=draw(st.sampled_from([None, 100.0])),
                percent=draw(st.sampled_from([None, 10.0, 99.0])),
                region=draw(st.sampled_from(["", "cn.zj.hz", "cn"])),
            )
            for number in range(draw(st.integers(0, 25)))
        )
    )


@settings(max_examples=50, deadline=None)
@given(logs(), st.data())
def test_any_cut_and_any_redelivery_folds_to_the_same_bytes(log: list[Placed], data: st.DataObject) -> None:
    whole = encode_viewer(fold_viewer(NONE, log))
    state, position = NONE, 0
    while position < len(log):
        again = data.draw(st.integers(0, position))  # the stream goes back to its last commit
        position = data.draw(st.integers(position + 1, len(log)))
        state = decode_viewer(encode_viewer(fold_viewer(state, log[again:position])))
    assert encode_viewer(state) == whole


@settings(max_examples=50, deadline=None)
@given(logs(), st.data())
def test_an_items_counts_do_not_depend_on_the_cut_either(log: list[Placed], data: st.DataObject) -> None:
    about = [one for one in sift(NONE, log).fresh if "a" in items_of(one.event)]
    whole = encode_item(fold_item(ItemState("a"), about))
    state, position = ItemState("a"), 0
    while position < len(about):
        again = data.draw(st.integers(0, position))
        position = data.draw(st.integers(position + 1, len(about)))
        state = decode_item(encode_item(fold_item(state, about[again:position])))
    assert encode_item(state) == whole


@settings(max_examples=50, deadline=None)
@given(logs())
def test_an_event_counts_once_however_often_it_was_sent(log: list[Placed]) -> None:
    first = {}
    for one in log:
        first.setdefault(one.event.id, one)
    assert [one[:3] for one in sift(NONE, log).fresh] == list(first.values())
    state = fold_viewer(NONE, log)
    assert sum(state.counts.values()) == len(first)
    assert state.seen_ids == b"".join(map(event_mark, first))
    assert state.offsets == ({"t/0": len(log) - 1} if log else {})


@settings(max_examples=50, deadline=None)
@given(logs())
def test_recent_actions_stand_in_the_order_of_time(log: list[Placed]) -> None:
    remembered = [one.event for one in sift(NONE, log).fresh if one.event.kind in module.REMEMBERED]
    recent = fold_viewer(NONE, log).recent
    assert [one.at for one in recent] == sorted(one.at for one in remembered)
    assert sorted((one.at, one.kind) for one in recent) == sorted((e.at, e.kind) for e in remembered)


def test_two_partitions_are_told_apart() -> None:
    one = fold_viewer(NONE, placed(event("e1", "play"), event("e2", "play")))
    both = fold_viewer(one, placed(event("e3", "play"), source="t/1"))
    assert both.counts == {"play": 3}
    assert both.offsets == {"t/0": 1, "t/1": 0}


def test_memory_is_bounded_and_keeps_the_newest() -> None:
    many = 1200
    made = [event(f"e{i}", "hide", LANDMARK + i, item_id=f"i{i}") for i in range(many)]
    made += [event(f"p{i}", "ping", LANDMARK + i, item_id=f"i{i}") for i in range(many)]
    made += [event(f"s{i}", "impression", LANDMARK + i, items=(f"i{i}", "always")) for i in range(many)]
    made += [event(f"o{i}", "click", LANDMARK, placement=f"cn.o{i}-tv-home") for i in range(50)]
    state = fold_viewer(NONE, placed(*made))
    assert [one.item_id for one in state.recent] == [f"i{i}" for i in range(many - RECENT_MAX, many)]
    assert len(state.outlets) == OUTLETS_MAX
    assert list(state.hidden) == [f"i{i}" for i in range(many - module.HIDDEN_MAX, many)]
    assert list(state.positions) == [f"i{i}" for i in range(many - module.POSITIONS_MAX, many)]
    assert len(state.shown) == module.SHOWN_MAX
    assert state.shown["always"] == (many, tuple(LANDMARK + many - n for n in range(SHOWN_TIMES, 0, -1)))
    assert state.impressions_since("always", LANDMARK + many - 2) == 2
    assert len(state.seen_ids) == MARK * module.SEEN_MAX


def test_what_was_finished_or_judged_is_remembered_longer_than_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("features.fold_viewer.DONE_MAX", 3)
    done = placed(
        event("1", "complete", item_id="seen"),
        event("2", "like", item_id="liked"),
        event("3", "dislike", item_id="disliked"),
        event("4", "ping", item_id="begun", position_s=10.0, duration_s=100.0),
        event("5", "play", item_id="played"),
        event("6", "complete", item_id="seen"),
        event("7", "ping", item_id="watched", position_s=99.0, duration_s=100.0),
    )
    assert list(fold_viewer(NONE, done).done) == ["disliked", "seen", "watched"]


def test_a_position_is_the_latest_in_time_and_knows_the_end() -> None:
    def position(*events: ViewerEvent) -> tuple[float, float, bool]:
        found = fold_viewer(NONE, placed(*events)).positions["a"]
        return found.position_s, found.duration_s, found.finished

    ping = event("1", "ping", LANDMARK + 10, position_s=50.0, duration_s=200.0)
    assert position(ping) == (50.0, 200.0, False)
    assert position(ping, event("2", "ping", LANDMARK + 5, position_s=3.0)) == (50.0, 200.0, False)  # it came late
    assert position(ping, event("2", "pause", LANDMARK + 20)) == (50.0, 200.0, False)  # it does not say where
    assert position(ping, event("2", "ping", LANDMARK + 20, position_s=None, percent=30.0)) == (60.0, 200.0, False)
    assert position(ping, event("2", "ping", LANDMARK + 20, position_s=195.0)) == (195.0, 200.0, True)
    assert position(ping, event("2", "complete", LANDMARK + 20)) == (200.0, 200.0, True)
    assert position(ping, event("2", "seek", LANDMARK + 20, position_s=0.0)) == (0.0, 200.0, False)


@given(st.lists(st.tuples(st.text("a{}:/t0"), st.text("t-/01")), min_size=2, max_size=2, unique=True))
def test_keys_of_different_shards_differ(pairs: list[tuple[str, str]]) -> None:
    assert len({item_key(item_id, source) for item_id, source in pairs}) == 2
    assert viewer_key("v") == "viewer:{v}"


@pytest.mark.parametrize(
    "raw",
    [b"", b"\x03", b"\x01", b"\x02", b"\x01\x93", b"{}", encode_item(ItemState("a"))[:-1], b"\x01" + b"\x91" * 5000],
)
def test_bytes_that_are_no_state_are_a_state_error(raw: bytes) -> None:
    with pytest.raises(StateError):
        decode_item(raw)
    with pytest.raises(StateError):
        decode_viewer(raw)
