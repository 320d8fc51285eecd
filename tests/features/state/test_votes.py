"""Votes: one per day, viewer, item and action, discounted for repetitions and for hyperactive viewers."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.events.schema import ViewerEvent
from features.state import vote_history
from features.state.fold import deduplicate_and_fold, fold_item
from features.state.item_columns import ItemColumns
from features.state.viewer_fold import RECENT_KINDS, SHOWN_TIMES
from features.state.votes import (
    COUNTS,
    FULL_TRUST_ITEMS,
    MAX_PLAYBACK_SPEED,
    REPEAT_DISCOUNT,
    LoggedEvent,
    WeightedEvent,
    contributions,
    items_of,
)
from recsys.domain.catalog import Catalog
from recsys.domain.decay import DAY_S, LANDMARK, forward_weight
from recsys.domain.item import Item
from recsys.domain.item_statistics import ItemState
from recsys.domain.viewer import RECENT_MAX, Recent, ViewerState

HOUR_S = 3600.0
TRUSTS = ("trusted", "anonymous", "anonymous", "excess")
KINDS = (
    "impression",
    "impression",
    "click",
    "open",
    "play",
    "complete",
    "like",
    "dislike",
    "hide",
    "share",
    "ping",
    "pause",
)


def event(id: str, kind: str, at: float, item: str = "a", viewer: str = "v", **fields: Any) -> ViewerEvent:
    subject: dict[str, Any] = {"items": (item,), "context": {"seed": 1}} if kind == "impression" else {"item_id": item}
    if kind == "ping":
        subject["position_s"] = 5.0
    return ViewerEvent(id=id, kind=kind, viewer_id=viewer, at=at, **subject, **fields)  # type: ignore[arg-type]


def counted(events: list[ViewerEvent]) -> list[WeightedEvent]:
    """Return all events that count, in the order in which they were sent."""
    by_viewer: dict[str, list[LoggedEvent]] = defaultdict(list)
    for offset, e in enumerate(events):
        by_viewer[e.viewer_id].append(LoggedEvent("t/0", offset, e))
    weighted = [
        e for viewer, logged in by_viewer.items() for e in deduplicate_and_fold(ViewerState(viewer), logged).new_events
    ]
    return sorted(weighted, key=lambda e: e.offset)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(KINDS),
            st.sampled_from("aaaabcde"),
            st.sampled_from("vw"),
            st.integers(0, 96),
            st.sampled_from(TRUSTS),
        ),
        max_size=40,
    )
)
def test_votes_equal_a_naive_count(actions: list[tuple[str, str, str, int, str]]) -> None:
    """The oracle stores every action and applies the rule literally."""
    events = [
        event(
            f"e{n}", kind, LANDMARK + hours * HOUR_S, item, viewer, trust="trusted" if kind == "impression" else trust
        )
        for n, (kind, item, viewer, hours, trust) in enumerate(actions)
    ]
    served: set[str] = set()
    history: dict[tuple[str, str, str], list[float]] = defaultdict(list)  # viewer, item, action -> times
    expected: Counter[tuple[str, str]] = Counter()
    tried: dict[str, set[str]] = defaultdict(set)
    for e in events:
        item = e.item_id or e.items[0]
        if e.kind in RECENT_KINDS:
            tried[e.viewer_id].add(item)
        trust = 1.0 if e.kind == "impression" else min(1.0, len(tried[e.viewer_id] | {item}) / FULL_TRUST_ITEMS)
        for action in ("impression",) if e.kind == "impression" else COUNTS.get(e.kind, ()):
            times = history[e.viewer_id, item, action]
            days = {at // DAY_S for at in times}
            is_counted = e.trust == "trusted" or (e.trust == "anonymous" and e.viewer_id in served)
            if e.at // DAY_S not in days and is_counted:
                expected[item, action] += forward_weight(e.at) * trust * REPEAT_DISCOUNT ** len(days)  # type: ignore[assignment]
            times.append(e.at)
            if action == "impression":  # the state stores only the newest few times
                history[e.viewer_id, item, action] = sorted(times)[-SHOWN_TIMES:]
                served.add(e.viewer_id)
    for item in "abcde":
        state = fold_item(ItemState(item), [e for e in counted(events) if item in items_of(e.event)])
        counts = {**state.counts, "visit": state.visits, "impression": state.impressions}
        for action in {*counts, *(action for item_id, action in expected if item_id == item)}:
            assert counts.get(action, 0.0) == pytest.approx(expected[item, action]), (item, action)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 24 * 30), min_size=1, max_size=90), st.sampled_from(["play", "hide", "impression"]))
def test_one_viewer_adds_at_most_four_thirds_votes_to_an_item(hours: list[int], kind: str) -> None:
    events = [event(f"e{n}", kind, LANDMARK + hour * HOUR_S) for n, hour in enumerate(hours)]
    totals: Counter[str] = Counter()
    for weighted in counted(events):
        for _, action, value in weighted.votes:
            totals[action] += value  # type: ignore[assignment]
    if kind != "impression":  # the state stores only the newest few impression times
        assert max(totals.values()) < 4 / 3
    assert max(totals.values()) >= (1.0 if kind == "impression" else 1 / FULL_TRUST_ITEMS)


def expected_votes(events: list[ViewerEvent]) -> list[dict[str, float]]:
    """Return the votes of each event of one viewer by action, for an unlimited history."""
    voted_on: dict[tuple[str | None, str], set[float]] = defaultdict(set)
    expected = []
    for e in events:
        today, values = e.at // DAY_S, {}
        for action in COUNTS.get(e.kind, ()):
            before = voted_on[e.item_id, action]
            if today not in before:
                values[action] = REPEAT_DISCOUNT ** len(before)
            before.add(today)
        expected.append(values)
    return expected


@pytest.mark.parametrize("seed", range(3))
def test_other_actions_between_votes_do_not_change_votes(seed: int) -> None:
    """Compare thousands of actions of a busy viewer with a count of unlimited history: a vote never counts twice."""
    chance = random.Random(seed)
    step_s = DAY_S / (RECENT_MAX - 2)  # the highest rate of actions without a discount
    kinds = [kind for kind in KINDS if kind in RECENT_KINDS and kind != "complete"]
    events, at = [], LANDMARK
    for n in range(2200):
        at += step_s * chance.uniform(1.0, 1.2)
        is_late = chance.random() < 0.1
        item = chance.choice("ab") if chance.random() < 0.05 else f"i{chance.randrange(1500)}"
        events.append(event(f"e{n}", chance.choice(kinds), at - is_late * chance.uniform(0, DAY_S), item))
    weighted = counted(events)
    assert len(weighted) == len(events)
    for e, expected in list(zip(weighted, expected_votes(events), strict=True))[FULL_TRUST_ITEMS:]:
        votes = {action: value for _, action, value in e.votes}
        assert votes.keys() == expected.keys(), e
        for action, value in votes.items():
            assert 0.95 * expected[action] < value <= expected[action]


@pytest.mark.parametrize("max_records", [1, 5, 40])
@pytest.mark.parametrize("seed", range(4))
def test_a_vote_never_counts_twice_when_the_history_is_full(
    seed: int, max_records: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No day counts twice for an item and action; unless late, repetitions within WINDOW_D are discounted."""
    monkeypatch.setattr(vote_history, "RECORDS_MAX", max_records)
    chance = random.Random(seed)
    events, at = [], LANDMARK
    for n in range(2500):
        at += chance.choice([0.0, 60.0, 600.0, 1800.0]) if n % 500 else vote_history.WINDOW_D * DAY_S
        lateness_s = chance.choice([0.0, 0.0, 0.0, 1.0, 40.0]) * chance.random() * DAY_S
        item = chance.choice("ab") if n % 130 == 0 else f"i{chance.randrange(300)}"
        events.append(event(f"e{n}", chance.choice(["play", "like", "hide"]), at - lateness_s, item))
    days_of: dict[tuple[str, str], list[float]] = defaultdict(list)
    newest = 0.0
    for weighted in counted(events):
        today = weighted.event.at // DAY_S
        newest = max(newest, today)
        for item_id, action, value in weighted.votes:
            for day in days_of[item_id, action]:
                assert day != today, (item_id, action)
                if today == newest and today - day < vote_history.WINDOW_D:
                    assert value <= REPEAT_DISCOUNT
            days_of[item_id, action].append(today)
    assert days_of


def test_vote_history_is_bounded_and_expires() -> None:
    events = [event(f"e{n}", "click", LANDMARK + n, f"i{n}") for n in range(vote_history.RECORDS_MAX + RECENT_MAX + 50)]
    full = deduplicate_and_fold(ViewerState("v"), [LoggedEvent("t/0", n, e) for n, e in enumerate(events)])
    assert len(full.state.vote_history) == vote_history.RECORD_BYTES * vote_history.RECORDS_MAX
    assert full.new_events[vote_history.RECORDS_MAX + RECENT_MAX - 1].votes
    assert not full.new_events[-1].votes, "a viewer with a full history has no votes"
    expired = LANDMARK + vote_history.WINDOW_D * DAY_S
    later = [
        LoggedEvent("t/0", 9999 + n, event(f"l{n}", "click", expired + n * 900, f"l{n}")) for n in range(RECENT_MAX + 1)
    ]
    after = deduplicate_and_fold(full.state, later)
    assert len(after.new_events[-1].votes) == 2, "until the history expires"
    assert len(after.state.vote_history) == vote_history.RECORD_BYTES
    short = deduplicate_and_fold(
        ViewerState("v"), [LoggedEvent("t/0", n, e) for n, e in enumerate(events[:RECENT_MAX])]
    )
    assert short.state.vote_history == b"", "the history is empty for most viewers"


def test_events_older_than_the_vote_history_have_no_votes() -> None:
    first = event("first", "play", LANDMARK)
    between = [event(f"o{n}", "click", LANDMARK + n * DAY_S / 2, f"o{n}") for n in range(2 * RECENT_MAX)]
    late_events = event("again", "play", LANDMARK + 1)
    weighted = counted([first, *between, late_events])
    assert weighted[0].votes
    assert weighted[-1].event == late_events
    assert weighted[-1].votes == ()


@pytest.mark.parametrize("seed", range(3))
def test_vote_history_does_not_depend_on_event_order(seed: int) -> None:
    chance = random.Random(seed)
    events = [
        event(f"e{n}", chance.choice(sorted(RECENT_KINDS)), LANDMARK + chance.uniform(0, 60) * DAY_S, f"i{n % 90}")
        for n in range(800)
    ]
    states = []
    for _ in range(3):
        chance.shuffle(events)
        states.append(
            deduplicate_and_fold(ViewerState("v"), [LoggedEvent("t/0", n, e) for n, e in enumerate(events)]).state
        )
    assert len({state.vote_history for state in states}) == 1
    in_window = {
        (e.at // DAY_S, e.item_id)
        for e in events
        if e.at // DAY_S > states[0].recent[-1].at // DAY_S - vote_history.WINDOW_D
    }
    recent = [e.id for e in sorted(events, key=lambda e: e.at)][-RECENT_MAX:]
    expected = {(e.at // DAY_S, e.item_id) for e in events if e.id not in recent} & in_window
    assert len(states[0].vote_history) == vote_history.RECORD_BYTES * len(expected)


def test_every_counted_kind_has_a_bit_in_a_record() -> None:
    history = bytearray()
    for kind in sorted(COUNTS):
        vote_history.append(history, Recent("a", kind, LANDMARK), LANDMARK)
    assert len(history) == vote_history.RECORD_BYTES
    expected = [(LANDMARK // DAY_S, vote_history.kind_mask(COUNTS))]
    assert list(vote_history.voted_days(history, "a", LANDMARK)) == expected
    assert list(vote_history.voted_days(history, "a", LANDMARK + vote_history.WINDOW_D * DAY_S)) == []
    assert set(COUNTS) == RECENT_KINDS


def test_votes_of_hyperactive_viewers_are_capped_per_day() -> None:
    """After the first RECENT_MAX actions, votes weigh RECENT_MAX a day together, until the history is full."""
    for per_day in (10 * RECENT_MAX, vote_history.RECORDS_MAX):
        times = [LANDMARK + n * DAY_S / per_day for n in range(per_day)]
        actions = [event(f"e{n}", "click", at, f"i{n}") for n, at in enumerate(times)]
        total = sum(value for weighted in counted(actions) for _, action, value in weighted.votes if action == "click")
        assert 1.8 * RECENT_MAX < total <= 2 * RECENT_MAX
    times = [LANDMARK + n * DAY_S / (100 * RECENT_MAX) for n in range(100 * RECENT_MAX)]
    votes = counted([event(f"e{n}", "click", at, f"i{n}") for n, at in enumerate(times)])
    capped = sum(value for weighted in votes for _, action, value in weighted.votes if action == "click")
    assert RECENT_MAX < capped < total


def test_implausibly_fast_completions_do_not_count() -> None:
    def actions(*events: ViewerEvent) -> set[str]:
        return {action for weighted in counted(list(events))[1:] for _, action, _ in weighted.votes}

    started = event("1", "play", LANDMARK, duration_s=3600.0)
    assert "complete" not in actions(started, event("2", "complete", LANDMARK + 5, duration_s=3600.0))
    assert "complete" in actions(
        started, event("2", "complete", LANDMARK + 3600.0 / MAX_PLAYBACK_SPEED, duration_s=3600.0)
    )
    assert "complete" in actions(started, event("2", "complete", LANDMARK + 5)), "unknown duration"
    assert "complete" in actions(started, event("2", "complete", LANDMARK - 5, duration_s=3600.0)), "unknown start"
    pinged = event("2", "ping", LANDMARK + 1, duration_s=3600.0)
    assert "complete" not in actions(started, pinged, event("3", "complete", LANDMARK + 5)), "duration from a ping"
    resumed = event("2", "play", LANDMARK + 3000)
    assert "complete" in actions(started, resumed, event("3", "complete", LANDMARK + 3400, duration_s=3600.0))
    liked = actions(started, event("2", "like", LANDMARK + 5, duration_s=3600.0))
    assert "like" in liked
    assert "complete" not in liked


def test_votes_depend_only_on_the_previous_state() -> None:
    recent = (Recent("a", "play", LANDMARK),)
    completion = event("e", "complete", LANDMARK + HOUR_S)
    assert contributions(completion, recent, {}, {}) == (("a", "complete", 1 / FULL_TRUST_ITEMS),)
    assert contributions(event("e", "complete", LANDMARK + DAY_S), recent, {}, {}) == (
        ("a", "visit", REPEAT_DISCOUNT / FULL_TRUST_ITEMS),
        ("a", "play", REPEAT_DISCOUNT / FULL_TRUST_ITEMS),
        ("a", "complete", 1 / FULL_TRUST_ITEMS),
    )
    history = tuple(Recent(item, "click", LANDMARK) for item in "bcd")
    assert contributions(event("e", "hide", LANDMARK), history, {}, {}) == (("a", "hide", 1.0),)


ITEMS = 200
CATALOG = Catalog.of(
    Item(id=f"i{n}", title={"en": str(n)}, outlet="cn", published_at=datetime(2026, 1, 1, tzinfo=UTC))
    for n in range(ITEMS)
)


def popularity(weighted_events: list[WeightedEvent], now: float) -> np.ndarray:
    columns = ItemColumns(CATALOG)
    for weighted in weighted_events:
        columns.add(weighted)
    return columns.at(now).popularity()


def ranks(popularity: np.ndarray) -> np.ndarray:
    """Return [N] the rank of each item by popularity, from 0."""
    return np.argsort(np.argsort(-popularity, kind="stable"), kind="stable")


def test_s1_bots_that_send_half_of_an_items_events_lift_it_at_most_three_ranks() -> None:
    """Goal S1: 1 % of all accounts are bots, which send as many events on one item as all other accounts together."""
    chance = random.Random(1)
    viewers, days = 2000, 14
    now = LANDMARK + days * DAY_S
    honest = [
        event(
            f"h{n}",
            chance.choices(["click", "play", "complete", "like"], [5, 5, 2, 1])[0],
            LANDMARK + chance.uniform(0, days * DAY_S),
            f"i{chance.choices(range(ITEMS), [1.0 / (n + 1) for n in range(ITEMS)])[0]}",
            f"v{chance.randrange(viewers)}",
        )
        for n in range(20_000)
    ]
    honest.sort(key=lambda e: e.at)
    votes = counted(honest)  # bots do not change the votes of other viewers
    before = ranks(popularity(votes, now))
    event_counts = np.bincount([int(str(e.item_id)[1:]) for e in honest], minlength=ITEMS)
    naive_lifts = []
    for target in (5, 10, 20):  # ranks by popularity
        n_events = int(event_counts[target])
        boosted = event_counts + n_events * np.eye(ITEMS, dtype=int)[target]
        naive_lift = ranks(event_counts)[target] - ranks(boosted)[target]
        naive_lifts.append(int(naive_lift))
        for strategy in ("one_hour", "spread_over_days", "hidden_among_clicks", "overflowing_history"):
            span_s = HOUR_S if strategy == "one_hour" else days * DAY_S
            bots = [
                event(f"b{n}", chance.choice(["play", "complete", "like"]), now - span_s * (n_events - n) / n_events,
                      f"i{target}", f"bot{n % (viewers // 100)}")
                for n in range(n_events)
            ]  # fmt: skip
            if strategy == "hidden_among_clicks":  # bots hide their events among other clicks
                bots += [
                    event(
                        f"o{n}", "click", now - chance.uniform(0, DAY_S), f"i{chance.randrange(ITEMS)}", f"bot{n % 20}"
                    )
                    for n in range(8000)
                ]
                bots.sort(key=lambda e: e.at)
            if strategy == "overflowing_history":  # each bot plays the item daily, and pushes it out of `recent`
                bots = [
                    event(
                        f"f{bot} {day} {n}", "click" if n else "play", now - (days - day - n / 101) * DAY_S,
                        f"i{ITEMS - n if n else target}", f"bot{bot}",
                    )
                    for bot in range(viewers // 100)
                    for day in range(days)
                    for n in range(101)
                ]  # fmt: skip
                bots.sort(key=lambda e: e.at)
            after = ranks(popularity(votes + counted(bots), now))
            assert before[target] - after[target] <= 3, (target, strategy, int(before[target]), int(after[target]))
    assert max(naive_lifts) > 6, "a naive event count would be fooled"
