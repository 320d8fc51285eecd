"""How much an event counts for its items: weighted votes, so that a few busy accounts cannot make an item popular.

* An action of one viewer on one item counts once a day; each further day counts a quarter as much: 1, 1/4, 1/16, ...
  Whatever else a viewer does, an item gains at most 4/3 votes of an action as long as none of them expires, which takes
  `features.state.vote_history.WINDOW_D` days without that action. A viewer whose history is full has no vote until the
  oldest votes are that old. (Impressions are stored separately, in `ViewerState.shown`: those of the newest items, and
  the newest days of each.)
* An event of a client without the admin token counts only if the engine has served its viewer a page before, and if its
  source has not sent events of many viewers (`features.events.schema.counts_for_items`).
* A viewer with actions on fewer than FULL_TRUST_ITEMS items has a fraction of a vote: an account that has only ever
  promoted one item is weak evidence. (Each impression that the engine itself reports counts in full; impressions that
  clients report count for nothing, see `features.events.schema.is_engine_impression`.)
* A viewer with more than RECENT_MAX actions a day is hyperactive; the votes are discounted so that all of them together
  weigh RECENT_MAX a day.
* A completion does not count if it comes sooner after the first play than MAX_PLAYBACK_SPEED times normal speed allows.

So an item's count needs no trimming of its most active viewers: each viewer is limited to one vote per window already.

These weights depend only on the viewer's state before the event, so a replay gives the same votes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

from features.events.schema import IMPLIED_ACTIONS, ViewerEvent, is_engine_impression
from features.state.vote_history import day_of, is_saturated, kind_mask, voted_days
from recsys.domain.decay import DAY_S
from recsys.domain.viewer import RECENT_MAX, ImpressionTimes, Position, Recent

MAX_PLAYBACK_SPEED = 3.0
"""Fastest plausible playback, as a multiple of normal speed."""

REPEAT_DISCOUNT = 0.25
"""Weight of a vote relative to the previous day's vote of the same viewer, item and action."""

FULL_TRUST_ITEMS = 4
"""Number of different items in a viewer's history from which a vote counts in full."""

VISIT = "visit"
IMPRESSION = "impression"

COUNTS: Mapping[str, tuple[str, ...]] = {
    "click": (VISIT, "click"),
    "open": (VISIT, "open"),
    **{kind: ((VISIT, *actions) if "play" in actions else actions) for kind, actions in IMPLIED_ACTIONS.items()},
    **{kind: (kind,) for kind in ("hide", "share", "comment", "favourite")},
}
"""Event kind -> actions that it counts for in the state of its item. Of all other kinds only impressions count."""

_COUNTING = {
    action: kind_mask(kind for kind, counted in COUNTS.items() if action in counted)
    for action in {action for counted in COUNTS.values() for action in counted}
}


Vote: TypeAlias = tuple[str, str, float]
"""What one event adds to one count of one item, before decay: item id, action, value in (0, 1]."""


class LoggedEvent(NamedTuple):
    """An event with its offset in the log. `source` names log and partition (`features.history.log_epochs`)."""

    source: str
    offset: int
    event: ViewerEvent


class WeightedEvent(NamedTuple):
    """An event that counts, with its votes: an element of `Folded.new_events`."""

    source: str
    offset: int
    event: ViewerEvent
    votes: tuple[Vote, ...]


def items_of(event: ViewerEvent) -> tuple[str, ...]:
    """Return the ids of the items whose state this event changes."""
    if event.kind == IMPRESSION:
        return event.items if is_engine_impression(event) else ()
    return (event.item_id,) if event.item_id is not None and event.kind in COUNTS else ()


def contributions(
    event: ViewerEvent,
    recent: Sequence[Recent],
    shown: Mapping[str, ImpressionTimes],
    positions: Mapping[str, Position],
    vote_history: bytes | bytearray = b"",
) -> tuple[Vote, ...]:
    """Return the votes of an event, given its viewer's state before the event."""
    if event.kind == IMPRESSION:
        return _impression_votes(event, shown) if is_engine_impression(event) else ()
    item_id, counted_actions = event.item_id, COUNTS.get(event.kind)
    if item_id is None or counted_actions is None:
        return ()
    value = activity_discount(recent) * trust_weight(recent, item_id)
    if value <= 0.0 or is_saturated(vote_history, recent, event.at):
        return ()
    before = [action for action in recent if action.item_id == item_id]
    earlier = voted_days(vote_history, item_id, event.at) if vote_history else []
    if not before and not earlier:
        return tuple([(item_id, counted, value) for counted in counted_actions])
    today, votes = day_of(event.at), []
    for counted in counted_actions:
        days = {day_of(action.at) for action in before if counted in COUNTS.get(action.kind, ())}
        days.update(day for day, kinds in earlier if kinds & _COUNTING[counted])
        if today not in days and (counted != "complete" or is_plausible_completion(event, before, positions)):
            votes.append((item_id, counted, value * REPEAT_DISCOUNT ** len(days)))
    return tuple(votes)


def activity_discount(recent: Sequence[Recent]) -> float:
    """Return the weight of a viewer's votes, in [0, 1]: below 1 if RECENT_MAX actions took less than a day.

    >>> activity_discount([Recent("a", "play", 600.0 * n) for n in range(RECENT_MAX)]) == 99 * 600 / DAY_S
    True
    """
    if len(recent) < RECENT_MAX:
        return 1.0
    return min(1.0, (recent[-1].at - recent[0].at) / DAY_S)


def trust_weight(recent: Sequence[Recent], item_id: str) -> float:
    """Return the weight of a viewer's vote on this item, in (0, 1], by the number of items in the viewer's history.

    >>> trust_weight([Recent("a", "play", 0.0), Recent("a", "like", 1.0)], "b")
    0.5
    """
    items = {item_id}
    for action in reversed(recent):
        items.add(action.item_id)
        if len(items) == FULL_TRUST_ITEMS:
            return 1.0
    return len(items) / FULL_TRUST_ITEMS


def _impression_votes(event: ViewerEvent, shown: Mapping[str, ImpressionTimes]) -> tuple[Vote, ...]:
    today, votes = event.at // DAY_S, []
    for item_id in event.items:
        impressions = shown.get(item_id)
        if impressions is None:
            votes.append((item_id, IMPRESSION, 1.0))
            continue
        days = {at // DAY_S for at in impressions[1]}
        if today not in days:
            votes.append((item_id, IMPRESSION, REPEAT_DISCOUNT ** len(days)))
    return tuple(votes)


def is_plausible_completion(event: ViewerEvent, before: Sequence[Recent], positions: Mapping[str, Position]) -> bool:
    """Return whether there was time to watch the item to its end; True if its duration or its start is unknown."""
    position = positions.get(str(event.item_id))
    duration_s = event.duration_s or (position.duration_s if position is not None else 0.0)
    started_at = min((action.at for action in before if action.kind == "play" and action.at <= event.at), default=None)
    return started_at is None or event.at - started_at >= duration_s / MAX_PLAYBACK_SPEED
