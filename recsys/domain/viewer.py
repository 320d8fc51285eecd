"""The state of a viewer, folded from events by `features.state.fold` and read by every page.

The state depends on events only. Item metadata (labels, axes, kind, series) is looked up when a page is made, so that a
corrected label counts at once, and the same log gives the same bytes whatever the catalog contains
(docs/decisions/0005).
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from recsys.domain.decay import forward_weight, is_expired

RECENT_MAX = 100
"""Maximum number of recent actions in the state. Older actions leave it; the event log keeps them."""


class Recent(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A recent action of a viewer on an item."""

    item_id: str
    kind: str  # event kind: play, complete, like, dislike, hide, ...
    at: float  # unix seconds, server time


class Position(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The playback position of a viewer in an item."""

    position_s: float
    duration_s: float
    at: float
    finished: bool


class Session(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The viewer's latest session. Its lists have the newest item last."""

    id: str = ""  # the app's session id; empty without one
    since: float = 0.0  # unix seconds of its first event
    at: float = 0.0  # unix seconds of its newest event
    actions: int = 0  # events other than impressions and pings
    item_id: str = ""  # the item started last; empty if none was
    started: float = 0.0  # unix seconds when it was started
    skipped: tuple[str, ...] = ()
    watched: tuple[str, ...] = ()


ImpressionTimes: TypeAlias = tuple[int, tuple[float, ...]]
"""Impressions of an item to a viewer on all screens: the total number, and the times of the newest, newest last."""


class ViewerState(msgspec.Struct, frozen=True, array_like=True):
    """The complete state of one viewer. It records actions, never inferred opinions.

    `offsets`, `seen_ids` and `seen_event_ring` make the fold idempotent: an event at or below its partition's offset is
    already folded, and an event whose id is in the state is a duplicate.
    """

    viewer_id: str
    recent: tuple[Recent, ...] = ()  # oldest first, at most RECENT_MAX
    positions: dict[str, Position] = {}
    finished_at: dict[str, float] = {}  # item id -> when it was completed or rated; it is not shown again
    hidden: dict[str, float] = {}  # item id -> when the viewer hid it
    shown: dict[str, ImpressionTimes] = {}  # item id -> its impressions on all screens
    counts: dict[str, int] = {}  # event kind -> total number of events
    offsets: dict[str, int] = {}  # "topic/partition" -> last folded offset
    target_impressions: dict[
        str, tuple[float, ...]
    ] = {}  # target with a frequency cap -> times of its impressions, newest last
    seen_ids: bytes = b""  # 8-byte hashes of the ids of recent events that count, newest last
    at: float = 0.0  # unix seconds of the newest event
    screens: dict[str, float] = {}  # screen -> forward-decayed actions on it
    outlets: dict[str, float] = {}  # outlet of the placement -> forward-decayed actions on it
    hours: dict[int, float] = {}  # hour of the day, UTC -> forward-decayed actions in it
    session: Session = Session()
    positive_feedback: float = 0.0  # forward-decayed likes, favourites, shares and good survey ratings
    negative_feedback: float = 0.0  # forward-decayed dislikes, hides and bad survey ratings
    vote_history: bytes = b""  # votes that left `recent` (`features.state.vote_history`), oldest first
    seen_event_ring: bytes = b""  # as `seen_ids`, for pings and other events that leave the rest of the state unchanged
    is_served: bool = False  # whether the engine has served the viewer a page

    def impressions_since(self, item_id: str, since: float) -> int:
        """Return how often the item was shown to the viewer at unix second `since` or later, on all screens together.

        The result is at most `features.state.fold.SHOWN_TIMES`, the number of times that the state keeps of an item.
        """
        impressions = self.shown.get(item_id)
        return sum(at >= since for at in impressions[1]) if impressions is not None else 0

    def satisfaction(self, now: float) -> float:
        """Return the share of positive feedback in the viewer's recent feedback, in (0, 1); 0.5 without feedback."""
        prior = forward_weight(now)  # one positive and one negative rating at `now`
        return (self.positive_feedback + prior) / (self.positive_feedback + self.negative_feedback + 2 * prior)


def unexpired(state: ViewerState | None, now: float, ttl_s: float) -> ViewerState | None:
    """Return the state, or None if there is none or if it has expired at unix second `now`.

    A state without a newest event (`at` is 0) was built by hand and does not expire.
    """
    return None if state is None or (state.at and is_expired(state.at, now, ttl_s)) else state
