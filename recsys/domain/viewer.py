"""What the engine remembers of viewers and items. Folded in `features.state.fold`, read by every page.

Only what events say is remembered. What the catalogue says of the items (labels, axes, kind, series) is looked up when
a page is made: so a corrected label counts at once, and the same log gives the same bytes whatever the catalogue says
(docs/decisions/0005).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

import msgspec
import numpy as np

from recsys.domain.region_counts import RegionCounts
from recsys.domain.types import ACTIONS, F32, F64, I64

RECENT_MAX = 100
"""A viewer's remembered actions; older ones leave the state (the offline log keeps them)."""

HALF_LIFE_S = 14 * 86_400.0
"""After this long an action counts half in an item's popularity."""

FAST_HALF_LIFE_S = 6 * 3600.0
"""The same for what an item does lately, against which its trend is told."""

LANDMARK = 1_767_225_600.0
"""2026-01-01T00:00:00Z, where forward decay weighs 1; doubles hold it 39 years either way."""

DAY_S = 86_400.0

TTL_S = 180 * DAY_S
"""An idle viewer is forgotten after this long, where the settings say nothing else."""


def forward_weight(at: float) -> float:
    """What an event at unix second `at` adds to a forward-decayed count.

    >>> forward_weight(LANDMARK + HALF_LIFE_S)
    2.0
    """
    return 2.0 ** ((at - LANDMARK) / HALF_LIFE_S)  # type: ignore[no-any-return]


class Recent(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One remembered action of a viewer on an item."""

    item_id: str
    kind: str  # event kind: play, complete, like, dislike, hide, ...
    at: float  # unix seconds, server time


class Position(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How far a viewer got into an item."""

    position_s: float
    duration_s: float
    at: float
    finished: bool


class Session(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The viewer's latest sitting: what was begun, watched and skipped in it, newest last."""

    id: str = ""  # as the app named it; empty when it did not
    since: float = 0.0  # unix seconds of its first event
    at: float = 0.0  # and of its newest
    actions: int = 0  # events other than impressions and pings
    item_id: str = ""  # what was begun last; empty when nothing was
    started: float = 0.0  # when
    skipped: tuple[str, ...] = ()
    watched: tuple[str, ...] = ()


ImpressionTimes: TypeAlias = tuple[int, tuple[float, ...]]
"""Impressions of an item to a viewer on all screens: how many ever, and when the newest few were, newest last."""


class ViewerState(msgspec.Struct, frozen=True, array_like=True):
    """All that is remembered of one viewer: what was done lately, never what somebody thinks.

    `offsets`, `seen_ids` and `passed_ids` make the fold idempotent: an event at or below its partition's offset was
    folded before, and an event whose id is among the remembered ones is a duplicate.
    """

    viewer_id: str
    recent: tuple[Recent, ...] = ()  # oldest first, at most RECENT_MAX
    positions: dict[str, Position] = {}
    finished_at: dict[str, float] = {}  # item id -> when it was watched to the end or judged: not offered again
    hidden: dict[str, float] = {}  # item id -> when the viewer said "not this"
    shown: dict[str, ImpressionTimes] = {}  # item id -> its impressions, on whatever screen
    counts: dict[str, int] = {}  # event kind -> how often, ever
    offsets: dict[str, int] = {}  # "topic/partition" -> last folded offset
    target_impressions: dict[
        str, tuple[float, ...]
    ] = {}  # target with a frequency cap -> when its items were shown, newest last
    seen_ids: bytes = b""  # 8-byte hashes of recent ids of events that count, newest last
    at: float = 0.0  # unix seconds of the newest event
    screens: dict[str, float] = {}  # screen -> forward-decayed actions on it
    outlets: dict[str, float] = {}  # outlet of the placement -> the same
    hours: dict[int, float] = {}  # hour of the day, UTC -> the same
    session: Session = Session()
    liked_at: float = 0.0  # forward-decayed likes, favourites, shares, and surveys as far as they were good
    disliked_at: float = 0.0  # forward-decayed dislikes, hides, and surveys as far as they were bad
    # what counted for items and left `recent`: day, item and kinds (`features.state.vote_history`), oldest first
    vote_history: bytes = b""
    seen_event_ring: bytes = (
        b""  # as `seen_ids`, of pings and whatever else only passes by (`features.state.viewer_fold.passes`)
    )

    def impressions_since(self, item_id: str, since: float) -> int:
        """How often the item was shown to the viewer at unix second `since` or later, on all screens together.

        Exact up to the number of times the state remembers of an item (`features.state.fold.SHOWN_TIMES`), at most
        that.
        """
        known = self.shown.get(item_id)
        return sum(at >= since for at in known[1]) if known is not None else 0

    def satisfaction(self, now: float) -> float:
        """Share of what the viewer said lately that was good, in (0, 1); 0.5 for who has said nothing."""
        prior = forward_weight(now)  # one good and one bad word at this moment
        return (self.liked_at + prior) / (self.liked_at + self.disliked_at + 2 * prior)


def is_expired(at: float, now: float, ttl_s: float) -> bool:
    """Whether a viewer or an item whose newest event was at unix second `at` has been idle too long to be remembered at
    `now`.

    The one rule of forgetting: the fold applies it between two events, a reader between the state and its own moment,
    a replay at the moment it replays. The online store lets go of the bytes later than this, never earlier.

    >>> forgotten(0.0, 100.0, ttl_s=100.0), forgotten(0.0, 101.0, ttl_s=100.0)
    (False, True)
    """
    return now - at > ttl_s


def unexpired(state: ViewerState | None, now: float, ttl_s: float) -> ViewerState | None:
    """The state as a reader at unix second `now` may see it: None when there is none or it is `forgotten`.

    A state that has no newest event (`at` is 0) was made by hand and is not forgotten.
    """
    return None if state is None or (state.at and is_expired(state.at, now, ttl_s)) else state


class ItemState(msgspec.Struct, frozen=True, array_like=True):
    """Decayed counts of one item in one partition of the log (shards are summed on reading).

    What is counted are votes: at most one a day for each viewer and action, worth less when repeated on further days
    (`features.state.votes`). Forward decay (Cormode et al. 2009): each vote adds its worth x `forward_weight(at)`, so
    adding needs no clock and no order, and a reader divides by `forward_weight(now)`. A visit is a viewer opening or
    playing the item. `lately` decays faster; it is as of `lately_at`.
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
