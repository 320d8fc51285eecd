"""The fold: idempotent, indifferent to how the log is cut, and bounded."""

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
    VERSIONS,
    NewerState,
    StateError,
    decode_item,
    decode_viewer,
    encode_item,
    encode_viewer,
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

NONE = ViewerState("v")
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


def placed(*events: ViewerEvent, source: str = "t/0", first: int = 0) -> list[LoggedEvent]:
    return [LoggedEvent(source, first + i, entry) for i, entry in enumerate(events)]


@st.composite
def logs(draw: st.DrawFn) -> list[LoggedEvent]:
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
def test_any_cut_and_any_redelivery_folds_to_the_same_bytes(log: list[LoggedEvent], data: st.DataObject) -> None:
    whole = encode_viewer(fold_viewer(NONE, log))
    state, position = NONE, 0
    while position < len(log):
        repeated = data.draw(st.integers(0, position))  # the stream goes back to its last commit
        position = data.draw(st.integers(position + 1, len(log)))
        state = decode_viewer(encode_viewer(fold_viewer(state, log[repeated:position])))
    assert encode_viewer(state) == whole


@settings(max_examples=50, deadline=None)
@given(logs(), st.data())
def test_an_items_counts_do_not_depend_on_the_cut_either(log: list[LoggedEvent], data: st.DataObject) -> None:
    about = [entry for entry in deduplicate_and_fold(NONE, log).new_events if "a" in items_of(entry.event)]
    whole = encode_item(fold_item(ItemState("a"), about))
    state, position = ItemState("a"), 0
    while position < len(about):
        repeated = data.draw(st.integers(0, position))
        position = data.draw(st.integers(position + 1, len(about)))
        state = decode_item(encode_item(fold_item(state, about[repeated:position])))
    assert encode_item(state) == whole


@settings(max_examples=50, deadline=None)
@given(logs())
def test_an_event_counts_once_however_often_it_was_sent(log: list[LoggedEvent]) -> None:
    first = {}
    for entry in log:
        first.setdefault(entry.event.id, entry)
    assert [entry[:3] for entry in deduplicate_and_fold(NONE, log).new_events] == list(first.values())
    state = fold_viewer(NONE, log)
    assert sum(state.counts.values()) == len(first)
    newest = list(reversed(dict.fromkeys(entry.event.id for entry in reversed(log))))
    by_the_way = {id for id, entry in first.items() if skips_state(entry.event)}
    assert state.seen_ids == b"".join(event_digest(id) for id in newest if id not in by_the_way)
    assert state.seen_event_ring == b"".join(event_digest(id) for id in newest if id in by_the_way)
    assert state.offsets == ({"t/0": len(log) - 1} if log else {})


@settings(max_examples=50, deadline=None)
@given(logs())
def test_recent_actions_stand_in_the_order_of_time(log: list[LoggedEvent]) -> None:
    remembered = [
        entry.event for entry in deduplicate_and_fold(NONE, log).new_events if entry.event.kind in module.RECENT_KINDS
    ]
    recent = fold_viewer(NONE, log).recent
    assert [entry.at for entry in recent] == sorted(entry.at for entry in remembered)
    assert sorted((entry.at, entry.kind) for entry in recent) == sorted((e.at, e.kind) for e in remembered)


def test_two_partitions_are_told_apart() -> None:
    entry = fold_viewer(NONE, placed(event("e1", "play"), event("e2", "play")))
    both = fold_viewer(entry, placed(event("e3", "play"), source="t/1"))
    assert both.counts == {"play": 3}
    assert both.offsets == {"t/0": 1, "t/1": 0}


def test_memory_is_bounded_and_keeps_the_newest() -> None:
    many = 1200
    events = [event(f"e{i}", "hide", LANDMARK + i, item_id=f"i{i}") for i in range(many)]
    events += [event(f"p{i}", "ping", LANDMARK + i, item_id=f"i{i % many}") for i in range(2 * many)]
    events += [event(f"s{i}", "impression", LANDMARK + i, items=(f"i{i}", "always")) for i in range(many)]
    events += [event(f"o{i}", "click", LANDMARK, placement=f"cn.o{i}-tv-home") for i in range(50)]
    state = fold_viewer(NONE, placed(*events))
    assert [entry.item_id for entry in state.recent] == [f"i{i}" for i in range(many - RECENT_MAX, many)]
    assert len(state.outlets) == OUTLETS_MAX
    assert list(state.hidden) == [f"i{i}" for i in range(many - module.HIDDEN_MAX, many)]
    assert list(state.positions) == [f"i{i}" for i in range(many - module.POSITIONS_MAX, many)]
    assert len(state.shown) == module.SHOWN_MAX
    assert state.shown["always"] == (many, tuple(LANDMARK + many - n for n in range(SHOWN_TIMES, 0, -1)))
    assert state.impressions_since("always", LANDMARK + many - 2) == 2
    assert len(state.seen_ids) == DIGEST_BYTES * module.SEEN_MAX
    assert len(state.seen_event_ring) == DIGEST_BYTES * module.PASSED_MAX


def test_what_was_finished_or_judged_is_remembered_longer_than_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("features.state.viewer_fold.DONE_MAX", 3)
    done = placed(
        event("1", "complete", item_id="seen"),
        event("2", "like", item_id="liked"),
        event("3", "dislike", item_id="disliked"),
        event("4", "ping", item_id="begun", position_s=10.0, duration_s=100.0),
        event("5", "play", item_id="played"),
        event("6", "complete", item_id="seen"),
        event("7", "ping", item_id="watched", position_s=99.0, duration_s=100.0),
    )
    assert list(fold_viewer(NONE, done).finished_at) == ["disliked", "seen", "watched"]


def test_what_comes_late_sets_no_time_of_the_end_back_and_per_cent_alone_tells_the_end() -> None:
    liked, late_event = event("1", "like", LANDMARK + 9), event("2", "dislike", LANDMARK + 3)
    assert fold_viewer(NONE, placed(liked, late_event)).finished_at == {"a": LANDMARK + 9}
    at_end = event("3", "ping", LANDMARK + 1, position_s=None, percent=96.0)
    assert fold_viewer(NONE, placed(at_end)).finished_at == {"a": LANDMARK + 1}
    assert fold_viewer(NONE, placed(event("4", "ping", position_s=None, percent=94.0))).finished_at == {}


def test_a_position_is_the_latest_in_time_and_knows_the_end() -> None:
    def position(*events: ViewerEvent) -> tuple[float, float, bool]:
        matches = fold_viewer(NONE, placed(*events)).positions["a"]
        return matches.position_s, matches.duration_s, matches.finished

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


def test_a_state_of_another_version_is_refused_by_its_number() -> None:
    state = encode_viewer(ViewerState("v"))
    assert state[0] == encode_item(ItemState("a"))[0] == VERSION
    for number, error in ((0, StateError), (VERSION + 1, NewerState), (VERSIONS, StateError)):
        with pytest.raises(error, match=f"version 0?{number:x}: this engine reads version {VERSION}"):
            decode_viewer(bytes([number]) + state[1:] + b"?")


def folded(*events: ViewerEvent) -> ViewerState:
    return fold_viewer(NONE, placed(*events))


def play(id: str, item: str, after_s: float, **fields: Any) -> ViewerEvent:
    return event(id, "play", LANDMARK + after_s, item_id=item, **fields)


def test_a_short_play_followed_by_another_is_a_skip() -> None:
    session = folded(
        play("1", "zapped", 0.0),
        play("2", "watched", SKIPPED_S - 1),
        play("3", "finished", 2 * SKIPPED_S),
        event("4", "complete", LANDMARK + 2 * SKIPPED_S + 5, item_id="finished"),
        play("5", "now", 2 * SKIPPED_S + 6),
        play("6", "now", 2 * SKIPPED_S + 7),  # again: nothing was left
    ).session
    assert session.skipped == ("zapped",)
    assert session.watched == ("watched", "finished")
    assert (session.item_id, session.started) == ("now", LANDMARK + 2 * SKIPPED_S + 6)
    assert (session.since, session.at, session.actions) == (LANDMARK, LANDMARK + 2 * SKIPPED_S + 7, 6)


def test_who_comes_back_to_what_was_skipped_has_not_skipped_it() -> None:
    session = folded(
        play("1", "a", 0.0), play("2", "b", 5.0), play("3", "a", 50.0), event("4", "complete", LANDMARK + 99)
    ).session
    assert session.skipped == ()
    assert session.watched == ("b", "a")
    session = folded(play("1", "a", 0.0), play("2", "b", 5.0), play("3", "a", 50.0), play("4", "c", 99.0)).session
    assert (session.skipped, session.watched) == ((), ("b", "a")), "watched the second time, though not to the end"


def test_a_session_ends_with_a_pause_or_when_the_app_says_so() -> None:
    first = play("1", "a", 0.0, session_id="s1")
    assert folded(first, play("2", "b", 5.0, session_id="s1")).session.skipped == ("a",)
    assert folded(first, play("2", "b", 5.0)).session.skipped == ("a",), "an app that does not say goes on"
    for second in (play("2", "b", 5.0, session_id="s2"), play("2", "b", SESSION_GAP_S + 1, session_id="s1")):
        session = folded(first, second).session
        assert (session.skipped, session.watched, session.actions, session.since) == ((), (), 1, second.at)
    pinged = [event(f"p{n}", "ping", LANDMARK + n * SESSION_GAP_S * 0.9) for n in range(4)]
    assert folded(first, *pinged).session.since == LANDMARK, "who watches is there"
    late_event = play("9", "z", -100.0)
    assert folded(first, late_event).session == folded(first).session


def test_a_session_remembers_the_newest_few() -> None:
    zapped = [play(f"e{n}", f"i{n}", float(n)) for n in range(3 * SESSION_MAX)]
    skipped = folded(*zapped).session.skipped
    assert skipped == tuple(f"i{n}" for n in range(2 * SESSION_MAX - 1, 3 * SESSION_MAX - 1))


def test_screens_outlets_and_hours_are_sums_of_forward_weights() -> None:
    state = folded(
        event("1", "play", LANDMARK + 3600, screen=Screen.TV, placement="cn.zj-mobile-home"),
        event("2", "click", LANDMARK + HALF_LIFE_S + 3700, placement="cn.zj-mobile-home"),
        event("3", "like", LANDMARK - HALF_LIFE_S - 1, placement="cn-tv-hot"),
        event("4", "hide", LANDMARK, placement="cn-tv-hot", screen=Screen.CAR),  # what is not wanted says nothing
        event("5", "ping", LANDMARK, screen=Screen.CAR),
    )
    weight = [forward_weight(LANDMARK + at) for at in (3600, HALF_LIFE_S + 3700, -HALF_LIFE_S - 1)]
    assert state.screens == pytest.approx({"tv": weight[0] + weight[2], "mobile": weight[1]})
    assert state.outlets == pytest.approx({"cn.zj": weight[0] + weight[1], "cn": weight[2]})
    assert state.hours == pytest.approx({1: weight[0] + weight[1], 23: weight[2]})


def test_satisfaction_is_what_was_said_lately() -> None:
    assert NONE.satisfaction(LANDMARK) == 0.5
    pleased = folded(event("1", "like"), event("2", "share"), event("3", "favourite"), event("4", "play"))
    assert pleased.satisfaction(LANDMARK) == pytest.approx(4 / 5)
    assert folded(event("1", "hide"), event("2", "dislike")).satisfaction(LANDMARK) == pytest.approx(1 / 4)
    assert pleased.satisfaction(LANDMARK + 60 * HALF_LIFE_S) == pytest.approx(0.5)


@settings(max_examples=50, deadline=None)
@given(logs(), st.integers(0, 60))
def test_impressions_of_an_item_are_counted_over_any_window(log: list[LoggedEvent], since: int) -> None:
    state, start = fold_viewer(NONE, log), LANDMARK + since
    shown = [entry.event.at for entry in deduplicate_and_fold(NONE, log).new_events if entry.event.kind == "impression"]
    newest = sorted(shown)[-SHOWN_TIMES:]
    assert state.impressions_since("a", start) == sum(at >= start for at in newest)
    assert state.shown.get("a", (0, ()))[0] == len(shown)


@given(logs(), st.data())
def test_a_fold_may_go_on_after_its_state_was_taken(log: list[LoggedEvent], data: st.DataObject) -> None:
    """And neither the state it began with nor one that was taken on the way is changed by what comes later."""
    cut = data.draw(st.integers(0, len(log)))
    started = fold_viewer(NONE, log[:cut])
    as_begun = encode_viewer(started)
    fold = ViewerFold(started, float("inf"))
    for entry in log[cut : cut + 3]:
        fold.apply(entry)
    accepted = fold.state()
    as_taken = encode_viewer(accepted)
    for entry in log[cut + 3 :]:
        fold.apply(entry)
    assert encode_viewer(fold.state()) == encode_viewer(fold_viewer(NONE, log))
    assert (encode_viewer(started), encode_viewer(accepted)) == (as_begun, as_taken)


def test_a_thousand_events_that_are_sent_twice_count_once() -> None:
    batch = [event(f"e{i}", "ping", LANDMARK + i, item_id="i1") for i in range(1000)]
    state = fold_viewer(NONE, placed(*batch, *batch, *batch))
    assert state.counts == {"ping": 1000}


CONFIRMED = {"items": ("a",), "context": {}, "request_id": "r"}


@pytest.mark.parametrize(
    ("kind", "fields"), [("ping", {}), ("pause", {}), ("seek", {"position_s": 5.0}), ("impression", CONFIRMED)]
)
def test_duplicates_of_counting_events_are_recognised_after_many_other_events(
    kind: str, fields: dict[str, Any]
) -> None:
    """A day of pings between two replays of the dead letters, say."""
    liked, shown = event("liked", "like"), event("shown", "impression")
    between = [event(f"p{i}", kind, LANDMARK + 10 * i, **fields) for i in range(3 * module.SEEN_MAX)]
    log = placed(liked, shown, *between, liked, shown)
    state, once = fold_viewer(NONE, log), fold_viewer(NONE, log[:-2])
    assert (state.counts["like"], state.shown["a"][0]) == (1, 1)
    assert (state.positive_feedback, state.session, state.counts) == (once.positive_feedback, once.session, once.counts)


@pytest.mark.parametrize(("number", "times"), [(module.SEEN_MAX, 1), (module.SEEN_MAX + 1, 2)])
def test_from_which_number_on_a_log_that_is_sent_again_counts_twice(number: int, times: int) -> None:
    """One more id than are remembered, and each pushes out the next before that comes again: docs/decisions/0005."""
    retained = [event(f"e{i}", "like", LANDMARK + 10 * i, item_id=f"i{i}") for i in range(number)]
    after = fold_viewer(fold_viewer(NONE, placed(*retained)), placed(*retained, source="t~001/0"))
    assert after.counts == {"like": times * number}


def test_pings_that_are_sent_again_change_nothing_but_their_number() -> None:
    retained = [
        event(f"e{i}", "ping", LANDMARK + 10 * i, item_id=f"i{i // 500}", position_s=10.0 * (i % 500), duration_s=4e3)
        for i in range(2 * module.PASSED_MAX)
    ]
    before = fold_viewer(NONE, placed(*retained))
    after = fold_viewer(before, placed(*retained, source="t~001/0"))
    assert after.counts == {"ping": 2 * len(retained)}
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
