"""What it costs to tell a country's places apart: statistics of many items by region, and the fold of an item.

    python -m benchmarks.features.regions [--items N] [--counties C] [--busiest V] [--seed S]

A country of 31 provinces and C counties, these as unequal as Zipf's law has them; the k-th item was visited V / k^0.7
times. All of it is made up by the seed. The store is in memory; times are of reading it as serving does. Of the fold:
visits to one item from anywhere in the country, and from 31 provinces alone. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from typing import Any

import numpy as np

from benchmarks.features.fold import rss_mb
from features.events.schema import ViewerEvent
from features.state.codec import encode_item, item_key
from features.state.fold import fold_item
from features.state.item_columns import read_stats
from features.state.item_fold import roll_up
from features.state.online.memory import MemoryStore
from features.state.votes import VISIT, WeightedEvent
from recsys.candidates.sources import local_plays
from recsys.domain.catalog import Catalog, Item
from recsys.domain.types import F64
from recsys.domain.viewer import LANDMARK, ItemState, ItemStats

PROVINCES = 31
AT = LANDMARK + 86_400.0


def main() -> None:
    """Makes the items, reads them, folds; prints what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--counties", type=int, default=2844)
    parser.add_argument("--busiest", type=int, default=200_000, help="visits to the item that has most")
    parser.add_argument("--seed", type=int, default=1)
    said = parser.parse_args()
    places = [f"cn.p{county % PROVINCES}.c{county}" for county in range(said.counties)]
    chance = np.random.default_rng(said.seed)
    share = 1.0 / np.arange(1, said.counties + 1)
    share /= share.sum()
    figures: dict[str, Any] = {"items": said.items, "counties": said.counties, "seed": said.seed}
    figures |= _fold(places, chance, share)
    figures |= _read(places, chance, share, said.items, said.busiest)
    print(json.dumps(figures))


def _fold(places: list[str], chance: np.random.Generator, share: F64) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, regions in (("country", places), ("provinces", [f"cn.p{n}" for n in range(PROVINCES)])):
        drawn = chance.integers(0, len(regions), 40_000).tolist()
        votes = (("i", VISIT, 1.0), ("i", "open", 1.0))
        events = [WeightedEvent("t/0", n, _visit(n, regions[region]), votes) for n, region in enumerate(drawn)]
        fold_item(ItemState("i"), events[:1000])
        began = time.process_time()
        state = fold_item(ItemState("i"), events)
        took = time.process_time() - began
        visited = {regions[n] for n in drawn}
        lost = sum(regions[n] not in state.regions for n in drawn)
        found[f"fold {name}"] = {"events per cpu s": round(len(drawn) / took), "visits lost": lost}
        print(f"fold, one item, {name}: {len(drawn) / took:,.0f} events/s, of {len(visited):,} places "
              f"{len(visited - state.regions.keys()):,} lost with {lost:,} visits, "
              f"state {len(encode_item(state)):,} bytes")  # fmt: skip
    return found


def _visit(number: int, region: str) -> ViewerEvent:
    return ViewerEvent(id=f"e{number}", kind="open", viewer_id=f"v{number}", at=AT, item_id="i", region=region)


def _read(places: list[str], chance: np.random.Generator, share: F64, items: int, busiest: int) -> dict[str, Any]:
    store, catalog, entries, bytes_ = MemoryStore(), _catalog(items), 0, 0
    for number in range(items):
        visits = max(round(busiest / (number + 1) ** 0.7), 1)
        if visits > 2000:
            counts = chance.multinomial(visits, share)
            here = {places[n]: float(counts[n]) for n in np.flatnonzero(counts).tolist()}
        else:
            here = {}
            for county in chance.choice(len(places), visits, p=share).tolist():
                here[places[county]] = here.get(places[county], 0.0) + 1.0
        regions: dict[str, float] = {}
        for place, count in here.items():
            for around in roll_up(place):
                regions[around] = regions.get(around, 0.0) + count
        raw = encode_item(ItemState(f"i{number}", {"play": visits}, regions, visits=visits, offsets={"t/0": 1}, at=AT))
        store.put({item_key(f"i{number}", "t/0"): raw})
        entries, bytes_ = entries + len(regions), bytes_ + len(raw)
    before = rss_mb()
    began = time.perf_counter()
    stats = read_stats(store, catalog, AT)
    took, held = time.perf_counter() - began, rss_mb() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000 - before
    asked = {name: _page_costs_us(stats, name, catalog) for name in ("cn", "cn.p3", places[0], places[-1])}
    print(f"{items:,} items, {entries:,} counts by region in states of {bytes_ / 1e6:,.0f} MB: read in {took:.1f} s, "
          f"{peak:,.0f} MB at most, {held:,.0f} MB held, {len(stats.by_region):,} regions")  # fmt: skip
    for name, us in asked.items():
        print(f"  a page in {name}: us for visits, and for where enough was played: {us}")
    return {"entries": entries, "read s": round(took, 2), "peak MB": round(peak), "held MB": round(held),
            "regions": len(stats.by_region), "page us": asked,
            "states MB": round(bytes_ / 1e6)}  # fmt: skip


def _page_costs_us(stats: ItemStats, region: str, catalog: Catalog) -> list[int]:
    """Microseconds of a page's two looks into the regions; none for a region that is not told apart."""
    if region not in stats.by_region:
        return []
    rows = np.arange(0, len(catalog), max(len(catalog) // 600, 1), dtype=np.int32)
    times = []
    for look in (lambda: stats.by_region[region][rows], lambda: local_plays(stats, region)):
        began = time.perf_counter()
        for _ in range(200):
            look()
        times.append(round((time.perf_counter() - began) / 200 * 1e6))
    return times


def _catalog(items: int) -> Catalog:
    one = Item.model_validate({"id": "i", "title": {"en": "x"}, "outlet": "cn", "published_at": "2026-01-01T00:00:00Z"})
    return Catalog.of(one.model_copy(update={"id": f"i{number}"}) for number in range(items))


if __name__ == "__main__":
    main()
