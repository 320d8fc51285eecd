"""What the engine remembers of viewers and items. Folded in `features.fold`, read by every page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np

from recsys.types import ACTIONS, F32

RECENT_MAX = 100
"""A viewer's remembered actions; older ones leave the state (the offline log keeps them)."""

HALF_LIFE_S = 14 * 86_400.0
"""After this long an action counts half in an item's popularity."""

LANDMARK = 1_767_225_600.0
"""2026-01-01T00:00:00Z, where forward decay weighs 1; doubles hold it 39 years either way."""


def forward_weight(at: float) -> float:
    """What an event at unix second `at` adds to a forward-decayed count.

    >>> forward_weight(LANDMARK + HALF_LIFE_S)
    2.0
    """
    return float(2.0 ** ((at - LANDMARK) / HALF_LIFE_S))


class Recent(msgspec.Struct, frozen=True, array_like=True):
    """One remembered action of a viewer on an item."""

    item_id: str
    kind: str  # event kind: play, complete, like, dislike, hide, ...
    at: float  # unix seconds, server time


class Position(msgspec.Struct, frozen=True, array_like=True):
    """How far a viewer got into an item."""

    position_s: float
    duration_s: float
    at: float
    finished: bool


class ViewerState(msgspec.Struct, frozen=True):
    """All that is remembered of one viewer: what was done lately, never what somebody thinks.

    `offsets` and `seen_ids` make the fold idempotent: an event at or below its partition's offset was folded before,
    and an event id seen at a smaller offset is a duplicate.
    """

    viewer_id: str
    recent: tuple[Recent, ...] = ()  # oldest first, at most RECENT_MAX
    positions: dict[str, Position] = {}
    done: dict[str, float] = {}  # item id -> when it was watched to the end or judged: not offered again
    hidden: dict[str, float] = {}  # item id -> when the viewer said "not this"
    shown: dict[str, tuple[int, float]] = {}  # item id -> (impressions, last at)
    counts: dict[str, int] = {}  # event kind -> how often, ever
    offsets: dict[str, int] = {}  # "topic/partition" -> last folded offset
    exposed: dict[str, tuple[float, ...]] = {}  # target with a frequency cap -> when its items were shown, newest last
    seen_ids: dict[str, int] = {}  # recent event ids -> offset where first seen


class ItemState(msgspec.Struct, frozen=True):
    """Decayed counts of one item in one partition of the log (shards are summed on reading).

    Forward decay (Cormode et al. 2009): each event adds `forward_weight(at)`, so adding needs no clock and no order,
    and a reader divides by `forward_weight(now)`.
    """

    item_id: str
    counts: dict[str, float] = {}  # action -> decayed count
    regions: dict[str, float] = {}  # region -> decayed plays
    impressions: float = 0.0
    offsets: dict[str, int] = {}


@dataclass(frozen=True)
class ItemStats:
    """Item states as columns over catalogue rows, at one moment.

    count        [N, A]  decayed counts per action of `recsys.types.ACTIONS`
    impressions  [N]     decayed impressions
    by_region    region -> [N] decayed plays from that region
    """

    count: F32
    impressions: F32
    by_region: Mapping[str, F32] = field(default_factory=dict)

    @classmethod
    def empty(cls, items: int) -> ItemStats:
        """Nothing seen yet, for a catalogue of `items` rows."""
        return cls(np.zeros((items, len(ACTIONS)), np.float32), np.zeros(items, np.float32))

    def popularity(self) -> F32:
        """[N] decayed plays, likes counting double and dislikes against."""
        weight = np.array([1.0, 0.5, 1.0, -1.0], np.float32)
        popularity: F32 = np.maximum(self.count @ weight, np.float32(0.0))
        return popularity

    def resized(self, items: int) -> ItemStats:
        """The same columns for a catalogue that has grown to `items` rows; new rows have seen nothing."""
        missing = items - len(self.impressions)
        if missing <= 0:
            return self
        return ItemStats(
            np.vstack([self.count, np.zeros((missing, self.count.shape[1]), np.float32)]),
            np.concatenate([self.impressions, np.zeros(missing, np.float32)]),
            {
                region: np.concatenate([plays, np.zeros(missing, np.float32)])
                for region, plays in self.by_region.items()
            },
        )
