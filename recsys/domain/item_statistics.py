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
    """Decayed counts of one item in one partition of the log. Readers sum the states of all partitions.

    The counts are votes: at most one a day for each viewer and action, with less weight when repeated on further days
    (`features.state.votes`). With forward decay (Cormode et al. 2009) each vote adds its weight x `forward_weight(at)`,
    so that adding needs neither a clock nor an order, and a reader divides by `forward_weight(now)`. A visit is a
    viewer opening or playing the item. `recent_counts` decays faster; its value is as of `recent_at`.
    """

    item_id: str
    counts: dict[str, float] = {}  # action (`recsys.domain.types.ACTIONS`, click, hide, ...) -> decayed count
    regions: dict[str, float] = {}  # region -> decayed visits from it or from a region in it
    impressions: float = 0.0
    offsets: dict[str, int] = {}
    visits: float = 0.0
    screens: dict[str, float] = {}  # screen -> decayed visits on it
    recent_counts: float = 0.0
    recent_at: float = 0.0
    at: float = 0.0  # unix seconds of the newest event, including events without a vote


@dataclass(frozen=True)
class ItemStats:
    """Item states as columns over catalog rows, at one point in time.

    count        [N, A]  decayed counts per action of `recsys.domain.types.ACTIONS`
    impressions  [N]     decayed impressions
    by_region    region -> [N] decayed visits from that region
    by_screen    screen -> [N] decayed visits on that screen
    visits       [N]     decayed visits: viewers who opened or played the item; None: equal to the plays
    hides        [N]     decayed hides; None: no hides
    recent       [N]     visits that decay with FAST_HALF_LIFE_S; None: a steady stream of visits
    offsets      source -> [N] offset of the last counted event, -1 for none
    at                   unix seconds of that point in time
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
        """Return statistics without any counts, for a catalog of `items` rows."""
        return cls(np.zeros((items, len(ACTIONS)), np.float32), np.zeros(items, np.float32))

    @cached_property
    def totals(self) -> F64:
        """[A + 3] sums over all items: each action, impressions, visits, hides."""
        hides = 0.0 if self.hides is None else self.hides.sum(dtype=np.float64)
        sums = [*self.count.sum(axis=0, dtype=np.float64), self.impressions.sum(dtype=np.float64)]
        return np.array([*sums, self._visits().sum(dtype=np.float64), hides])

    def popularity(self) -> F32:
        """Return [N] decayed visits x (1 + 0.5 completion rate + like rate - dislike rate), at least 0.

        Rates are per play, shrunk towards the catalog's rate as by 20 plays.
        """
        plays = self.count[:, ACTIONS.index("play")]
        factor = np.ones_like(plays)
        for action, weight in (("complete", 0.5), ("like", 1.0), ("dislike", -1.0)):
            factor += np.float32(weight) * _rate(self.count[:, ACTIONS.index(action)], plays, 20.0)
        popularity: F32 = self._visits() * np.maximum(factor, np.float32(0.0))
        return popularity

    def completion_rate(self, shrink: float = 20.0) -> F32:
        """Return [N] completions per play in [0, 1], shrunk towards the catalog's rate as by `shrink` plays."""
        return _rate(self.count[:, ACTIONS.index("complete")], self.count[:, ACTIONS.index("play")], shrink)

    def hide_rate(self, shrink: float = 200.0) -> F32:
        """Return [N] hides per impression in [0, 1], shrunk towards the catalog's rate as by `shrink` impressions."""
        hides = np.zeros_like(self.impressions) if self.hides is None else self.hides
        return _rate(hides, self.impressions, shrink)

    def trend(self, shrink: float = 5.0) -> F32:
        """Return [N] recent visits over the recent visits of an equal but steady stream: 1 steady, above 1 rising.

        The ratio is shrunk towards 1 as by `shrink` visits.
        """
        steady = self._visits() * np.float32(FAST_HALF_LIFE_S / HALF_LIFE_S)
        recent = steady if self.recent is None else self.recent
        trend: F32 = (recent + np.float32(shrink)) / (steady + np.float32(shrink))
        return trend

    def resized(self, items: int) -> ItemStats:
        """Return the same columns for a catalog that has grown to `items` rows; new rows have no counts."""
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
            offsets={source: np.concatenate([offset, np.full(missing, -1)]) for source, offset in self.offsets.items()},
            at=self.at,
        )

    def _visits(self) -> F32:
        return self.count[:, ACTIONS.index("play")] if self.visits is None else self.visits


def _rate(part: F32, whole: F32, shrink: float) -> F32:
    """Return [N] part per whole in [0, 1], shrunk towards the mean rate as by `shrink` of the whole."""
    mean = float(part.sum()) / max(float(whole.sum()), 1.0)
    rate: F32 = np.clip((part + np.float32(shrink * mean)) / (whole + np.float32(shrink)), 0.0, 1.0)
    return rate


def _extended(column: F32, missing: int) -> F32:
    return np.concatenate([column, np.zeros(missing, np.float32)])
