"""The timeline: order, duplicates and temporal splits."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from features.events.schema import ViewerEvent, actions_of
from recsys.domain.errors import InvalidInput
from training.timeline import Timeline

MakeEvents = Callable[..., list[ViewerEvent]]


def test_order_of_arrival_does_not_matter_and_duplicates_count_once(make_events: MakeEvents) -> None:
    events = make_events(viewers=10)
    duplicates = [replace(event, at=event.at + 5.0) for event in events[::7]]  # the same ids at a later time
    mixed = events + duplicates
    random.Random(4).shuffle(mixed)
    assert Timeline.of(mixed).events == tuple(events)


def test_two_viewers_may_use_the_same_event_id(make_events: MakeEvents) -> None:
    first = make_events(viewers=1, actions=1)[0]
    second = replace(first, viewer_id="somebody-else")
    assert len(Timeline.of([first, second]).events) == 2


@pytest.mark.parametrize("share", [0.05, 0.3, 0.9])
def test_a_split_has_its_share_of_the_actions_after_it(make_events: MakeEvents, share: float) -> None:
    timeline = Timeline.of(make_events())
    at = timeline.cut(share)
    before, since = timeline.before(at), timeline.since(at)
    assert before + since == timeline.events
    assert all(event.at < at for event in before)
    assert all(event.at >= at for event in since)
    actions = sum(bool(actions_of(event)) for event in since)
    assert actions / len(timeline.events) == pytest.approx(share, abs=0.01)
    assert timeline.before(timeline.end) == timeline.events


def test_a_log_too_small_to_split_is_refused(make_events: MakeEvents) -> None:
    with pytest.raises(InvalidInput, match="1 actions cannot be split"):
        Timeline.of(make_events(viewers=1, actions=1)).cut(0.2)
    with pytest.raises(InvalidInput, match="nothing to train on"):
        _ = Timeline.of([]).end
