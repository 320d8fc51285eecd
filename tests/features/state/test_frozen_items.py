"""While a shard of an item is corrupt, the item's statistics stay at their last values."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from features.state.codec import encode_item, item_key
from features.state.item_columns import read_stats
from features.state.online.memory import MemoryStore
from recsys.domain.catalog import Catalog
from recsys.domain.decay import HALF_LIFE_S, LANDMARK
from recsys.domain.item import Item
from recsys.domain.item_statistics import ItemState, ItemStats

NOW = LANDMARK + HALF_LIFE_S
CATALOG = Catalog.of(
    [Item.model_validate({"id": f"i{n}", "title": {"en": "x"}, "outlet": "cn", "published_at": "2026-01-01T00:00:00Z"})
     for n in range(4)]
)  # fmt: skip
NUMBERS = st.sampled_from([0.0, 1.0, 2.5])
STATES = st.builds(
    lambda visits, region, screen, recent: {
        "counts": {"play": visits, "hide": recent},
        "regions": {region: visits} if visits else {},
        "impressions": 2 * visits,
        "visits": visits,
        "screens": {screen: visits},
        "recent_counts": recent,
        "recent_at": NOW,
        "at": NOW,
    },
    NUMBERS,
    st.sampled_from(["cn", "us"]),
    st.sampled_from(["tv", "mobile"]),
    NUMBERS,
)


def columns(stats: ItemStats) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    regions = {f"region {name}": stats.by_region[name] for name in stats.by_region if stats.by_region[name].any()}
    screens = {f"screen {name}": column for name, column in stats.by_screen.items() if column.any()}
    offsets = {f"offset {name}": column for name, column in stats.offsets.items()}
    assert stats.visits is not None
    assert stats.hides is not None
    assert stats.recent is not None
    return {"count": stats.count, "impressions": stats.impressions, "visits": stats.visits, "hides": stats.hides,
            "recent": stats.recent, **regions, **screens, **offsets}  # fmt: skip


@given(st.lists(STATES, min_size=8, max_size=8), st.sets(st.integers(0, 7)), st.sampled_from([0.0, HALF_LIFE_S]))
def test_corrupt_shards_leave_all_statistics_as_they_were(
    states: list[dict[str, object]], corrupt: set[int], age_s: float
) -> None:
    store = MemoryStore()
    keys = [item_key(f"i{n // 2}", f"t/{n % 2}") for n in range(8)]
    for n, fields in enumerate(states):
        store.put({keys[n]: encode_item(ItemState(f"i{n // 2}", offsets={f"t/{n % 2}": n}, **fields))})  # type: ignore[arg-type]
    previous = read_stats(store, CATALOG, NOW)
    expected = columns(read_stats(store, CATALOG, NOW + age_s))
    store.put({keys[n]: b"corrupt" for n in corrupt})
    frozen = columns(read_stats(store, CATALOG, NOW + age_s, previous=previous))
    assert frozen.keys() <= expected.keys()
    for name, column in expected.items():
        np.testing.assert_allclose(frozen.get(name, np.zeros(4)), column, rtol=1e-6, err_msg=name)


def test_a_new_row_has_no_previous_statistics() -> None:
    store = MemoryStore()
    store.put({item_key("i3", "t/0"): b"corrupt"})
    stats = read_stats(store, CATALOG, NOW, previous=ItemStats.empty(3))
    assert not stats.impressions.any()
