"""Votes of people, not of clicks: one a day for each viewer, item and action, and little for the hyperactive."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.events.decode import ViewerEvent
from features.state import vote_history as voted
from features.state.fold import RECENT_KINDS, LoggedEvent, WeightedEvent, deduplicate_and_fold, fold_item, items_of
from features.state.item_columns import ItemColumns
from features.state.viewer_fold import SHOWN_TIMES
from features.state.votes import COUNTS, FULL_TRUST_ITEMS, MAX_PLAYBACK_SPEED, REPEAT_DISCOUNT, contributions
from recsys.domain.catalog import Catalog, Item
from recsys.domain.viewer import DAY_S, LANDMARK, RECENT_MAX, ItemState, Recent, ViewerState, forward_weight

HOUR_S = 3600.0
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


def event(id: str, kind: str, at: float, item: str = "a", viewer: str = "v", **said: Any) -> ViewerEvent:
    about: dict[str, Any] = {"items": (item,), "context": {"seed": 1}} if kind == "impression" else {"item_id": item}
    if kind == "ping":
        about["position_s"] = 5.0
    return ViewerEvent(id=id, kind=kind, viewer_id=viewer, at=at, **about, **said)  # type: ignore[arg-type]


def counted(events: list[ViewerEvent]) -> list[WeightedEvent]:
    """Everything that counts, in the order it was sent."""
    by_viewer: dict[str, list[LoggedEvent]] = defaultdict(list)
    for offset, one in enumerate(events):
        by_viewer[one.viewer_id].append(LoggedEvent("t/0", offset, one))
    fresh = [
        one
        for viewer, placed in by_viewer.items()
        for one in deduplicate_and_fold(ViewerState(viewer), placed).new_events
    ]
    return sorted(fresh, key=lambda one: one.offset)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(KINDS), st.sampled_from("aaaabcde"), st.sampled_from("vw"), st.integers(0, 96)),
        max_size=40,
    )
)
def test_votes_are_those_of_a_plain_count(said: list[tuple[str, str, str, int]]) -> None:
    """The oracle keeps every action there ever was, and applies the rule word by word."""
    events = [
        event(f"e{n}", kind, LANDMARK + hours * HOUR_S, item, viewer)
        for n, (kind, item, viewer, hours) in enumerate(said)
    ]
    history: dict[tuple[str, str, str], list[float]] = defaultdict(list)  # viewer, item, action -> when
    expected: Counter[tuple[str, str]] = Counter()
    tried: dict[str, set[str]] = defaultdict(set)
    for one in events:
        item = one.item_id or one.items[0]
        if one.kind in RECENT_KINDS:
            tried[one.viewer_id].add(item)
        share = 1.0 if one.kind == "impression" else min(1.0, len(tried[one.viewer_id] | {item}) / FULL_TRUST_ITEMS)
        for action in ("impression",) if one.kind == "impression" else COUNTS.get(one.kind, ()):
            times = history[one.viewer_id, item, action]
            days = {at // DAY_S for at in times}
            if one.at // DAY_S not in days:
                expected[item, action] += forward_weight(one.at) * share * REPEAT_DISCOUNT ** len(days)  # type: ignore[assignment]
            times.append(one.at)
            if action == "impression":  # of which only the newest few are remembered
                history[one.viewer_id, item, action] = sorted(times)[-SHOWN_TIMES:]
    for item in "abcde":
        state = fold_item(ItemState(item), [one for one in counted(events) if item in items_of(one.event)])
        found = {**state.counts, "visit": state.visits, "impression": state.impressions}
        for action in {*found, *(action for known, action in expected if known == item)}:
            assert found.get(action, 0.0) == pytest.approx(expected[item, action]), (item, action)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 24 * 30), min_size=1, max_size=90), st.sampled_from(["play", "hide", "impression"]))
def test_whatever_a_viewer_does_an_item_gains_little_more_than_a_vote(hours: list[int], kind: str) -> None:
    events = [event(f"e{n}", kind, LANDMARK + hour * HOUR_S) for n, hour in enumerate(hours)]
    worth: Counter[str] = Counter()
    for one in counted(events):
        for _, action, vote in one.votes:
            worth[action] += vote  # type: ignore[assignment]
    if kind != "impression":  # of impressions only the newest few times are remembered
        assert max(worth.values()) < 4 / 3
    assert max(worth.values()) >= (1.0 if kind == "impression" else 1 / FULL_TRUST_ITEMS)


def plainly(events: list[ViewerEvent]) -> list[dict[str, float]]:
    """What each event of one viewer is worth for its item by day and action, when nothing is ever forgotten."""
    days: dict[tuple[str | None, str], set[float]] = defaultdict(set)
    worths = []
    for one in events:
        today, worth = one.at // DAY_S, {}
        for action in COUNTS.get(one.kind, ()):
            before = days[one.item_id, action]
            if today not in before:
                worth[action] = REPEAT_DISCOUNT ** len(before)
            before.add(today)
        worths.append(worth)
    return worths


@pytest.mark.parametrize("seed", range(3))
def test_what_a_viewer_does_in_between_changes_no_vote(seed: int) -> None:
    """Thousands of actions of a busy viewer, against a count that forgets none: a vote never counts twice."""
    chance = random.Random(seed)
    step_s = DAY_S / (RECENT_MAX - 2)  # as much as a viewer may do before votes are worth less
    kinds = [kind for kind in KINDS if kind in RECENT_KINDS and kind != "complete"]
    said, at = [], LANDMARK
    for n in range(2200):
        at += step_s * chance.uniform(1.0, 1.2)
        late = chance.random() < 0.1
        item = chance.choice("ab") if chance.random() < 0.05 else f"i{chance.randrange(1500)}"
        said.append(event(f"e{n}", chance.choice(kinds), at - late * chance.uniform(0, DAY_S), item))
    found = counted(said)
    assert len(found) == len(said)
    for one, expected in list(zip(found, plainly(said), strict=True))[FULL_TRUST_ITEMS:]:
        votes = {action: worth for _, action, worth in one.votes}
        assert votes.keys() == expected.keys(), one
        for action, worth in votes.items():
            assert 0.95 * expected[action] < worth <= expected[action]


@pytest.mark.parametrize("most", [1, 5, 40])
@pytest.mark.parametrize("seed", range(4))
def test_beyond_what_is_remembered_there_is_no_vote_rather_than_a_second(
    seed: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No day counts twice for an item and action and, but for late events, none of WINDOW_D days whole again."""
    monkeypatch.setattr(voted, "VOTED_MAX", most)
    chance = random.Random(seed)
    said, at = [], LANDMARK
    for n in range(2500):
        at += chance.choice([0.0, 60.0, 600.0, 1800.0]) if n % 500 else voted.WINDOW_D * DAY_S
        late = chance.choice([0.0, 0.0, 0.0, 1.0, 40.0]) * chance.random() * DAY_S
        item = chance.choice("ab") if n % 130 == 0 else f"i{chance.randrange(300)}"
        said.append(event(f"e{n}", chance.choice(["play", "like", "hide"]), at - late, item))
    given: dict[tuple[str, str], list[float]] = defaultdict(list)
    newest = 0.0
    for one in counted(said):
        today = one.event.at // DAY_S
        newest = max(newest, today)
        for item_id, action, worth in one.votes:
            for day in given[item_id, action]:
                assert day != today, (item_id, action)
                if today == newest and today - day < voted.WINDOW_D:
                    assert worth <= REPEAT_DISCOUNT
            given[item_id, action].append(today)
    assert given


def test_what_is_remembered_of_votes_is_bounded_and_dated() -> None:
    busy = [event(f"e{n}", "click", LANDMARK + n, f"i{n}") for n in range(voted.RECORDS_MAX + RECENT_MAX + 50)]
    full = deduplicate_and_fold(ViewerState("v"), [LoggedEvent("t/0", n, one) for n, one in enumerate(busy)])
    assert len(full.state.vote_history) == voted.RECORD_BYTES * voted.RECORDS_MAX
    assert full.new_events[voted.RECORDS_MAX + RECENT_MAX - 1].votes
    assert not full.new_events[-1].votes, "who is out of memory votes no more"
    later = [
        LoggedEvent("t/0", 9999 + n, event(f"l{n}", "click", LANDMARK + voted.WINDOW_D * DAY_S + n * 900, f"l{n}"))
        for n in range(RECENT_MAX + 1)
    ]
    after = deduplicate_and_fold(full.state, later)
    assert len(after.new_events[-1].votes) == 2, "until that is old"
    assert len(after.state.vote_history) == voted.RECORD_BYTES
    few = deduplicate_and_fold(
        ViewerState("v"), [LoggedEvent("t/0", n, one) for n, one in enumerate(busy[:RECENT_MAX])]
    )
    assert few.state.vote_history == b"", "most viewers never did so much"


def test_what_comes_so_late_that_its_day_is_forgotten_has_no_vote() -> None:
    first = event("first", "play", LANDMARK)
    others = [event(f"o{n}", "click", LANDMARK + n * DAY_S / 2, f"o{n}") for n in range(2 * RECENT_MAX)]
    again = event("again", "play", LANDMARK + 1)
    found = counted([first, *others, again])
    assert found[0].votes
    assert found[-1].event == again
    assert found[-1].votes == ()


@pytest.mark.parametrize("seed", range(3))
def test_what_is_remembered_of_votes_does_not_depend_on_the_order_in_which_events_come(seed: int) -> None:
    chance = random.Random(seed)
    said = [
        event(f"e{n}", chance.choice(sorted(RECENT_KINDS)), LANDMARK + chance.uniform(0, 60) * DAY_S, f"i{n % 90}")
        for n in range(800)
    ]
    states = []
    for _ in range(3):
        chance.shuffle(said)
        states.append(
            deduplicate_and_fold(ViewerState("v"), [LoggedEvent("t/0", n, one) for n, one in enumerate(said)]).state
        )
    assert len({state.voted for state in states}) == 1
    kept = {
        (one.at // DAY_S, one.item_id)
        for one in said
        if one.at // DAY_S > states[0].recent[-1].at // DAY_S - voted.WINDOW_D
    }
    recent = [one.id for one in sorted(said, key=lambda one: one.at)][-RECENT_MAX:]
    gone = {(one.at // DAY_S, one.item_id) for one in said if one.id not in recent} & kept
    assert len(states[0].voted) == voted.RECORD_BYTES * len(gone)


def test_every_kind_that_counts_has_its_place_in_a_record() -> None:
    memory = bytearray()
    for kind in sorted(COUNTS):
        voted.append(memory, Recent("a", kind, LANDMARK), LANDMARK)
    assert len(memory) == voted.RECORD_BYTES
    assert list(voted.voted_days(memory, "a", LANDMARK)) == [(LANDMARK // DAY_S, voted.kind_mask(COUNTS))]
    assert list(voted.voted_days(memory, "a", LANDMARK + voted.WINDOW_D * DAY_S)) == []
    assert set(COUNTS) == RECENT_KINDS


def test_the_hyperactive_weigh_as_much_as_the_busiest_of_people() -> None:
    """However many actions a day: after the first RECENT_MAX they weigh RECENT_MAX a day together, as long as the
    viewer's votes can be remembered."""
    for a_day in (10 * RECENT_MAX, voted.RECORDS_MAX):
        times = [LANDMARK + n * DAY_S / a_day for n in range(a_day)]
        actions = [event(f"e{n}", "click", at, f"i{n}") for n, at in enumerate(times)]
        worth = sum(vote for one in counted(actions) for _, action, vote in one.votes if action == "click")
        assert 1.8 * RECENT_MAX < worth <= 2 * RECENT_MAX
    times = [LANDMARK + n * DAY_S / (100 * RECENT_MAX) for n in range(100 * RECENT_MAX)]
    votes = counted([event(f"e{n}", "click", at, f"i{n}") for n, at in enumerate(times)])
    assert RECENT_MAX < sum(vote for one in votes for _, action, vote in one.votes if action == "click") < worth


def test_a_film_is_not_over_five_seconds_after_it_began() -> None:
    def actions(*events: ViewerEvent) -> set[str]:
        return {action for one in counted(list(events))[1:] for _, action, _ in one.votes}

    begun = event("1", "play", LANDMARK, duration_s=3600.0)
    assert "complete" not in actions(begun, event("2", "complete", LANDMARK + 5, duration_s=3600.0))
    assert "complete" in actions(
        begun, event("2", "complete", LANDMARK + 3600.0 / MAX_PLAYBACK_SPEED, duration_s=3600.0)
    )
    assert "complete" in actions(begun, event("2", "complete", LANDMARK + 5)), "its length is not known"
    assert "complete" in actions(begun, event("2", "complete", LANDMARK - 5, duration_s=3600.0)), "its start is not"
    pinged = event("2", "ping", LANDMARK + 1, duration_s=3600.0)
    assert "complete" not in actions(begun, pinged, event("3", "complete", LANDMARK + 5)), "a ping told the length"
    resumed = event("2", "play", LANDMARK + 3000)
    assert "complete" in actions(begun, resumed, event("3", "complete", LANDMARK + 3400, duration_s=3600.0))
    liked = actions(begun, event("2", "like", LANDMARK + 5, duration_s=3600.0))
    assert "like" in liked
    assert "complete" not in liked


def test_votes_depend_on_nothing_but_the_state_before() -> None:
    recent = (Recent("a", "play", LANDMARK),)
    one = event("e", "complete", LANDMARK + HOUR_S)
    assert contributions(one, recent, {}, {}) == (("a", "complete", 1 / FULL_TRUST_ITEMS),)
    assert contributions(event("e", "complete", LANDMARK + DAY_S), recent, {}, {}) == (
        ("a", "visit", REPEAT_DISCOUNT / FULL_TRUST_ITEMS),
        ("a", "play", REPEAT_DISCOUNT / FULL_TRUST_ITEMS),
        ("a", "complete", 1 / FULL_TRUST_ITEMS),
    )
    known = tuple(Recent(item, "click", LANDMARK) for item in "bcd")
    assert contributions(event("e", "hide", LANDMARK), known, {}, {}) == (("a", "hide", 1.0),)


ITEMS = 200
CATALOG = Catalog.of(
    Item(id=f"i{n}", title={"en": str(n)}, outlet="cn", published_at=datetime(2026, 1, 1, tzinfo=UTC))
    for n in range(ITEMS)
)


def popularity(counted_: list[WeightedEvent], now: float) -> np.ndarray:
    columns = ItemColumns(CATALOG)
    for one in counted_:
        columns.add(one)
    return columns.at(now).popularity()


def places(popularity: np.ndarray) -> np.ndarray:
    """[N] place of each item in the popular list, 0 first."""
    return np.argsort(np.argsort(-popularity, kind="stable"), kind="stable")


def test_s1_bots_that_make_half_of_an_items_events_lift_it_three_places_at_most() -> None:
    """1 % bot accounts make as many events of one item as everybody else together. Goal S1."""
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
    honest.sort(key=lambda one: one.at)
    votes = counted(honest)  # what bots do changes nothing of what others' votes are worth
    before = places(popularity(votes, now))
    plain = np.bincount([int(str(one.item_id)[1:]) for one in honest], minlength=ITEMS)
    lifted = []
    for target in (5, 10, 20):  # of the popular list
        own = int(plain[target])
        naive = places(plain)[target] - places(plain + own * np.eye(ITEMS, dtype=int)[target])[target]
        lifted.append(int(naive))
        for manner in ("in an hour", "day by day", "busily", "forgotten"):
            span_s = HOUR_S if manner == "in an hour" else days * DAY_S
            bots = [
                event(f"b{n}", chance.choice(["play", "complete", "like"]), now - span_s * (own - n) / own,
                      f"i{target}", f"bot{n % (viewers // 100)}")
                for n in range(own)
            ]  # fmt: skip
            if manner == "busily":  # they hide what they do among other clicks
                bots += [
                    event(
                        f"o{n}", "click", now - chance.uniform(0, DAY_S), f"i{chance.randrange(ITEMS)}", f"bot{n % 20}"
                    )
                    for n in range(8000)
                ]
                bots.sort(key=lambda one: one.at)
            if manner == "forgotten":  # each plays the item daily, and enough else for `recent` to forget it
                bots = [
                    event(
                        f"f{bot} {day} {n}", "click" if n else "play", now - (days - day - n / 101) * DAY_S,
                        f"i{ITEMS - n if n else target}", f"bot{bot}",
                    )
                    for bot in range(viewers // 100)
                    for day in range(days)
                    for n in range(101)
                ]  # fmt: skip
                bots.sort(key=lambda one: one.at)
            after = places(popularity(votes + counted(bots), now))
            assert before[target] - after[target] <= 3, (target, manner, int(before[target]), int(after[target]))
    assert max(lifted) > 6, "a count of clicks would have been fooled"
