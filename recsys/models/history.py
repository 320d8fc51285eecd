"""A viewer's history: items with weights, as read by retrieval models and features."""

from __future__ import annotations

from recsys.domain.viewer import ViewerState

WEIGHT: dict[str, float] = {"play": 1.0, "complete": 1.5, "like": 3.0, "favourite": 3.0, "share": 2.0, "dislike": 0.1}
"""Weight of each recent action as evidence of interest; actions without a weight are ignored."""


def history(viewer: ViewerState) -> dict[str, float]:
    """Return item id -> weight of the strongest recent action on the item.

    A dislike or hide resets the weight of earlier actions to almost nothing.
    """
    weights: dict[str, float] = {}
    for action in viewer.recent:
        if action.kind in ("dislike", "hide"):
            weights[action.item_id] = WEIGHT["dislike"]
        elif weight := WEIGHT.get(action.kind):
            weights[action.item_id] = max(weight, weights.get(action.item_id, 0.0))
    return weights
