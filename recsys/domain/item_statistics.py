"""Decayed counts of items: the state of one item, and the states of all items as columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import msgspec
import numpy as np

from recsys.domain.decay import FAST_HALF_LIFE_S, HALF_LIFE_S
from recsys.domain.region_counts import RegionCounts
from recsys.domain.types import ACTIONS, F32, F64, I64


class ItemState(msgspec.Struct, frozen=True, array_like=True):
    """Decayed counts of one item in one partition of the log (shards are summed on reading).

    What is counted are votes: at most one a day for each viewer and action, worth less when repeated on further days
    (`features.state.votes`). Forward decay (Cormode et al. 2009): each vote adds its worth x `forward_weight(at)`, so
    adding needs no clock and no order, and a reader divides by `forward_weight(now)`. A visit is a viewer opening or playing
    the item. `lately` decays faster; it is as of `lately_at`.
    """

    item_id: str
    counts: dict[str, float] = {}  # action (those of `recsys.domain.types.ACTIONS`, click, hide, ...) -> decayed count
    regions: dict[str, float] = {}  # region -> decayed visits from it or from a place in it
    impressions: float = 0.0
    offsets: dict[str, int] = {}
    visits: float = 0.0
    screens: dict[str, float] = {}  # screen -> decayed visits on it
    recent_counts: float = 0.0
    recent_at: float = 0.0
    at: float = 0.0  # unix seconds of the newest event, whether it counted or not


@dataclass(frozen=True)
class ItemStats:
    """Item states as columns over catalogue rows, at one moment.

    count        [N, A]  decayed counts per action of `recsys.domain.types.ACTIONS`
    impressions  [N]     decayed impressions
    by_region    region -> [N] decayed visits from that region
    by_screen    screen -> [N] decayed visits on that screen
    visits       [N]     decayed visits: viewers who opened or played it; None stands for the plays
    hides        [N]     decayed hides; None stands for none
    lately       [N]     visits that decay with FAST_HALF_LIFE_S; None stands for a steady stream
    offsets      source -> [N] last event of it that was counted, -1 for none
    at                   the moment, unix seconds
    """

    count: F32
    impressions: F32
    by_region: Mapping[str, F32] = field(default_factory=dict)
    by_screen: Mapping[str, F32] = field(default_factory=dict)
    visits: F32 | None = None
    hides: F32 | None = None
    recent: F32 | None = None
    offsets: Mapping[str, I64] = field(default_factory=dict)
    at: float = 0.0

    @classmethod
    def empty(cls, items: int) -> ItemStats:
        """Nothing seen yet, for a catalogue of `items` rows."""
        return cls(np.zeros((items, len(ACTIONS)), np.float32), np.zeros(items, np.float32))

    @cached_property
    def totals(self) -> F64:
        """[A + 3] sums over all items: of each action, of impressions, of visits, of hides."""
        hides = 0.0 if self.hides is None else self.hides.sum(dtype=np.float64)
        sums = [*self.count.sum(axis=0, dtype=np.float64), self.impressions.sum(dtype=np.float64)]
        return np.array([*sums, self._visits().sum(dtype=np.float64), hides])

    def popularity(self) -> F32:
        """[N] decayed visits, worth up to half as much again for an item that is seen to the end, double for one that
        is liked, nothing for one that is disliked by all who play it. Rates are shrunk, as by 20 plays."""
        plays = self.count[:, ACTIONS.index("play")]
        worth = np.ones_like(plays)
        for action, weight in (("complete", 0.5), ("like", 1.0), ("dislike", -1.0)):
            worth += np.float32(weight) * _rate(self.count[:, ACTIONS.index(action)], plays, 20.0)
        popularity: F32 = self._visits() * np.maximum(worth, np.float32(0.0))
        return popularity

    def completion_rate(self, shrink: float = 20.0) -> F32:
        """[N] completions per play in [0, 1], pulled towards the catalogue's rate as by `shrink` plays."""
        return _rate(self.count[:, ACTIONS.index("complete")], self.count[:, ACTIONS.index("play")], shrink)

    def hide_rate(self, shrink: float = 200.0) -> F32:
        """[N] hides per impression in [0, 1], pulled towards the catalogue's rate as by `shrink` impressions."""
        hides = np.zeros_like(self.impressions) if self.hides is None else self.hides
        return _rate(hides, self.impressions, shrink)

    def trend(self, shrink: float = 5.0) -> F32:
        """[N] visits lately against what a steady stream of the same visits would give: 1 steady, more for a rise.

        Pulled towards 1 as by `shrink` visits.
        """
        steady = self._visits() * np.float32(FAST_HALF_LIFE_S / HALF_LIFE_S)
        lately = steady if self.recent is None else self.recent
        trend: F32 = (lately + np.float32(shrink)) / (steady + np.float32(shrink))
        return trend

    def resized(self, items: int) -> ItemStats:
        """The same columns for a catalogue that has grown to `items` rows; new rows have seen nothing."""
        missing = items - len(self.impressions)
        if missing <= 0:
            return self
        return ItemStats(
            np.vstack([self.count, np.zeros((missing, self.count.shape[1]), np.float32)]),
            _extended(self.impressions, missing),
            self.by_region.resized(items)
            if isinstance(self.by_region, RegionCounts)
            else {region: _extended(visits, missing) for region, visits in self.by_region.items()},
            {screen: _extended(visits, missing) for screen, visits in self.by_screen.items()},
            None if self.visits is None else _extended(self.visits, missing),
            None if self.hides is None else _extended(self.hides, missing),
            None if self.recent is None else _extended(self.recent, missing),
            offsets={source: np.concatenate([upto, np.full(missing, -1)]) for source, upto in self.offsets.items()},
            at=self.at,
        )

    def _visits(self) -> F32:
        return self.count[:, ACTIONS.index("play")] if self.visits is None else self.visits


def _rate(part: F32, whole: F32, shrink: float) -> F32:
    mean = float(part.sum()) / max(float(whole.sum()), 1.0)
    rate: F32 = np.clip((part + np.float32(shrink * mean)) / (whole + np.float32(shrink)), 0.0, 1.0)
    return rate


def _extended(column: F32, missing: int) -> F32:
    return np.concatenate([column, np.zeros(missing, np.float32)])
