"""The fold: (state, events) -> state. It is pure, idempotent, and the same in the worker, in a replay and in tests.

At-least-once delivery plus this fold gives an exactly-once effect. Two guards make it idempotent:

* *Redelivery* (the worker crashed before it committed): a state stores the last folded offset of each source, and an
  event at or below that offset is skipped.
* *Duplicates* (a client sent an event twice, so the log contains it twice): a viewer's state stores digests of recent
  event ids, and an event with a known id is a duplicate, on any replay. Pings and similar events have a separate ring,
  so that a day of watching does not push out the ids of likes. docs/decisions/0005 gives the limits.

The viewer's state decides whether an event counts for its items, and how much (`features.state.votes`). So a worker
must make the item states durable *before* the viewer states: while the viewer's state is unchanged, every retry makes
the same decisions as the first attempt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from features.events.identity import PASSED_MAX, SEEN_MAX
from features.state.item_fold import ItemFold
from features.state.viewer_fold import DONE_MAX, HIDDEN_MAX, POSITIONS_MAX, RECENT_KINDS, SHOWN_MAX, ViewerFold
from features.state.votes import LoggedEvent, Vote, WeightedEvent, items_of
from recsys.domain.item_statistics import ItemState
from recsys.domain.viewer import ViewerState

__all__ = [
    "DONE_MAX",
    "HIDDEN_MAX",
    "PASSED_MAX",
    "POSITIONS_MAX",
    "RECENT_KINDS",
    "SEEN_MAX",
    "SHOWN_MAX",
    "Folded",
    "ItemFold",
    "LoggedEvent",
    "ViewerFold",
    "Vote",
    "WeightedEvent",
    "deduplicate_and_fold",
    "fold_item",
    "fold_viewer",
    "items_of",
]  # fmt: skip

FOREVER = float("inf")


class Folded(NamedTuple):
    """The new events of a viewer, with their votes, and the viewer's state after them."""

    new_events: list[WeightedEvent]
    state: ViewerState


def deduplicate_and_fold(state: ViewerState, events: Sequence[LoggedEvent], ttl_s: float = FOREVER) -> Folded:
    """Drop redelivered and duplicate events, and fold the rest into the viewer's state.

    `events` all belong to this viewer and are in offset order per source. If the viewer is idle for longer than
    `ttl_s` between two events, the state expires and the fold starts again from an empty state.
    """
    fold = ViewerFold(state, ttl_s)
    new_events = [weighted for event in events if (weighted := fold.apply(event)) is not None]
    return Folded(new_events, fold.finalize())


def fold_viewer(state: ViewerState, events: Sequence[LoggedEvent], ttl_s: float = FOREVER) -> ViewerState:
    """Return the viewer's state after these events, all of this viewer and in offset order per source."""
    return deduplicate_and_fold(state, events, ttl_s).state


def fold_item(state: ItemState, events: Sequence[WeightedEvent], ttl_s: float = FOREVER) -> ItemState:
    """Return the item's state after these deduplicated events, which all name the item, in offset order per source."""
    fold = ItemFold(state, ttl_s)
    for event in events:
        fold.apply(event, [vote for vote in event.votes if vote[0] == state.item_id])
    return fold.state()
