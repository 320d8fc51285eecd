"""Visits per region in an item's state: the number of regions is bounded, and the counts of kept regions are exact."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.events.schema import ViewerEvent
from features.state.codec import decode_item, encode_item
from features.state.fold import deduplicate_and_fold, fold_item
from features.state.item_fold import REGIONS_MAX
from features.state.votes import LoggedEvent, WeightedEvent
from recsys.domain.decay import DAY_S, LANDMARK, forward_weight
from recsys.domain.item_statistics import ItemState
from recsys.domain.regions import roll_up
from recsys.domain.viewer import ViewerState


def visits(regions: list[str], interval_s: float) -> list[WeightedEvent]:
    """Return first-time visits of an item from these regions, at a constant interval."""
    events = [
        ViewerEvent(id=f"e{n}", kind="play", viewer_id="v", at=LANDMARK + n * interval_s, item_id="a", region=region)
        for n, region in enumerate(regions)
    ]
    return [
        weighted
        for n, event in enumerate(events)
        for weighted in deduplicate_and_fold(ViewerState("v"), [LoggedEvent("t/0", n, event)]).new_events
    ]


@settings(deadline=None)
@given(st.lists(st.sampled_from(["", "cn", *(f"cn.p{n % 3}.c{n}" for n in range(12)), "us"]), max_size=80), st.data())
def test_the_regions_with_the_fewest_visits_are_evicted_in_bulk_and_the_others_are_exact(
    regions: list[str], data: st.DataObject
) -> None:
    """The state agrees with a plain count that evicts in the same way.

    No region is evicted below the limit, and an evicted region has no more visits than any kept region. Neither the
    batches nor a state that was stored in between change the result.
    """
    limit, slack = 6, 3
    events = visits(regions, DAY_S)
    exact, expected = dict[str, float](), dict[str, float]()
    for entry in events:
        weight = sum(vote[2] for vote in entry.votes if vote[1] == "visit") * forward_weight(entry.event.at)
        for region in roll_up(entry.event.region):
            exact[region], expected[region] = exact.get(region, 0.0) + weight, expected.get(region, 0.0) + weight
        if len(expected) > limit + slack:
            evicted = sorted(expected, key=lambda region: (-expected[region], region))[limit:]
            bound = min(value for region, value in expected.items() if region not in evicted)
            assert all(expected.pop(region) <= bound for region in evicted)
    cut = data.draw(st.integers(0, len(events)))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("features.state.item_fold.REGIONS_MAX", limit)
        patched.setattr("features.state.item_fold.REGIONS_SPARE", slack)
        single_pass = fold_item(ItemState("a"), events)
        stored = decode_item(encode_item(fold_item(ItemState("a"), events[:cut])))
        assert encode_item(fold_item(stored, events[cut:])) == encode_item(single_pass)
    assert single_pass.regions == expected
    assert len(exact) > limit + slack or expected == exact
    assert all(expected[region] <= exact[region] for region in expected)


def test_a_new_region_with_many_visits_is_kept_when_the_limit_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """The item already has the maximum number of regions, and visits from further regions keep arriving."""
    monkeypatch.setattr("features.state.item_fold.REGIONS_MAX", 30)
    monkeypatch.setattr("features.state.item_fold.REGIONS_SPARE", 10)
    regions = [f"r{n}" for n in range(30)] * 2 + [r for n in range(100) for r in ("new", f"once{n}")]
    state = fold_item(ItemState("a"), visits(regions, 0.0))
    assert state.regions["new"] > 99.5 * state.regions["r0"] / 2


def test_an_item_has_a_count_for_each_county_of_a_large_country() -> None:
    assert REGIONS_MAX >= 3200 + 31 + 1
