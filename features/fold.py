"""The fold: (state, events) -> state. Pure, the same in the worker, in a replay and in tests, and idempotent.

At-least-once delivery plus this fold gives an exactly-once effect. Two guards make it idempotent:

* *redelivery* (the worker died before it committed): a state carries the last offset it has folded of each source,
  and an event at or below it is skipped;
* *duplicates* (a client sent the same event twice, so it stands in the log twice): a viewer carries recent event ids
  with the offset where each was first seen; the same id at a larger offset is a duplicate, on any replay.

Whether an event counts for its items is decided from the viewer's state (`sift`), so a worker must make the item states
durable *before* the viewer states: as long as a viewer's state is old, every retry decides as the first try did.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from typing import NamedTuple

from features.events import ViewerEvent, actions_of
from features.exposure import exposed_to
from recsys.state import RECENT_MAX, ItemState, Position, Recent, ViewerState, forward_weight

SEEN_MAX = 512  # event ids a viewer's state remembers
SHOWN_MAX = 500  # items with their impressions
HIDDEN_MAX = 500
DONE_MAX = 2000  # items that were finished or judged
POSITIONS_MAX = 100
FINISHED = 0.95  # of the duration: the credits are not worth resuming

REMEMBERED = frozenset(
    {"click", "open", "play", "complete", "like", "dislike", "hide", "share", "comment", "favourite"}
)  # kinds that enter `ViewerState.recent`
JUDGED = frozenset({"complete", "like", "dislike"})  # who says this of an item need not be offered it again
_PLAYING = frozenset({"play", "pause", "seek", "ping", "complete"})


class Placed(NamedTuple):
    """An event and its place in the log: `source` is "topic/partition"."""

    source: str
    offset: int
    event: ViewerEvent


class Sifted(NamedTuple):
    """What is new to a viewer: the events that count, and the guards as they stand after them."""

    fresh: list[Placed]
    offsets: dict[str, int]
    seen_ids: dict[str, int]


def sift(state: ViewerState, events: Sequence[Placed]) -> Sifted:
    """Leave out what this viewer's state has folded before and what was sent twice.

    `events` are all of this viewer, in offset order per source.
    """
    offsets, seen = dict(state.offsets), dict(state.seen_ids)
    fresh = []
    for placed in events:
        if placed.offset <= offsets.get(placed.source, -1):
            continue
        offsets[placed.source] = placed.offset
        if placed.event.id in seen:
            continue
        seen[placed.event.id] = placed.offset
        fresh.append(placed)
        if len(seen) > SEEN_MAX:
            del seen[next(iter(seen))]
    return Sifted(fresh, offsets, seen)


def fold_viewer(state: ViewerState, events: Sequence[Placed]) -> ViewerState:
    """The viewer's state after these events (all of this viewer, in offset order per source)."""
    return apply(state, sift(state, events))


def apply(state: ViewerState, sifted: Sifted) -> ViewerState:
    """The viewer's state after the events that `sift` let through."""
    recent, positions, done = list(state.recent), dict(state.positions), dict(state.done)
    hidden, shown, counts = dict(state.hidden), dict(state.shown), dict(state.counts)
    for _, _, event in sifted.fresh:
        kind, item_id = event.kind, event.item_id
        counts[kind] = counts.get(kind, 0) + 1
        if kind == "impression":
            for listed in event.items:
                times, last = shown.pop(listed, (0, 0.0))  # popped, so that the newest stand last
                shown[listed] = (times + 1, max(last, event.at))
            while len(shown) > SHOWN_MAX:
                del shown[next(iter(shown))]
        if item_id is None:
            continue
        if kind in REMEMBERED:
            _remember(recent, Recent(item_id, kind, event.at))
        if kind in _PLAYING:
            _move(positions, item_id, event)
        if kind in JUDGED or (item_id in positions and positions[item_id].finished):
            _note(done, item_id, event.at, DONE_MAX)
        if kind == "hide":
            _note(hidden, item_id, event.at, HIDDEN_MAX)
    return ViewerState(
        state.viewer_id,
        tuple(recent),
        positions,
        done,
        hidden,
        shown,
        counts,
        offsets=sifted.offsets,
        exposed=exposed_to(state.exposed, [one.event for one in sifted.fresh]),
        seen_ids=sifted.seen_ids,
    )


def fold_item(state: ItemState, events: Sequence[Placed]) -> ItemState:
    """The item's state after these events: `sift`ed, all naming the item, in offset order per source."""
    counts, regions, offsets = dict(state.counts), dict(state.regions), dict(state.offsets)
    impressions = state.impressions
    for source, offset, event in events:
        if offset <= offsets.get(source, -1):
            continue
        offsets[source] = offset
        weight = forward_weight(event.at)
        if event.kind == "impression":
            impressions += weight
        actions = actions_of(event)
        for action in actions:
            counts[action] = counts.get(action, 0.0) + weight
        if "play" in actions:
            for region in roll_up(event.region):
                regions[region] = regions.get(region, 0.0) + weight
    return ItemState(state.item_id, counts, regions, impressions, offsets)


def items_of(event: ViewerEvent) -> tuple[str, ...]:
    """Ids of the items whose state this event changes."""
    if event.kind == "impression":
        return event.items
    return (event.item_id,) if event.item_id is not None and actions_of(event) else ()


def roll_up(region: str) -> tuple[str, ...]:
    """A region and all that contain it, smallest first.

    >>> roll_up("cn.zj.hz")
    ('cn.zj.hz', 'cn.zj', 'cn')
    """
    parts = region.split(".") if region else []
    return tuple(".".join(parts[:depth]) for depth in range(len(parts), 0, -1))


def _remember(recent: list[Recent], action: Recent) -> None:
    """Put an action in its place by time; nearly always that is the end."""
    if not recent or recent[-1].at < action.at:
        recent.append(action)
    else:
        insort(recent, action, key=_age)
    if len(recent) > RECENT_MAX:
        del recent[0]


def _note(noted: dict[str, float], item_id: str, at: float, most: int) -> None:
    """Remember an item as the newest; the oldest leaves when there are too many."""
    noted.pop(item_id, None)
    noted[item_id] = at
    if len(noted) > most:
        del noted[next(iter(noted))]


def _age(action: Recent) -> tuple[float, str, str]:
    return action.at, action.item_id, action.kind


def _move(positions: dict[str, Position], item_id: str, event: ViewerEvent) -> None:
    """Remember how far the viewer got; an event that was late changes nothing."""
    known = positions.get(item_id)
    if known is not None and known.at > event.at:
        return
    duration_s = event.duration_s or (known.duration_s if known else 0.0)
    position_s = event.position_s
    if position_s is None and event.percent is not None and duration_s:
        position_s = duration_s * event.percent / 100
    if event.kind == "complete" and position_s is None:
        position_s = duration_s
    if position_s is None:
        return  # a bare play or pause: it does not say where
    finished = (
        event.kind == "complete"
        or (event.percent or 0.0) >= 100 * FINISHED
        or (duration_s > 0 and position_s >= FINISHED * duration_s)
    )
    positions.pop(item_id, None)  # popped, so that the newest stand last
    positions[item_id] = Position(position_s, duration_s, event.at, finished)
    if len(positions) > POSITIONS_MAX:
        del positions[next(iter(positions))]
