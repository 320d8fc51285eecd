"""Moments: times at which a viewer could have been given a page, and what the viewer did until the next one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from features.events.decode import ViewerEvent, actions_of
from recsys.domain.catalog import Catalog
from recsys.domain.types import ACTIONS
from training.config import Examples
from training.timeline import Timeline, positive_row


@dataclass(frozen=True)
class DecisionPoint:
    """One viewer at one time. Everything before `index` in the timeline is known then, nothing from `index` on.

    done  catalogue row -> which of `recsys.domain.types.ACTIONS` the viewer took on it, as bits, until the moment was over
    """

    index: int
    event: ViewerEvent  # the first of the moment: who, when, where, on what screen
    actions: Mapping[int, int]


def iter_decision_points(
    timeline: Timeline, catalog: Catalog, since: float, until: float, config: Examples
) -> list[DecisionPoint]:
    """The moments that begin and end in [since, until), in time order; sampled down evenly to `max_moments`.

    A moment is over after `session_actions` actions, or when the viewer pauses for `session_gap_s`.
    """
    bit = {action: 1 << place for place, action in enumerate(ACTIONS)}
    found: list[DecisionPoint] = []
    open_: dict[str, tuple[dict[int, int], list[float]]] = {}  # viewer -> labels, [actions so far, time of the last]
    for index in range(timeline.index(since), timeline.index(until)):
        event = timeline.events[index]
        row = positive_row(event, catalog)
        if row is None:
            continue
        done, progress = open_.get(event.viewer_id, ({}, [np.inf, -np.inf]))
        if progress[0] >= config.session_actions or event.at - progress[1] > config.session_gap_s:
            done, progress = open_[event.viewer_id] = {}, [0.0, event.at]
            found.append(DecisionPoint(index, event, done))
        done[row] = done.get(row, 0) | sum(bit[action] for action in actions_of(event))
        progress[:] = progress[0] + 1, event.at
    if len(found) <= config.max_moments:
        return found
    kept = np.linspace(0, len(found) - 1, config.max_moments).round().astype(int)
    return [found[place] for place in kept]
