"""Item counts as columns are the same whether counted event by event or summed from shards."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.events.schema import ViewerEvent, actions_of
from features.state import item_columns as module
from features.state.codec import encode_item, item_key, viewer_key
from features.state.fold import deduplicate_and_fold, fold_item
from features.state.item_columns import ItemColumns, read_stats
from features.state.online.memory import MemoryStore
from features.state.votes import LoggedEvent, WeightedEvent, items_of
from recsys.domain.catalog import Catalog
from recsys.domain.decay import FAST_HALF_LIFE_S, HALF_LIFE_S, LANDMARK
from recsys.domain.item import Item
from recsys.domain.item_statistics import ItemState
from recsys.domain.placement import Screen
from recsys.domain.region_counts import RegionCounts
from recsys.domain.types import ACTIONS
from recsys.domain.viewer import Recent, ViewerState

ITEMS = ("a", "b", "c")
CATALOG = Catalog.of(
    Item(id=id, title={"en": id}, outlet="cn", published_at=datetime(2026, 1, 1, tzinfo=UTC)) for id in ITEMS
)
FULL_TRUST_HISTORY = tuple(Recent(item, "click", 0.0) for item in "xyz")
VISITS = ("click", "open", "play", "complete", "like")
REGIONS = ("", "cn", "cn.zj", "cn.zj.hz", "us")


@st.composite
def events(draw: st.DrawFn) -> ViewerEvent:
    kind = draw(
        st.sampled_from(("impression", "click", "play", "complete", "like", "dislike", "hide", "favourite", "ping"))
    )
    subject = draw(st.sampled_from((*ITEMS, "unknown")))
    return ViewerEvent(
        id=f"e{draw(st.uuids())}",
        kind=kind,
        viewer_id="v",
        at=LANDMARK + draw(st.floats(-10, 10)) * HALF_LIFE_S,
        region=draw(st.sampled_from(REGIONS)),
        screen=draw(st.sampled_from((None, Screen.TV, Screen.CAR))),
        position_s=3.0 if kind == "ping" else None,
        item_id=None if kind == "impression" else subject,
        context={"seed": 1} if kind == "impression" else {},
        items=("a", subject) if kind == "impression" and subject != "a" else (subject,) if kind == "impression" else (),
    )


def counted(viewer_events: list[ViewerEvent], partition: int = 0) -> list[WeightedEvent]:
    """Return the events with their votes, each from a different viewer with full trust, so that each vote weighs 1."""
    return [
        weighted
        for offset, event in enumerate(viewer_events)
        for weighted in deduplicate_and_fold(
            ViewerState(f"v{offset}", FULL_TRUST_HISTORY), [LoggedEvent(f"t/{partition}", offset, event)]
        ).new_events
    ]


@settings(max_examples=50, deadline=None)
@given(st.lists(events(), max_size=20), st.floats(-5, 20))
def test_columns_equal_a_naive_sum(viewer_events: list[ViewerEvent], later: float) -> None:
    now = LANDMARK + later * HALF_LIFE_S
    columns = ItemColumns(CATALOG)
    count, shown, visits, hides = np.zeros((3, len(ACTIONS))), np.zeros(3), np.zeros(3), np.zeros(3)
    by_region: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(3))
    by_screen: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(3))
    recent = np.zeros(3)
    newest = [max((e.at for e in viewer_events if e.item_id == id and e.kind in VISITS), default=0.0) for id in ITEMS]
    for weighted in counted(viewer_events):
        columns.add(weighted)
        event = weighted.event
        weight = 0.5 ** ((now - event.at) / HALF_LIFE_S)
        for id in event.items:
            if id in ITEMS:
                shown[ITEMS.index(id)] += weight
        if event.item_id not in ITEMS:
            continue
        row = ITEMS.index(event.item_id)
        for action in actions_of(event):
            count[row, ACTIONS.index(action)] += weight
        hides[row] += weight * (event.kind == "hide")
        if event.kind in VISITS:
            visits[row] += weight
            recent[row] += 0.5 ** ((max(now, newest[row]) - event.at) / FAST_HALF_LIFE_S)
            for region in REGIONS[1:]:
                if event.region == region or event.region.startswith(region + "."):
                    by_region[region][row] += weight
            if event.screen:
                by_screen[event.screen][row] += weight
    stats = columns.at(now)
    np.testing.assert_allclose(stats.count, count, rtol=1e-5)
    np.testing.assert_allclose(stats.impressions, shown, rtol=1e-5)
    assert stats.count.dtype == stats.impressions.dtype == np.float32
    assert stats.visits is not None
    assert stats.hides is not None
    assert stats.recent is not None
    np.testing.assert_allclose(stats.visits, visits, rtol=1e-5)
    np.testing.assert_allclose(stats.hides, hides, rtol=1e-5)
    np.testing.assert_allclose(stats.recent, recent, rtol=1e-5, atol=1e-30)
    for actual, expected in ((stats.by_region, by_region), (stats.by_screen, by_screen)):
        assert set(actual) == set(expected)
        for name, numbers in expected.items():
            np.testing.assert_allclose(actual[name], numbers, rtol=1e-5)


@settings(max_examples=50, deadline=None)
@given(st.lists(events(), max_size=20), st.lists(st.integers(0, 2), min_size=20, max_size=20))
def test_shards_of_the_online_store_sum_to_the_same_columns(
    viewer_events: list[ViewerEvent], partitions: list[int]
) -> None:
    store, columns = MemoryStore(), ItemColumns(CATALOG)
    shards: dict[tuple[str, str], list[WeightedEvent]] = defaultdict(list)
    for weighted, partition in zip(counted(viewer_events), partitions, strict=False):
        columns.add(weighted)
        for id in items_of(weighted.event):
            shards[id, f"t/{partition}"].append(weighted._replace(source=f"t/{partition}"))
    store.put({item_key(*key): encode_item(fold_item(ItemState(key[0]), list_)) for key, list_ in shards.items()})
    store.put({viewer_key("v"): b"not an item"})
    now = LANDMARK + HALF_LIFE_S
    summed, direct = read_stats(store, CATALOG, now), columns.at(now)
    for name in ("count", "impressions", "visits", "hides"):
        np.testing.assert_allclose(getattr(summed, name), getattr(direct, name), rtol=1e-6)
    np.testing.assert_allclose(np.asarray(summed.recent), np.asarray(direct.recent), rtol=1e-6, atol=1e-30)
    for actual, expected in ((summed.by_region, direct.by_region), (summed.by_screen, direct.by_screen)):
        assert set(actual) == set(expected)
        for name, numbers in expected.items():
            np.testing.assert_allclose(actual[name], numbers, rtol=1e-6)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(ITEMS), st.sampled_from(["cn", "cn.a", "cn.b", "us", "fr"]), st.integers(1, 9))),
    st.integers(1, 4),
)
def test_region_counts_equal_a_dense_table(region_visits: list[tuple[str, str, int]], max_regions: int) -> None:
    """The oracle is a dense table. Flushes in between change nothing; above the limit the largest regions stay."""
    states = [ItemState(item, regions={region: float(visits)}) for item, region, visits in region_visits]
    table: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(3, np.float32))
    for item, region, number in region_visits:
        table[region][ITEMS.index(item)] += number
    top = sorted(table, key=lambda region: (table[region].sum(), region), reverse=True)[:max_regions]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "REGIONS_MAX", max_regions)
        patched.setattr(module, "FLUSH_EVERY", 2)
        columns = ItemColumns(CATALOG)
        for n in range(0, len(states), 5):
            columns.merge(states[n : n + 5])
            columns.at(LANDMARK)
        stats = columns.at(LANDMARK)
    assert sorted(stats.by_region) == sorted(top)
    for padding, statistics in ((0, stats), (2, stats.resized(5))):
        for region in [*top, *top]:  # a cached column is the same
            column = statistics.by_region[region]
            assert (column.dtype, column.tolist()) == (np.float32, [*table[region].tolist(), *[0.0] * padding])
    assert stats.by_region.get("nowhere") is None


def test_region_counts_use_memory_per_pair_not_per_region_times_item() -> None:
    catalog = Catalog.of(CATALOG.items[0].model_copy(update={"id": f"i{n}"}) for n in range(3000))
    columns = ItemColumns(catalog)
    columns.merge(ItemState(f"i{n}", regions={"cn": 2.0, f"cn.c{n % 3000}": 1.0}) for n in range(3000))
    stats = columns.at(LANDMARK)
    assert len(stats.by_region) == 3001
    assert all(stats.by_region[region].sum() == (3000 * 2 if region == "cn" else 1) for region in stats.by_region)
    assert isinstance(stats.by_region, RegionCounts)
    assert stats.by_region.nbytes <= 16 * 6000


def test_empty_store_gives_zeros_at_any_time() -> None:
    for now in (0.0, LANDMARK, LANDMARK * 1.6):
        stats = read_stats(MemoryStore(), CATALOG, now)
        assert not stats.count.any()
        assert stats.count.shape == (3, len(ACTIONS))
