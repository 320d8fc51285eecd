"""The fold is idempotent and bounded, and its result does not depend on how the log is split into batches."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.events.identity import DIGEST_BYTES, event_digest
from features.events.schema import ViewerEvent
from features.state import fold as module
from features.state.codec import (
    VERSION,
    NewerState,
    StateError,
    decode_item,
    decode_viewer,
    encode_item,
    encode_viewer,
    frame,
    item_key,
    viewer_key,
)
from features.state.fold import deduplicate_and_fold, fold_item, fold_viewer
from features.state.viewer_fold import (
    OUTLETS_MAX,
    SESSION_GAP_S,
    SESSION_MAX,
    SHOWN_TIMES,
    SKIPPED_S,
    ViewerFold,
    skips_state,
)
from features.state.votes import LoggedEvent, items_of
from recsys.domain.decay import HALF_LIFE_S, LANDMARK, forward_weight
from recsys.domain.item_statistics import ItemState
from recsys.domain.placement import Screen
from recsys.domain.viewer import RECENT_MAX, ViewerState

EMPTY = ViewerState("v")
KINDS = ("impression", "click", "play", "pause", "ping", "complete", "like", "dislike", "hide", "follow")


def event(id: str, kind: str, at: float = LANDMARK, **fields: Any) -> ViewerEvent:
    if kind == "impression":
        fields.setdefault("items", ("a", "b"))
        fields.setdefault("context", {"seed": 1})
    elif kind != "follow":
        fields.setdefault("item_id", "a")
    if kind == "ping":
        fields.setdefault("position_s", 5.0)
    return ViewerEvent(id=id, kind=kind, viewer_id="v", at=at, **fields)


def logged(*events: ViewerEvent, source: str = "t/0", first: int = 0) -> list[LoggedEvent]:
    return [LoggedEvent(source, first + i, event) for i, event in enumerate(events)]


@st.composite
def logs(draw: st.DrawFn) -> list[LoggedEvent]:
    """Draw a viewer's log with out-of-order and duplicate events."""
    return logged(
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
def test_batches_and_redelivery_do_not_change_the_viewer_state(log: list[LoggedEvent], data: st.DataObject) -> None:
    expected = encode_viewer(fold_viewer(EMPTY, log))
    state, position = EMPTY, 0
    while position < len(log):
        restart = data.draw(st.integers(0, position))  # the stream restarts at its last committed offset
        position = data.draw(st.integers(position + 1, len(log)))
        state = decode_viewer(encode_viewer(fold_viewer(state, log[restart:position])))
    assert encode_viewer(state) == expected


@settings(max_examples=50, deadline=None)
@given(logs(), st.data())
def test_batches_and_redelivery_do_not_change_the_item_state(log: list[LoggedEvent], data: st.DataObject) -> None:
    item_events = [entry for entry in deduplicate_and_fold(EMPTY, log).new_events if "a" in items_of(entry.event)]
    expected = encode_item(fold_item(ItemState("a"), item_events))
    state, position = ItemState("a"), 0
    while position < len(item_events):
        restart = data.draw(st.integers(0, position))
        position = data.draw(st.integers(position + 1, len(item_events)))
        state = decode_item(encode_item(fold_item(state, item_events[restart:position])))
    assert encode_item(state) == expected


@settings(max_examples=50, deadline=None)
@given(logs())
def test_duplicate_events_are_counted_once(log: list[LoggedEvent]) -> None:
    first = {}
    for entry in log:
        first.setdefault(entry.event.id, entry)
    assert [entry[:3] for entry in deduplicate_and_fold(EMPTY, log).new_events] == list(first.values())
    state = fold_viewer(EMPTY, log)
    assert sum(state.counts.values()) == len(first)
    newest = list(reversed(dict.fromkeys(entry.event.id for entry in reversed(log))))
    skipping = {id for id, entry in first.items() if skips_state(entry.event)}
    assert state.seen_ids == b"".join(event_digest(id) for id in newest if id not in skipping)
    assert state.seen_event_ring == b"".join(event_digest(id) for id in newest if id in skipping)
    assert state.offsets == ({"t/0": len(log) - 1} if log else {})


@settings(max_examples=50, deadline=None)
@given(logs())
def test_recent_actions_are_in_chronological_order(log: list[LoggedEvent]) -> None:
    actions = [
        entry.event for entry in deduplicate_and_fold(EMPTY, log).new_events if entry.event.kind in module.RECENT_KINDS
    ]
    recent = fold_viewer(EMPTY, log).recent
    assert [action.at for action in recent] == sorted(event.at for event in actions)
    assert sorted((action.at, action.kind) for action in recent) == sorted((event.at, event.kind) for event in actions)


def test_offsets_are_stored_per_partition() -> None:
    first = fold_viewer(EMPTY, logged(event("e1", "play"), event("e2", "play")))
    both = fold_viewer(first, logged(event("e3", "play"), source="t/1"))
    assert both.counts == {"play": 3}
    assert both.offsets == {"t/0": 1, "t/1": 0}


def test_the_viewer_state_is_bounded_and_keeps_the_newest_entries() -> None:
    n_items = 1200
    events = [event(f"e{i}", "hide", LANDMARK + i, item_id=f"i{i}") for i in range(n_items)]
    events += [event(f"p{i}", "ping", LANDMARK + i, item_id=f"i{i % n_items}") for i in range(2 * n_items)]
    events += [event(f"s{i}", "impression", LANDMARK + i, items=(f"i{i}", "always")) for i in range(n_items)]
    events += [event(f"o{i}", "click", LANDMARK, placement=f"cn.o{i}-tv-home") for i in range(50)]
    state = fold_viewer(EMPTY, logged(*events))
    assert [entry.item_id for entry in state.recent] == [f"i{i}" for i in range(n_items - RECENT_MAX, n_items)]
    assert len(state.outlets) == OUTLETS_MAX
    assert list(state.hidden) == [f"i{i}" for i in range(n_items - module.HIDDEN_MAX, n_items)]
    assert list(state.positions) == [f"i{i}" for i in range(n_items - module.POSITIONS_MAX, n_items)]
    assert len(state.shown) == module.SHOWN_MAX
    assert state.shown["always"] == (n_items, tuple(LANDMARK + n_items - n for n in range(SHOWN_TIMES, 0, -1)))
    assert state.impressions_since("always", LANDMARK + n_items - 2) == 2
    assert len(state.seen_ids) == DIGEST_BYTES * module.SEEN_MAX
    assert len(state.seen_event_ring) == DIGEST_BYTES * module.PASSED_MAX


def test_finished_and_rated_items_have_a_memory_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("features.state.viewer_fold.DONE_MAX", 3)
    log = logged(
        event("1", "complete", item_id="seen"),
        event("2", "like", item_id="liked"),
        event("3", "dislike", item_id="disliked"),
        event("4", "ping", item_id="started", position_s=10.0, duration_s=100.0),
        event("5", "play", item_id="played"),
        event("6", "complete", item_id="seen"),
        event("7", "ping", item_id="watched", position_s=99.0, duration_s=100.0),
    )
    assert list(fold_viewer(EMPTY, log).finished_at) == ["disliked", "seen", "watched"]


def test_late_events_do_not_move_completion_back_and_percent_alone_completes_an_item() -> None:
    liked, late_event = event("1", "like", LANDMARK + 9), event("2", "dislike", LANDMARK + 3)
    assert fold_viewer(EMPTY, logged(liked, late_event)).finished_at == {"a": LANDMARK + 9}
    at_end = event("3", "ping", LANDMARK + 1, position_s=None, percent=96.0)
    assert fold_viewer(EMPTY, logged(at_end)).finished_at == {"a": LANDMARK + 1}
    assert fold_viewer(EMPTY, logged(event("4", "ping", position_s=None, percent=94.0))).finished_at == {}


def test_the_position_is_the_latest_by_event_time_and_marks_finished_items() -> None:
    def position(*events: ViewerEvent) -> tuple[float, float, bool]:
        current = fold_viewer(EMPTY, logged(*events)).positions["a"]
        return current.position_s, current.duration_s, current.finished

    ping = event("1", "ping", LANDMARK + 10, position_s=50.0, duration_s=200.0)
    assert position(ping) == (50.0, 200.0, False)
    assert position(ping, event("2", "ping", LANDMARK + 5, position_s=3.0)) == (50.0, 200.0, False)  # a late event
    assert position(ping, event("2", "pause", LANDMARK + 20)) == (50.0, 200.0, False)  # no position
    assert position(ping, event("2", "ping", LANDMARK + 20, position_s=None, percent=30.0)) == (60.0, 200.0, False)
    assert position(ping, event("2", "ping", LANDMARK + 20, position_s=195.0)) == (195.0, 200.0, True)
    assert position(ping, event("2", "complete", LANDMARK + 20)) == (200.0, 200.0, True)
    assert position(ping, event("2", "seek", LANDMARK + 20, position_s=0.0)) == (0.0, 200.0, False)


@given(st.lists(st.tuples(st.text("a{}:/t0"), st.text("t-/01")), min_size=2, max_size=2, unique=True))
def test_state_keys_of_different_items_and_sources_differ(pairs: list[tuple[str, str]]) -> None:
    assert len({item_key(item_id, source) for item_id, source in pairs}) == 2
    assert viewer_key("v") == "viewer:{v}"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x03",
        b"{}",
        bytes(5),
        encode_item(ItemState("a"))[:-1],
        *(frame(body) for body in (b"", b"\x93", b"\x91" * 5000, b"\x91\xa1\xf9")),
    ],
)
def test_corrupt_state_raises_a_state_error(raw: bytes) -> None:
    with pytest.raises(StateError):
        decode_item(raw)
    with pytest.raises(StateError):
        decode_viewer(raw)


def test_a_state_of_an_unsupported_version_is_rejected_with_its_version() -> None:
    state = encode_viewer(ViewerState("v"))
    assert state[0] == encode_item(ItemState("a"))[0] == VERSION
    for number, error in ((0, StateError), (VERSION + 1, NewerState), (255, NewerState)):
        with pytest.raises(error, match=f"version {number}; this engine reads version {VERSION}"):
            decode_viewer(frame(b"any body", number))


def folded(*events: ViewerEvent) -> ViewerState:
    return fold_viewer(EMPTY, logged(*events))


def play(id: str, item: str, after_s: float, **fields: Any) -> ViewerEvent:
    return event(id, "play", LANDMARK + after_s, item_id=item, **fields)


def test_a_short_play_followed_by_a_play_of_another_item_is_a_skip() -> None:
    session = folded(
        play("1", "skipped", 0.0),
        play("2", "watched", SKIPPED_S - 1),
        play("3", "finished", 2 * SKIPPED_S),
        event("4", "complete", LANDMARK + 2 * SKIPPED_S + 5, item_id="finished"),
        play("5", "current", 2 * SKIPPED_S + 6),
        play("6", "current", 2 * SKIPPED_S + 7),  # a second play of the same item skips nothing
    ).session
    assert session.skipped == ("skipped",)
    assert session.watched == ("watched", "finished")
    assert (session.item_id, session.started) == ("current", LANDMARK + 2 * SKIPPED_S + 6)
    assert (session.since, session.at, session.actions) == (LANDMARK, LANDMARK + 2 * SKIPPED_S + 7, 6)


def test_a_skipped_item_that_is_watched_later_is_no_longer_skipped() -> None:
    session = folded(
        play("1", "a", 0.0), play("2", "b", 5.0), play("3", "a", 50.0), event("4", "complete", LANDMARK + 99)
    ).session
    assert session.skipped == ()
    assert session.watched == ("b", "a")
    session = folded(play("1", "a", 0.0), play("2", "b", 5.0), play("3", "a", 50.0), play("4", "c", 99.0)).session
    assert (session.skipped, session.watched) == ((), ("b", "a")), (
        "the second play of a was long enough to count as watched"
    )


def test_a_session_ends_after_a_gap_or_with_a_new_session_id() -> None:
    first = play("1", "a", 0.0, session_id="s1")
    assert folded(first, play("2", "b", 5.0, session_id="s1")).session.skipped == ("a",)
    assert folded(first, play("2", "b", 5.0)).session.skipped == ("a",), (
        "an event without session id continues the session"
    )
    for second in (play("2", "b", 5.0, session_id="s2"), play("2", "b", SESSION_GAP_S + 1, session_id="s1")):
        session = folded(first, second).session
        assert (session.skipped, session.watched, session.actions, session.since) == ((), (), 1, second.at)
    pinged = [event(f"p{n}", "ping", LANDMARK + n * SESSION_GAP_S * 0.9) for n in range(4)]
    assert folded(first, *pinged).session.since == LANDMARK, "pings keep the session alive"
    late_event = play("9", "z", -100.0)
    assert folded(first, late_event).session == folded(first).session


def test_a_session_keeps_only_the_newest_skipped_items() -> None:
    plays = [play(f"e{n}", f"i{n}", float(n)) for n in range(3 * SESSION_MAX)]
    skipped = folded(*plays).session.skipped
    assert skipped == tuple(f"i{n}" for n in range(2 * SESSION_MAX - 1, 3 * SESSION_MAX - 1))


def test_screens_outlets_and_hours_are_sums_of_forward_weights() -> None:
    state = folded(
        event("1", "play", LANDMARK + 3600, screen=Screen.TV, placement="cn.zj-mobile-home"),
        event("2", "click", LANDMARK + HALF_LIFE_S + 3700, placement="cn.zj-mobile-home"),
        event("3", "like", LANDMARK - HALF_LIFE_S - 1, placement="cn-tv-hot"),
        event("4", "hide", LANDMARK, placement="cn-tv-hot", screen=Screen.CAR),  # negative feedback does not count
        event("5", "ping", LANDMARK, screen=Screen.CAR),
    )
    weight = [forward_weight(LANDMARK + at) for at in (3600, HALF_LIFE_S + 3700, -HALF_LIFE_S - 1)]
    assert state.screens == pytest.approx({"tv": weight[0] + weight[2], "mobile": weight[1]})
    assert state.outlets == pytest.approx({"cn.zj": weight[0] + weight[1], "cn": weight[2]})
    assert state.hours == pytest.approx({1: weight[0] + weight[1], 23: weight[2]})


def test_satisfaction_is_the_share_of_recent_positive_feedback() -> None:
    assert EMPTY.satisfaction(LANDMARK) == 0.5
    satisfied = folded(event("1", "like"), event("2", "share"), event("3", "favourite"), event("4", "play"))
    assert satisfied.satisfaction(LANDMARK) == pytest.approx(4 / 5)
    assert folded(event("1", "hide"), event("2", "dislike")).satisfaction(LANDMARK) == pytest.approx(1 / 4)
    assert satisfied.satisfaction(LANDMARK + 60 * HALF_LIFE_S) == pytest.approx(0.5)


@settings(max_examples=50, deadline=None)
@given(logs(), st.integers(0, 60))
def test_impressions_of_an_item_are_counted_over_any_window(log: list[LoggedEvent], since: int) -> None:
    state, start = fold_viewer(EMPTY, log), LANDMARK + since
    shown = [
        entry.event.at for entry in deduplicate_and_fold(EMPTY, log).new_events if entry.event.kind == "impression"
    ]
    newest = sorted(shown)[-SHOWN_TIMES:]
    assert state.impressions_since("a", start) == sum(at >= start for at in newest)
    assert state.shown.get("a", (0, ()))[0] == len(shown)


@given(logs(), st.data())
def test_a_fold_can_continue_after_its_state_was_read(log: list[LoggedEvent], data: st.DataObject) -> None:
    """Later events change neither the initial state nor a state that was read in between."""
    cut = data.draw(st.integers(0, len(log)))
    initial = fold_viewer(EMPTY, log[:cut])
    initial_bytes = encode_viewer(initial)
    fold = ViewerFold(initial, float("inf"))
    for entry in log[cut : cut + 3]:
        fold.apply(entry)
    intermediate = fold.state()
    intermediate_bytes = encode_viewer(intermediate)
    for entry in log[cut + 3 :]:
        fold.apply(entry)
    assert encode_viewer(fold.state()) == encode_viewer(fold_viewer(EMPTY, log))
    assert (encode_viewer(initial), encode_viewer(intermediate)) == (initial_bytes, intermediate_bytes)


def test_a_large_batch_that_is_sent_three_times_is_counted_once() -> None:
    batch = [event(f"e{i}", "ping", LANDMARK + i, item_id="i1") for i in range(1000)]
    state = fold_viewer(EMPTY, logged(*batch, *batch, *batch))
    assert state.counts == {"ping": 1000}


CONFIRMED = {"items": ("a",), "context": {}, "request_id": "r"}


@pytest.mark.parametrize(
    ("kind", "fields"), [("ping", {}), ("pause", {}), ("seek", {"position_s": 5.0}), ("impression", CONFIRMED)]
)
def test_duplicates_are_recognised_after_many_events_that_only_count(kind: str, fields: dict[str, Any]) -> None:
    """For example, a day of pings may arrive between two replays of the dead letters."""
    liked, shown = event("liked", "like"), event("shown", "impression")
    between = [event(f"p{i}", kind, LANDMARK + 10 * i, **fields) for i in range(3 * module.SEEN_MAX)]
    log = logged(liked, shown, *between, liked, shown)
    state, once = fold_viewer(EMPTY, log), fold_viewer(EMPTY, log[:-2])
    assert (state.counts["like"], state.shown["a"][0]) == (1, 1)
    assert (state.positive_feedback, state.session, state.counts) == (once.positive_feedback, once.session, once.counts)


@pytest.mark.parametrize(("n_events", "times"), [(module.SEEN_MAX, 1), (module.SEEN_MAX + 1, 2)])
def test_a_log_that_is_sent_again_counts_twice_only_beyond_the_digest_limit(n_events: int, times: int) -> None:
    """With one event more than the limit, each digest is evicted just before its event returns: docs/decisions/0005."""
    events = [event(f"e{i}", "like", LANDMARK + 10 * i, item_id=f"i{i}") for i in range(n_events)]
    after = fold_viewer(fold_viewer(EMPTY, logged(*events)), logged(*events, source="t~001/0"))
    assert after.counts == {"like": times * n_events}


def test_pings_that_are_sent_again_change_only_their_count() -> None:
    events = [
        event(f"e{i}", "ping", LANDMARK + 10 * i, item_id=f"i{i // 500}", position_s=10.0 * (i % 500), duration_s=4e3)
        for i in range(2 * module.PASSED_MAX)
    ]
    before = fold_viewer(EMPTY, logged(*events))
    after = fold_viewer(before, logged(*events, source="t~001/0"))
    assert after.counts == {"ping": 2 * len(events)}
    for name in (
        "positions",
        "finished_at",
        "session",
        "recent",
        "at",
        "positive_feedback",
        "screens",
        "hours",
        "vote_history",
    ):
        assert getattr(after, name) == getattr(before, name)
