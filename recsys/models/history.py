"""A viewer's history as retrieval models and features read it: items with weights."""

from __future__ import annotations

from recsys.domain.viewer import ViewerState

WEIGHT: dict[str, float] = {"play": 1.0, "complete": 1.5, "like": 3.0, "favourite": 3.0, "share": 2.0, "dislike": 0.1}
"""How much a remembered action says that the viewer wants more of the kind; what is not here says nothing."""


def history(viewer: ViewerState) -> dict[str, float]:
    """Item id -> weight of the viewer's remembered actions; the strongest action on an item counts.

    A dislike or hide takes what was played before it back to nearly nothing.
    """
    weights: dict[str, float] = {}
    for action in viewer.recent:
        if action.kind in ("dislike", "hide"):
            weights[action.item_id] = WEIGHT["dislike"]
        elif weight := WEIGHT.get(action.kind):
            weights[action.item_id] = max(weight, weights.get(action.item_id, 0.0))
    return weights
