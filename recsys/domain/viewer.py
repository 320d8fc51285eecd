"""What the engine remembers of viewers and items. Folded in `features.state.fold`, read by every page.

Only what events say is remembered. What the catalogue says of the items (labels, axes, kind, series) is looked up when
a page is made: so a corrected label counts at once, and the same log gives the same bytes whatever the catalogue says
(docs/decisions/0005).
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from recsys.domain.decay import forward_weight, is_expired

RECENT_MAX = 100
"""A viewer's remembered actions; older ones leave the state (the offline log keeps them)."""


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


def unexpired(state: ViewerState | None, now: float, ttl_s: float) -> ViewerState | None:
    """The state as a reader at unix second `now` may see it: None when there is none or it is `forgotten`.

    A state that has no newest event (`at` is 0) was made by hand and is not forgotten.
    """
    return None if state is None or (state.at and is_expired(state.at, now, ttl_s)) else state
