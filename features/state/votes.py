"""What an event is worth to its items: votes of people, so that a few busy accounts cannot make an item popular.

* An action of one viewer on one item counts once a day; on further days a quarter as much each time: 1, 1/4, 1/16, ...
  So whatever a viewer does in between, an item gains at most 4/3 votes of an action as long as none of them is
  forgotten, which takes `features.state.vote_history.WINDOW_D` days without that action. Who does so much that older
  votes would have to be forgotten sooner has no vote until they are that old. (Impressions are remembered apart,
  `ViewerState.shown`: of the newest items, and the newest days of each.)
* A viewer of whom fewer than KNOWN items are known has a share of a vote: an account that has only ever pushed one
  item says little. (Of impressions each counts in full, if the engine itself reports it; what clients say was shown
  counts for nothing, `features.events.schema.by_engine`.)
* A viewer with more than RECENT_MAX remembered actions a day is hyperactive; the votes are worth so much less that all
  of them together weigh RECENT_MAX a day.
* A completion that came sooner after the first known play than FASTEST times normal speed allows is not believed.

So an item's count needs no trimming of its most active viewers: each is trimmed to one vote a window beforehand.

All of it is decided from the viewer's state as it was before the event, and from nothing else: a replay decides alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

from features.events.schema import IMPLIED_ACTIONS, ViewerEvent, is_engine_impression
from features.state.vote_history import day_of, is_saturated, kind_mask, voted_days
from recsys.domain.decay import DAY_S
from recsys.domain.viewer import RECENT_MAX, ImpressionTimes, Position, Recent

MIN_COMPLETION_SHARE = 3.0
"""Times normal speed: faster than this nobody watches to the end."""

REPEAT_WINDOW_S = 0.25
"""What a vote is worth against the one of the day before, of the same viewer, item and action."""

TRUST_HISTORY_MAX = 4
"""From so many different items on a viewer has a whole vote."""

VISIT = "visit"
IMPRESSION = "impression"

COUNTS: Mapping[str, tuple[str, ...]] = {
    "click": (VISIT, "click"),
    "open": (VISIT, "open"),
    **{kind: ((VISIT, *actions) if "play" in actions else actions) for kind, actions in IMPLIED_ACTIONS.items()},
    **{kind: (kind,) for kind in ("hide", "share", "comment", "favourite")},
}
"""Event kind -> what it counts for in the state of its item; other kinds count for nothing, but for impressions."""

_COUNTING = {
    action: kind_mask(kind for kind, counted in COUNTS.items() if action in counted)
    for action in {action for counted in COUNTS.values() for action in counted}
}


Vote: TypeAlias = tuple[str, str, float]
"""What one event adds to one count of one item, before decay: item id, action, worth in (0, 1]."""


class LoggedEvent(NamedTuple):
    """An event and its place in the log: `source` names log and partition (`features.history.log_epochs`)."""

    source: str
    offset: int
    event: ViewerEvent


class WeightedEvent(NamedTuple):
    """An event that counts, with its votes: what `sift` lets through."""

    source: str
    offset: int
    event: ViewerEvent
    votes: tuple[Vote, ...]


def items_of(event: ViewerEvent) -> tuple[str, ...]:
    """Ids of the items whose state this event changes."""
    if event.kind == IMPRESSION:
        return event.items if is_engine_impression(event) else ()
    return (event.item_id,) if event.item_id is not None and event.kind in COUNTS else ()


def contributions(
    event: ViewerEvent,
    recent: Sequence[Recent],
    shown: Mapping[str, ImpressionTimes],
    positions: Mapping[str, Position],
    voted: bytes | bytearray = b"",
) -> tuple[Vote, ...]:
    """The votes of an event, given what its viewer's state remembered before it."""
    if event.kind == IMPRESSION:
        return _impression_votes(event, shown) if is_engine_impression(event) else ()
    item_id, actions = event.item_id, COUNTS.get(event.kind)
    if item_id is None or actions is None:
        return ()
    worth = activity_discount(recent) * trust_weight(recent, item_id)
    if worth <= 0.0 or is_saturated(voted, recent, event.at):
        return ()
    before = [one for one in recent if one.item_id == item_id]
    earlier = voted_days(voted, item_id, event.at) if voted else []
    if not before and not earlier:
        return tuple([(item_id, action, worth) for action in actions])
    today, votes = day_of(event.at), []
    for action in actions:
        days = {day_of(one.at) for one in before if action in COUNTS.get(one.kind, ())}
        days.update(day for day, kinds in earlier if kinds & _COUNTING[action])
        if today not in days and (action != "complete" or is_plausible_completion(event, before, positions)):
            votes.append((item_id, action, worth * REPEAT_WINDOW_S ** len(days)))
    return tuple(votes)


def activity_discount(recent: Sequence[Recent]) -> float:
    """What a vote of this viewer is worth, in [0, 1]: below 1 when the remembered actions fill less than a day.

    >>> activity_discount([Recent("a", "play", 600.0 * n) for n in range(RECENT_MAX)]) == 99 * 600 / DAY_S
    True
    """
    if len(recent) < RECENT_MAX:
        return 1.0
    return min(1.0, (recent[-1].at - recent[0].at) / DAY_S)


def trust_weight(recent: Sequence[Recent], item_id: str) -> float:
    """What a vote of this viewer on this item is worth, in (0, 1], by how many items the viewer is known to have tried.

    >>> trust_weight([Recent("a", "play", 0.0), Recent("a", "like", 1.0)], "b")
    0.5
    """
    items = {item_id}
    for one in reversed(recent):
        items.add(one.item_id)
        if len(items) == TRUST_HISTORY_MAX:
            return 1.0
    return len(items) / TRUST_HISTORY_MAX


def _impression_votes(event: ViewerEvent, shown: Mapping[str, ImpressionTimes]) -> tuple[Vote, ...]:
    today, votes = event.at // DAY_S, []
    for item_id in event.items:
        known = shown.get(item_id)
        if known is None:
            votes.append((item_id, IMPRESSION, 1.0))
            continue
        days = {at // DAY_S for at in known[1]}
        if today not in days:
            votes.append((item_id, IMPRESSION, REPEAT_WINDOW_S ** len(days)))
    return tuple(votes)


def is_plausible_completion(event: ViewerEvent, before: Sequence[Recent], positions: Mapping[str, Position]) -> bool:
    """Whether there was time to watch the item to its end; yes where its length or its beginning is not known."""
    known = positions.get(str(event.item_id))
    duration_s = event.duration_s or (known.duration_s if known is not None else 0.0)
    begun = min((one.at for one in before if one.kind == "play" and one.at <= event.at), default=None)
    return begun is None or event.at - begun >= duration_s / MIN_COMPLETION_SHARE
