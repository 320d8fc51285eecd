"""An item's state in the making: votes are added to decayed counts, in whatever order they come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from features.state.votes import IMPRESSION, VISIT, Vote, WeightedEvent
from recsys.domain.decay import FAST_HALF_LIFE_S, forward_weight, is_expired
from recsys.domain.item_statistics import ItemState
from recsys.domain.regions import roll_up

REGIONS_MAX = 4096
REGIONS_SPARE = 512
"""Regions that an item's state tells apart: all of them up to REGIONS_MAX + REGIONS_SPARE, which holds every county of
a large country (GB/T 2260 has some 3,200 codes). When there is one more, the REGIONS_MAX with the most visits stay, and
what the others had is lost: of each at most what the lightest that stays has. So a newcomer has time to grow until
REGIONS_SPARE others have come, and one that was cut begins anew when it comes back. A region has the visits of all that
lies in it, so what is lost of a place still counts for those around it.
"""


class ItemFold:
    """Takes the events of one item, in offset order per source; `state` is what it has come to.

    An item that had no event for longer than `ttl_s` begins anew with the next one.
    """

    __slots__ = ("_at", "_counts", "_impressions", "_item_id", "_lately", "_lately_at", "_offsets", "_regions",
                 "_screens", "_ttl_s", "_visits")  # fmt: skip

    def __init__(self, state: ItemState, ttl_s: float = float("inf")) -> None:
        self._ttl_s = ttl_s
        self._resume(state)

    def _resume(self, state: ItemState) -> None:
        self._item_id, self._at = state.item_id, state.at
        self._counts, self._regions, self._offsets = dict(state.counts), dict(state.regions), dict(state.offsets)
        self._screens = dict(state.screens)
        self._impressions, self._visits = state.impressions, state.visits
        self._lately, self._lately_at = state.recent_counts, state.recent_at

    def apply(self, one: WeightedEvent, votes: Sequence[Vote]) -> None:
        """Count the votes of an event on this item, unless the event was folded before."""
        if one.offset <= self._offsets.get(one.source, -1):
            return
        if self._at and is_expired(self._at, one.event.at, self._ttl_s):
            self._resume(ItemState(self._item_id))
        self._offsets[one.source] = one.offset
        self._at = max(self._at, one.event.at)
        if not votes:
            return
        event, counts = one.event, self._counts
        weight = forward_weight(event.at)
        for _, action, worth in votes:
            if action == VISIT:
                self._add_visit(worth, worth * weight, event.at, event.region, screen_of(event.screen, event.placement))
            elif action == IMPRESSION:
                self._impressions += worth * weight
            else:
                counts[action] = counts.get(action, 0.0) + worth * weight

    def _add_visit(self, worth: float, weight: float, at: float, region: str, screen: str) -> None:
        self._visits += weight
        self._lately, self._lately_at = update_fast_decay(self._lately, self._lately_at, worth, at)
        regions = self._regions
        for place in roll_up(region):
            regions[place] = regions.get(place, 0.0) + weight
        if len(regions) > REGIONS_MAX + REGIONS_SPARE:
            self._regions = top_regions(regions, REGIONS_MAX)
        if screen:
            self._screens[screen] = self._screens.get(screen, 0.0) + weight

    def state(self) -> ItemState:
        """The item's state by now. The fold may go on afterwards, but not when the state is still in use."""
        return ItemState(self._item_id, self._counts, self._regions, self._impressions, self._offsets, self._visits,
                         self._screens, self._lately, self._lately_at, self._at)  # fmt: skip


def top_regions(regions: Mapping[str, float], most: int) -> dict[str, float]:
    """The `most` regions with the most visits, in the order in which they stood; of equals the first by name, so a
    region before what lies in it.

    >>> top_regions({"us": 1.0, "cn.zj": 2.0, "cn": 2.0}, 1)
    {'cn': 2.0}
    """
    kept = set(sorted(regions, key=lambda place: (-regions[place], place))[:most])
    return {place: visits for place, visits in regions.items() if place in kept}


def update_fast_decay(lately: float, lately_at: float, worth: float, at: float) -> tuple[float, float]:
    """A count that decays with FAST_HALF_LIFE_S, and its moment, after `worth` at unix second `at`, early or late.

    >>> update_fast_decay(8.0, 0.0, 1.0, FAST_HALF_LIFE_S), update_fast_decay(8.0, FAST_HALF_LIFE_S, 1.0, 0.0)
    ((5.0, 21600.0), (8.5, 21600.0))
    """
    if at >= lately_at:
        return lately * 2.0 ** ((lately_at - at) / FAST_HALF_LIFE_S) + worth, at
    return lately + worth * 2.0 ** ((at - lately_at) / FAST_HALF_LIFE_S), lately_at


def screen_of(screen: str | None, placement: str) -> str:
    """The screen an event says it happened on, else that of its placement; empty when it says neither.

    >>> screen_of(None, "cn.zj-tv-home")
    'tv'
    """
    return str(screen) if screen else placement_region(placement)[1]


@lru_cache(maxsize=10_000)
def placement_region(placement: str) -> tuple[str, str]:
    """Outlet and screen of a placement's id; empty ones for an empty id.

    >>> placement_region("cn.zj-tv-home")
    ('cn.zj', 'tv')
    """
    outlet, _, rest = placement.partition("-")
    return outlet, rest.partition("-")[0]
