"""Measures the cost of statistics by region in a large country: reading many items, and folding one item.

    python -m benchmarks.features.regions [--items N] [--counties C] [--busiest V] [--seed S]

The synthetic country has 31 provinces and C counties with sizes by Zipf's law; the k-th item has V / k^0.7 visits. The
store is in memory and is read as serving does. The fold is measured with visits to one item from all counties, and from
the provinces only. The last line is one JSON object.
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
from features.state.online.memory import MemoryStore
from features.state.votes import VISIT, WeightedEvent
from recsys.candidates.sources import local_plays
from recsys.domain.catalog import Catalog
from recsys.domain.decay import LANDMARK
from recsys.domain.item import Item
from recsys.domain.item_statistics import ItemState, ItemStats
from recsys.domain.regions import roll_up
from recsys.domain.types import F64

PROVINCES = 31
AT = LANDMARK + 86_400.0


def main() -> None:
    """Fold an item, then make and read many items; prints the times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--counties", type=int, default=2844)
    parser.add_argument("--busiest", type=int, default=200_000, help="visits to the most visited item")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    counties = [f"cn.p{county % PROVINCES}.c{county}" for county in range(args.counties)]
    rng = np.random.default_rng(args.seed)
    share = 1.0 / np.arange(1, args.counties + 1)
    share /= share.sum()
    figures: dict[str, Any] = {"items": args.items, "counties": args.counties, "seed": args.seed}
    figures |= _fold(counties, rng, share)
    figures |= _read(counties, rng, share, args.items, args.busiest)
    print(json.dumps(figures))


def _fold(counties: list[str], rng: np.random.Generator, share: F64) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for name, regions in (("country", counties), ("provinces", [f"cn.p{n}" for n in range(PROVINCES)])):
        drawn = rng.integers(0, len(regions), 40_000).tolist()
        votes = (("i", VISIT, 1.0), ("i", "open", 1.0))
        events = [WeightedEvent("t/0", n, _visit(n, regions[region]), votes) for n, region in enumerate(drawn)]
        fold_item(ItemState("i"), events[:1000])
        began = time.process_time()
        state = fold_item(ItemState("i"), events)
        cpu_s = time.process_time() - began
        visited = {regions[n] for n in drawn}
        lost = sum(regions[n] not in state.regions for n in drawn)
        figures[f"fold {name}"] = {"events per cpu s": round(len(drawn) / cpu_s), "visits lost": lost}
        print(f"fold, one item, {name}: {len(drawn) / cpu_s:,.0f} events/s, of {len(visited):,} regions "
              f"{len(visited - state.regions.keys()):,} lost with {lost:,} visits, "
              f"state {len(encode_item(state)):,} bytes")  # fmt: skip
    return figures


def _visit(number: int, region: str) -> ViewerEvent:
    return ViewerEvent(id=f"e{number}", kind="open", viewer_id=f"v{number}", at=AT, item_id="i", region=region)


def _read(counties: list[str], rng: np.random.Generator, share: F64, items: int, busiest: int) -> dict[str, Any]:
    store, catalog, entries, bytes_ = MemoryStore(), _catalog(items), 0, 0
    for number in range(items):
        visits = max(round(busiest / (number + 1) ** 0.7), 1)
        if visits > 2000:
            counts = rng.multinomial(visits, share)
            visits_by_region = {counties[n]: float(counts[n]) for n in np.flatnonzero(counts).tolist()}
        else:
            visits_by_region = {}
            for county in rng.choice(len(counties), visits, p=share).tolist():
                visits_by_region[counties[county]] = visits_by_region.get(counties[county], 0.0) + 1.0
        regions: dict[str, float] = {}
        for region, count in visits_by_region.items():
            for ancestor in roll_up(region):
                regions[ancestor] = regions.get(ancestor, 0.0) + count
        raw = encode_item(ItemState(f"i{number}", {"play": visits}, regions, visits=visits, offsets={"t/0": 1}, at=AT))
        store.put({item_key(f"i{number}", "t/0"): raw})
        entries, bytes_ = entries + len(regions), bytes_ + len(raw)
    rss_before = rss_mb()
    began = time.perf_counter()
    stats = read_stats(store, catalog, AT)
    read_s, retained_mb = time.perf_counter() - began, rss_mb() - rss_before
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000 - rss_before
    costs_us = {name: _page_costs_us(stats, name, catalog) for name in ("cn", "cn.p3", counties[0], counties[-1])}
    print(f"{items:,} items, {entries:,} counts by region in states of {bytes_ / 1e6:,.0f} MB: read in {read_s:.1f} s, "
          f"peak {peak_mb:,.0f} MB, retained {retained_mb:,.0f} MB, {len(stats.by_region):,} regions")  # fmt: skip
    for name, us in costs_us.items():
        print(f"  a page in {name}: microseconds for visits and for local plays: {us}")
    return {"entries": entries, "read s": round(read_s, 2), "peak MB": round(peak_mb),
            "retained MB": round(retained_mb), "regions": len(stats.by_region), "page us": costs_us,
            "states MB": round(bytes_ / 1e6)}  # fmt: skip


def _page_costs_us(stats: ItemStats, region: str, catalog: Catalog) -> list[int]:
    """Return the microseconds of a page's two reads of a region; empty for a region without statistics."""
    if region not in stats.by_region:
        return []
    rows = np.arange(0, len(catalog), max(len(catalog) // 600, 1), dtype=np.int32)
    times = []
    for read in (lambda: stats.by_region[region][rows], lambda: local_plays(stats, region)):
        began = time.perf_counter()
        for _ in range(200):
            read()
        times.append(round((time.perf_counter() - began) / 200 * 1e6))
    return times


def _catalog(items: int) -> Catalog:
    template = Item.model_validate(
        {"id": "i", "title": {"en": "x"}, "outlet": "cn", "published_at": "2026-01-01T00:00:00Z"}
    )
    return Catalog.of(template.model_copy(update={"id": f"i{number}"}) for number in range(items))


if __name__ == "__main__":
    main()
