"""A viewer's state wound back: what was remembered of the viewer before a moment, from what is remembered now.

For replays of recent requests, where a page must not know what the viewer did on seeing it. Exact for what the state
dates; two things a state does not hold come back only in part: what has fallen out of its bounds since (older actions,
positions that later ones replaced), and the dates of all but the newest few impressions of an item. What is summed up
without dates (counts, screens, outlets, hours, satisfaction, the session) is left out.
"""

from __future__ import annotations

from recsys.domain.viewer import ImpressionTimes, ViewerState


def as_of(state: ViewerState, at: float) -> ViewerState:
    """The state without anything that happened at unix second `at` or later, counts and guards of the fold left out.

    >>> from recsys.domain.viewer import Recent
    >>> then = as_of(ViewerState("v", (Recent("a", "play", 1.0), Recent("b", "like", 5.0)), finished_at={"b": 5.0}), at=5.0)
    >>> [action.item_id for action in then.recent], then.finished_at
    (['a'], {})
    """
    shown = {item_id: earlier for item_id, known in state.shown.items() if (earlier := _impressions_before(known, at))}
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


def _impressions_before(known: ImpressionTimes, at: float) -> ImpressionTimes | None:
    """Impressions before a moment; those whose times are not known are the oldest."""
    number, times = known
    before = _before(times, at)
    left = number - len(times) + len(before)
    return (left, before) if left else None


def _before(times: tuple[float, ...], at: float) -> tuple[float, ...]:
    return tuple(when for when in times if when < at)
