"""Decision points: times when a viewer could have requested a page, with the viewer's actions until the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from features.events.schema import ViewerEvent, actions_of
from recsys.domain.catalog import Catalog
from recsys.domain.types import ACTIONS
from training.config import Examples
from training.timeline import Timeline, count_for_items, positive_row


@dataclass(frozen=True)
class DecisionPoint:
    """A viewer at a point in time. Examples may use the events before `index` in the timeline, and none from it on.

    index    position of `event` in the timeline
    event    the first event of the decision point; gives the viewer, time, placement and screen
    actions  catalog row -> bit mask over `recsys.domain.types.ACTIONS`: the viewer's actions on the item until the
             next decision point
    """

    index: int
    event: ViewerEvent
    actions: Mapping[int, int]


def iter_decision_points(
    timeline: Timeline, catalog: Catalog, since: float, until: float, config: Examples
) -> list[DecisionPoint]:
    """Return the decision points within [since, until), in time order, evenly sampled down to `max_moments`.

    A new decision point begins after `session_actions` actions of the viewer, or after a pause of `session_gap_s`.
    """
    bit = {action: 1 << i for i, action in enumerate(ACTIONS)}
    points: list[DecisionPoint] = []
    current: dict[str, tuple[dict[int, int], list[float]]] = {}  # viewer -> actions, [number of actions, last time]
    counts = list(count_for_items(timeline.events))
    for index in range(timeline.index(since), timeline.index(until)):
        event = timeline.events[index]
        row = positive_row(event, catalog)
        if row is None or not counts[index]:
            continue
        actions, progress = current.get(event.viewer_id, ({}, [np.inf, -np.inf]))
        if progress[0] >= config.session_actions or event.at - progress[1] > config.session_gap_s:
            actions, progress = current[event.viewer_id] = {}, [0.0, event.at]
            points.append(DecisionPoint(index, event, actions))
        actions[row] = actions.get(row, 0) | sum(bit[action] for action in actions_of(event))
        progress[:] = progress[0] + 1, event.at
    if len(points) <= config.max_moments:
        return points
    sampled = np.linspace(0, len(points) - 1, config.max_moments).round().astype(int)
    return [points[i] for i in sampled]
