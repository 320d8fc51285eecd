"""Explanations: reason codes for the viewer, one for each true cause. Clients translate them into text.

resume             started but not finished
similar_to:ITEM    most similar to this item of the viewer's history
about_the_same     new, with content similar to what the viewer liked
popular_here       among the most played in the viewer's region
popular            among the most played
new                among the newest
editors            retrieved because the outlet's policy asks for such items
"""

from __future__ import annotations

import numpy as np

from recsys.batch import Candidates
from recsys.candidates.context import RequestContext
from recsys.candidates.sources import SOURCES
from recsys.domain.types import F32, I32
from recsys.models.history import history

CODES: dict[str, str] = {
    "resume": "resume",
    "content": "about_the_same",
    "segment": "popular_here",
    "popular": "popular",
    "newest": "new",
    "supply": "editors",
}

MIN_SIMILARITY = 0.3
"""Minimum cosine of item factors for a `similar_to` reason."""


def explain(context: RequestContext, page: Candidates) -> list[tuple[str, ...]]:
    """Return a tuple of reason codes for each slot: the most personal code first, never empty."""
    nearest = _nearest_in_history(context, page.row)
    reasons = []
    for k in range(len(page)):
        codes = [CODES[name] for bit, name in enumerate(SOURCES) if name in CODES and int(page.source[k]) >> bit & 1]
        if nearest[k]:
            codes.insert(0, f"similar_to:{nearest[k]}")
        reasons.append(tuple(codes) or ("personal",))
    return reasons


def _nearest_in_history(context: RequestContext, rows: I32) -> list[str]:
    """Return for each row the id of the most similar item that the viewer liked; empty if none is similar enough."""
    none = [""] * len(rows)
    if context.model is None or context.viewer is None or context.vector is None:
        return none
    position_of, vectors = context.model.retriever.position_of, context.model.retriever.vectors
    past = [item_id for item_id, weight in history(context.viewer).items() if weight >= 1.0 and item_id in position_of]
    if not past:
        return none
    position = context.index.position_of_row[rows]
    past_position = np.array([position_of[item_id] for item_id in past])
    cosine = _unit(vectors[position]) @ _unit(vectors[past_position]).T
    cosine[position < 0] = -1.0
    cosine[position[:, None] == past_position] = -1.0  # an item is no reason for itself
    best = cosine.argmax(axis=1)
    return [past[b] if cosine[k, b] >= MIN_SIMILARITY else "" for k, b in enumerate(best)]


def _unit(vectors: F32) -> F32:
    """Return the rows scaled to length one."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: F32 = vectors / np.maximum(length, 1e-9)
    return unit
