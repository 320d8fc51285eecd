"""The fold: (state, events) -> state. Pure, the same in the worker, in a replay and in tests, and idempotent.

At-least-once delivery plus this fold gives an exactly-once effect. Two guards make it idempotent:

* *redelivery* (the worker died before it committed): a state carries the last offset it has folded of each source,
  and an event at or below it is skipped;
* *duplicates* (a client sent the same event twice, so it stands in the log twice): a viewer carries hashes of recent
  event ids; the same id at a larger offset is a duplicate, on any replay. Ids of pings and the like have a ring of
  their own, so that a day of watching does not push out what was liked. How far this reaches: docs/decisions/0005.

Whether an event counts for its items, and how much (`features.state.votes`), is decided from the viewer's state (`sift`). So
a worker must make the item states durable *before* the viewer states: as long as a viewer's state is old, every retry
decides as the first try did.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from features.events.identity import PASSED_MAX, SEEN_MAX
from features.state.item_fold import ItemFold, roll_up
from features.state.viewer_fold import DONE_MAX, HIDDEN_MAX, POSITIONS_MAX, REMEMBERED, SHOWN_MAX, ViewerFold
from features.state.votes import LoggedEvent, Vote, WeightedEvent, items_of
from recsys.domain.viewer import ItemState, ViewerState

__all__ = [
    "DONE_MAX",
    "HIDDEN_MAX",
    "PASSED_MAX",
    "POSITIONS_MAX",
    "REMEMBERED",
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
    "roll_up",
]  # fmt: skip

FOREVER = float("inf")


class Folded(NamedTuple):
    """What is new to a viewer: the events that count, with their votes, and the viewer's state after them."""

    new_events: list[WeightedEvent]
    state: ViewerState


def deduplicate_and_fold(state: ViewerState, events: Sequence[LoggedEvent], ttl_s: float = FOREVER) -> Folded:
    """Leave out what this viewer's state has folded before and what was sent twice; fold the rest.

    `events` are all of this viewer, in offset order per source. A viewer idle for longer than `ttl_s` between two of
    them is forgotten in between.
    """
    fold = ViewerFold(state, ttl_s)
    return Folded([fresh for one in events if (fresh := fold.apply(one)) is not None], fold.finalize())


def fold_viewer(state: ViewerState, events: Sequence[LoggedEvent], ttl_s: float = FOREVER) -> ViewerState:
    """The viewer's state after these events (all of this viewer, in offset order per source)."""
    return deduplicate_and_fold(state, events, ttl_s).state


def fold_item(state: ItemState, events: Sequence[WeightedEvent], ttl_s: float = FOREVER) -> ItemState:
    """The item's state after these events: `sift`ed, all naming the item, in offset order per source."""
    fold = ItemFold(state, ttl_s)
    for one in events:
        fold.apply(one, [vote for vote in one.votes if vote[0] == state.item_id])
    return fold.state()
