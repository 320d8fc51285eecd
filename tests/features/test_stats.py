"""Item counts as columns: event by event or summed from shards, the same numbers."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from features.codec import encode_item, item_key, viewer_key
from features.events import ViewerEvent, actions_of
from features.fold import Placed, fold_item, items_of
from features.online.memory import MemoryStore
from features.stats import StatsColumns, read_stats
from recsys.catalog import Catalog, Item
from recsys.state import HALF_LIFE_S, LANDMARK, ItemState
from recsys.types import ACTIONS

ITEMS = ("a", "b", "c")
CATALOG = Catalog.of(
    Item(id=id, title={"en": id}, outlet="cn", published_at=datetime(2026, 1, 1, tzinfo=UTC)) for id in ITEMS
)
REGIONS = ("", "cn", "cn.zj", "cn.zj.hz", "us")


@st.composite
def events(draw: st.DrawFn) -> ViewerEvent:
    kind = draw(st.sampled_from(("impression", "click", "play", "complete", "like", "dislike")))
    about = draw(st.sampled_from((*ITEMS, "unknown")))
    return ViewerEvent(
        id=f"e{draw(st.uuids())}",
        kind=kind,
        viewer_id="v",
        at=LANDMARK + draw(st.floats(-10, 10)) * HALF_LIFE_S,
        region=draw(st.sampled_from(REGIONS)),
        item_id=None if kind == "impression" else about,
        items=("a", about) if kind == "impression" and about != "a" else (about,) if kind == "impression" else (),
    )


@settings(max_examples=50, deadline=None)
@given(st.lists(events(), max_size=20), st.floats(-5, 20))
def test_columns_are_what_a_plain_sum_gives(happened: list[ViewerEvent], later: float) -> None:
    now = LANDMARK + later * HALF_LIFE_S
    columns = StatsColumns(CATALOG)
    count, shown = np.zeros((3, len(ACTIONS))), np.zeros(3)
    plays: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(3))
    for event in happened:
        columns.add(event)
        weight = 0.5 ** ((now - event.at) / HALF_LIFE_S)
        for id in event.items:
            if id in ITEMS:
                shown[ITEMS.index(id)] += weight
        if event.item_id in ITEMS:
            row = ITEMS.index(event.item_id)
            for action in actions_of(event):
                count[row, ACTIONS.index(action)] += weight
            if "play" in actions_of(event):
                for region in REGIONS[1:]:
                    if event.region == region or event.region.startswith(region + "."):
                        plays[region][row] += weight
    stats = columns.at(now)
    np.testing.assert_allclose(stats.count, count, rtol=1e-5)
    np.testing.assert_allclose(stats.impressions, shown, rtol=1e-5)
    assert stats.count.dtype == stats.impressions.dtype == np.float32
    assert set(stats.by_region) == set(plays)
    for region, expected in plays.items():
        np.testing.assert_allclose(stats.by_region[region], expected, rtol=1e-5)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(events(), st.integers(0, 2)), max_size=20))
def test_shards_of_the_online_store_sum_to_the_same(happened: list[tuple[ViewerEvent, int]]) -> None:
    store, columns = MemoryStore(), StatsColumns(CATALOG)
    shards: dict[tuple[str, str], list[Placed]] = defaultdict(list)
    for offset, (event, partition) in enumerate(happened):
        columns.add(event)
        for id in items_of(event):
            shards[id, f"t/{partition}"].append(Placed(f"t/{partition}", offset, event))
    store.put({item_key(*key): encode_item(fold_item(ItemState(key[0]), list_)) for key, list_ in shards.items()})
    store.put({viewer_key("v"): b"not an item"})
    now = LANDMARK + HALF_LIFE_S
    read, direct = read_stats(store, CATALOG, now), columns.at(now)
    np.testing.assert_allclose(read.count, direct.count, rtol=1e-6)
    np.testing.assert_allclose(read.impressions, direct.impressions, rtol=1e-6)
    assert set(read.by_region) == set(direct.by_region)
    for region, plays in direct.by_region.items():
        np.testing.assert_allclose(read.by_region[region], plays, rtol=1e-6)


def test_nothing_seen_is_all_zeros_at_any_time() -> None:
    for now in (0.0, LANDMARK, LANDMARK * 1.6):
        stats = read_stats(MemoryStore(), CATALOG, now)
        assert not stats.count.any()
        assert stats.count.shape == (3, len(ACTIONS))
