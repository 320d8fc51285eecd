"""An item's state in the making: votes are added to decayed counts, in whatever order they come."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from features.votes import IMPRESSION, VISIT, Counted, Vote
from recsys.state import FAST_HALF_LIFE_S, ItemState, forgotten, forward_weight

REGIONS_MAX = 500
"""Regions that an item's state tells apart, those with the most visits."""


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
        self._lately, self._lately_at = state.lately, state.lately_at

    def take(self, one: Counted, votes: Sequence[Vote]) -> None:
        """Count the votes of an event on this item, unless the event was folded before."""
        if one.offset <= self._offsets.get(one.source, -1):
            return
        if self._at and forgotten(self._at, one.event.at, self._ttl_s):
            self._resume(ItemState(self._item_id))
        self._offsets[one.source] = one.offset
        self._at = max(self._at, one.event.at)
        if not votes:
            return
        event, counts = one.event, self._counts
        weight = forward_weight(event.at)
        for _, action, worth in votes:
            if action == VISIT:
                self._visit(worth, worth * weight, event.at, event.region, screen_of(event.screen, event.placement))
            elif action == IMPRESSION:
                self._impressions += worth * weight
            else:
                counts[action] = counts.get(action, 0.0) + worth * weight

    def _visit(self, worth: float, weight: float, at: float, region: str, screen: str) -> None:
        self._visits += weight
        self._lately, self._lately_at = faster(self._lately, self._lately_at, worth, at)
        regions = self._regions
        for place in roll_up(region):
            regions[place] = regions.get(place, 0.0) + weight
        while len(regions) > REGIONS_MAX:
            del regions[min(regions, key=lambda place: (regions[place], place))]
        if screen:
            self._screens[screen] = self._screens.get(screen, 0.0) + weight

    def state(self) -> ItemState:
        """The item's state by now. The fold may go on afterwards, but not when the state is still in use."""
        return ItemState(self._item_id, self._counts, self._regions, self._impressions, self._offsets, self._visits,
                         self._screens, self._lately, self._lately_at, self._at)  # fmt: skip


def faster(lately: float, lately_at: float, worth: float, at: float) -> tuple[float, float]:
    """A count that decays with FAST_HALF_LIFE_S, and its moment, after `worth` at unix second `at`, early or late.

    >>> faster(8.0, 0.0, 1.0, FAST_HALF_LIFE_S), faster(8.0, FAST_HALF_LIFE_S, 1.0, 0.0)
    ((5.0, 21600.0), (8.5, 21600.0))
    """
    if at >= lately_at:
        return lately * 2.0 ** ((lately_at - at) / FAST_HALF_LIFE_S) + worth, at
    return lately + worth * 2.0 ** ((at - lately_at) / FAST_HALF_LIFE_S), lately_at


@lru_cache(maxsize=10_000)
def roll_up(region: str) -> tuple[str, ...]:
    """A region and all that contain it, smallest first.

    >>> roll_up("cn.zj.hz")
    ('cn.zj.hz', 'cn.zj', 'cn')
    """
    parts = region.split(".") if region else []
    return tuple(".".join(parts[:depth]) for depth in range(len(parts), 0, -1))


def screen_of(screen: str | None, placement: str) -> str:
    """The screen an event says it happened on, else that of its placement; empty when it says neither.

    >>> screen_of(None, "cn.zj-tv-home")
    'tv'
    """
    return str(screen) if screen else placed_at(placement)[1]


@lru_cache(maxsize=10_000)
def placed_at(placement: str) -> tuple[str, str]:
    """Outlet and screen of a placement's id; empty ones for an empty id.

    >>> placed_at("cn.zj-tv-home")
    ('cn.zj', 'tv')
    """
    outlet, _, rest = placement.partition("-")
    return outlet, rest.partition("-")[0]
