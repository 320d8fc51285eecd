"""The fold of one item: adds votes to its decayed counts. The order of events does not matter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from features.state.votes import IMPRESSION, VISIT, Vote, WeightedEvent
from recsys.domain.decay import FAST_HALF_LIFE_S, forward_weight, is_expired
from recsys.domain.item_statistics import ItemState
from recsys.domain.regions import roll_up

REGIONS_MAX = 4096
REGIONS_SPARE = 512
"""Limits on the regions of an item's state. A state holds up to REGIONS_MAX + REGIONS_SPARE regions, enough for every
county of a large country (GB/T 2260 has some 3,200 codes). When it exceeds that number, only the REGIONS_MAX regions
with the most visits stay; the counts of the others are lost, each at most as large as the smallest that stays. The
spare capacity gives a new region time to grow: it is cut at the earliest after REGIONS_SPARE more regions have come.
Visits count for a region and for all regions that contain it, so a cut region still counts for its ancestors.
"""


class ItemFold:
    """The fold of one item's events, which come in offset order per source.

    If the item is idle for longer than `ttl_s`, its state expires and the next event starts from an empty state.
    """

    __slots__ = (
        "_at",
        "_counts",
        "_impressions",
        "_item_id",
        "_offsets",
        "_recent_at",
        "_recent_counts",
        "_regions",
        "_screens",
        "_ttl_s",
        "_visits",
    )  # fmt: skip

    def __init__(self, state: ItemState, ttl_s: float = float("inf")) -> None:
        self._ttl_s = ttl_s
        self._resume(state)

    def _resume(self, state: ItemState) -> None:
        self._item_id, self._at = state.item_id, state.at
        self._counts, self._regions, self._offsets = dict(state.counts), dict(state.regions), dict(state.offsets)
        self._screens = dict(state.screens)
        self._impressions, self._visits = state.impressions, state.visits
        self._recent_counts, self._recent_at = state.recent_counts, state.recent_at

    def apply(self, event: WeightedEvent, votes: Sequence[Vote]) -> None:
        """Count the votes of an event on this item, unless the event is already folded."""
        if event.offset <= self._offsets.get(event.source, -1):
            return
        if self._at and is_expired(self._at, event.event.at, self._ttl_s):
            self._resume(ItemState(self._item_id))
        self._offsets[event.source] = event.offset
        self._at = max(self._at, event.event.at)
        if not votes:
            return
        viewer_event, counts = event.event, self._counts
        weight = forward_weight(viewer_event.at)
        for _, action, value in votes:
            if action == VISIT:
                self._add_visit(
                    value,
                    value * weight,
                    viewer_event.at,
                    viewer_event.region,
                    event_screen(viewer_event.screen, viewer_event.placement),
                )
            elif action == IMPRESSION:
                self._impressions += value * weight
            else:
                counts[action] = counts.get(action, 0.0) + value * weight

    def _add_visit(self, value: float, weight: float, at: float, region: str, screen: str) -> None:
        self._visits += weight
        self._recent_counts, self._recent_at = update_fast_decay(self._recent_counts, self._recent_at, value, at)
        regions = self._regions
        for ancestor in roll_up(region):
            regions[ancestor] = regions.get(ancestor, 0.0) + weight
        if len(regions) > REGIONS_MAX + REGIONS_SPARE:
            self._regions = top_regions(regions, REGIONS_MAX)
        if screen:
            self._screens[screen] = self._screens.get(screen, 0.0) + weight

    def state(self) -> ItemState:
        """Return the current state. It shares dictionaries with the fold: apply no more events while it is in use."""
        return ItemState(self._item_id, self._counts, self._regions, self._impressions, self._offsets, self._visits,
                         self._screens, self._recent_counts, self._recent_at, self._at)  # fmt: skip


def top_regions(regions: Mapping[str, float], limit: int) -> dict[str, float]:
    """Return the `limit` regions with the most visits, in their original order.

    Ties are resolved by name, so a region precedes the regions that it contains.

    >>> top_regions({"us": 1.0, "cn.zj": 2.0, "cn": 2.0}, 1)
    {'cn': 2.0}
    """
    top = set(sorted(regions, key=lambda name: (-regions[name], name))[:limit])
    return {name: visits for name, visits in regions.items() if name in top}


def update_fast_decay(count: float, count_at: float, value: float, at: float) -> tuple[float, float]:
    """Add `value` at unix second `at` to a count that decays with FAST_HALF_LIFE_S; return the count and its time.

    `at` may be before or after `count_at`.

    >>> update_fast_decay(8.0, 0.0, 1.0, FAST_HALF_LIFE_S), update_fast_decay(8.0, FAST_HALF_LIFE_S, 1.0, 0.0)
    ((5.0, 21600.0), (8.5, 21600.0))
    """
    if at >= count_at:
        return count * 2.0 ** ((count_at - at) / FAST_HALF_LIFE_S) + value, at
    return count + value * 2.0 ** ((at - count_at) / FAST_HALF_LIFE_S), count_at


def event_screen(screen: str | None, placement: str) -> str:
    """Return the event's screen, or else the screen of its placement; empty if the event names neither.

    >>> event_screen(None, "cn.zj-tv-home")
    'tv'
    """
    return str(screen) if screen else split_placement(placement)[1]


@lru_cache(maxsize=10_000)
def split_placement(placement: str) -> tuple[str, str]:
    """Return the outlet and the screen of a placement id; empty strings for an empty id.

    >>> split_placement("cn.zj-tv-home")
    ('cn.zj', 'tv')
    """
    outlet, _, rest = placement.partition("-")
    return outlet, rest.partition("-")[0]
