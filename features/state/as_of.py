"""A viewer's state as of an earlier time, computed from the current state.

Replays of recent requests use it, since a page must not know what the viewer did after seeing it. The result is exact
for everything that the state dates, with two exceptions: entries that the state's limits have dropped since (older
actions, replaced positions), and all but the newest few impression times of an item. Sums without dates (counts,
screens, outlets, hours, satisfaction, the session) are left out.
"""

from __future__ import annotations

from recsys.domain.viewer import ImpressionTimes, ViewerState


def as_of(state: ViewerState, at: float) -> ViewerState:
    """Return the state without anything that happened at unix second `at` or later.

    Counts and the guards of the fold (offsets, event ids) are left out.

    >>> from recsys.domain.viewer import Recent
    >>> state = ViewerState("v", (Recent("a", "play", 1.0), Recent("b", "like", 5.0)), finished_at={"b": 5.0})
    >>> earlier = as_of(state, at=5.0)
    >>> [action.item_id for action in earlier.recent], earlier.finished_at
    (['a'], {})
    """
    shown = {
        item_id: earlier
        for item_id, impressions in state.shown.items()
        if (earlier := _impressions_before(impressions, at))
    }
    return ViewerState(
        state.viewer_id,
        recent=tuple(action for action in state.recent if action.at < at),
        positions={item_id: position for item_id, position in state.positions.items() if position.at < at},
        finished_at={item_id: when for item_id, when in state.finished_at.items() if when < at},
        hidden={item_id: when for item_id, when in state.hidden.items() if when < at},
        shown=shown,
        counts={},  # undated
        target_impressions={
            target: before for target, times in state.target_impressions.items() if (before := _before(times, at))
        },
    )


def _impressions_before(impressions: ImpressionTimes, at: float) -> ImpressionTimes | None:
    """Return the impressions before unix second `at`. Impressions without a stored time are the oldest."""
    number, times = impressions
    before = _before(times, at)
    remaining = number - len(times) + len(before)
    return (remaining, before) if remaining else None


def _before(times: tuple[float, ...], at: float) -> tuple[float, ...]:
    return tuple(when for when in times if when < at)
