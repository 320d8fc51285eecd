"""The regions that an item's state tells apart: bounded, and exact for those that stay."""

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


def visits(regions: list[str], apart_s: float) -> list[WeightedEvent]:
    """Of an item from these regions, each by somebody who comes for the first time."""
    events = [
        ViewerEvent(id=f"e{n}", kind="play", viewer_id="v", at=LANDMARK + n * apart_s, item_id="a", region=region)
        for n, region in enumerate(regions)
    ]
    return [
        weighted
        for n, event in enumerate(events)
        for weighted in deduplicate_and_fold(ViewerState("v"), [LoggedEvent("t/0", n, event)]).new_events
    ]


@settings(deadline=None)
@given(st.lists(st.sampled_from(["", "cn", *(f"cn.p{n % 3}.c{n}" for n in range(12)), "us"]), max_size=80), st.data())
def test_of_an_items_regions_the_lightest_leave_in_bulk_and_the_rest_is_exact(
    regions: list[str], data: st.DataObject
) -> None:
    """Beside a plain count: nothing is lost before there are too many, of a region that is cut no more than what the
    lightest that stays has; and no batch and no state that was bytes in between makes a difference."""
    most, spare = 6, 3
    events = visits(regions, DAY_S)
    exact, dump = dict[str, float](), dict[str, float]()
    for entry in events:
        value = sum(vote[2] for vote in entry.votes if vote[1] == "visit") * forward_weight(entry.event.at)
        for region in roll_up(entry.event.region):
            exact[region], dump[region] = exact.get(region, 0.0) + value, dump.get(region, 0.0) + value
        if len(dump) > most + spare:
            lightest = sorted(dump, key=lambda region: (-dump[region], region))[most:]
            bound = min(visits for region, visits in dump.items() if region not in lightest)
            assert all(dump.pop(region) <= bound for region in lightest)
    cut = data.draw(st.integers(0, len(events)))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("features.state.item_fold.REGIONS_MAX", most)
        patched.setattr("features.state.item_fold.REGIONS_SPARE", spare)
        at_once = fold_item(ItemState("a"), events)
        first = decode_item(encode_item(fold_item(ItemState("a"), events[:cut])))
        assert encode_item(fold_item(first, events[cut:])) == encode_item(at_once)
    assert at_once.regions == dump
    assert len(exact) > most + spare or dump == exact
    assert all(dump[region] <= exact[region] for region in dump)


def test_a_region_that_comes_late_has_time_to_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the item has all the regions that it tells apart, and more of them come by all the time."""
    monkeypatch.setattr("features.state.item_fold.REGIONS_MAX", 30)
    monkeypatch.setattr("features.state.item_fold.REGIONS_SPARE", 10)
    fields = [f"r{n}" for n in range(30)] * 2 + [r for n in range(100) for r in ("late", f"once{n}")]
    state = fold_item(ItemState("a"), visits(fields, 0.0))
    assert state.regions["late"] > 99.5 * state.regions["r0"] / 2


def test_an_item_tells_the_counties_of_a_large_country_apart() -> None:
    assert REGIONS_MAX >= 3200 + 31 + 1
