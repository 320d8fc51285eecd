"""States as version 1 wrote them, and what they are now. For reading only: nothing writes them any more."""

from __future__ import annotations

import msgspec

from features.marks import event_mark
from recsys.state import ItemState, Position, Recent, ViewerState


class ViewerStateV1(msgspec.Struct, frozen=True):
    """A viewer: impressions by number and latest time, event ids in full with their offsets."""

    viewer_id: str
    recent: tuple[Recent, ...] = ()
    positions: dict[str, Position] = {}
    done: dict[str, float] = {}
    hidden: dict[str, float] = {}
    shown: dict[str, tuple[int, float]] = {}
    counts: dict[str, int] = {}
    offsets: dict[str, int] = {}
    exposed: dict[str, tuple[float, ...]] = {}
    seen_ids: dict[str, int] = {}


class ItemStateV1(msgspec.Struct, frozen=True):
    """An item in one partition: each event a vote, plays by region."""

    item_id: str
    counts: dict[str, float] = {}
    regions: dict[str, float] = {}
    impressions: float = 0.0
    offsets: dict[str, int] = {}


def upgraded_viewer(old: ViewerStateV1) -> ViewerState:
    """The same viewer. What version 1 had not (screens, hours, session, satisfaction) comes with the next event."""
    times = [action.at for action in old.recent] + [position.at for position in old.positions.values()]
    times += [*old.done.values(), *old.hidden.values(), *(last for _, last in old.shown.values())]
    return ViewerState(
        old.viewer_id,
        old.recent,
        old.positions,
        old.done,
        old.hidden,
        {item_id: (number, (last,)) for item_id, (number, last) in old.shown.items()},
        old.counts,
        old.offsets,
        old.exposed,
        b"".join(map(event_mark, old.seen_ids)),
        max(times, default=0.0),
    )


def upgraded_item(old: ItemStateV1) -> ItemState:
    """The same item. Its plays become visits; screens and what it does lately begin with the next event."""
    return ItemState(
        old.item_id, old.counts, old.regions, old.impressions, old.offsets, visits=old.counts.get("play", 0.0)
    )
