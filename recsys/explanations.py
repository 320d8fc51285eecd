"""Why is this here? Reason codes for viewers, one per true cause; screens put them into words.

resume             begun and not finished
similar_to:ITEM    nearest to this item of the viewer's history
about_the_same     new, and like in content to what the viewer liked
popular_here       among the most played around the viewer
popular            among the most played
new                among the latest
editors            proposed because the outlet's policy asks for such items
"""

from __future__ import annotations

import numpy as np

from recsys.batch import Candidates
from recsys.candidates.context import RequestContext
from recsys.candidates.sources import SOURCES
from recsys.domain.types import I32
from recsys.models.history import history

CODES: dict[str, str] = {
    "resume": "resume",
    "content": "about_the_same",
    "segment": "popular_here",
    "popular": "popular",
    "newest": "new",
    "supply": "editors",
}

SIMILAR_FROM = 0.3
"""Least cosine of item factors for "because of" to be said."""


def explain(ask: RequestContext, page: Candidates) -> list[tuple[str, ...]]:
    """One tuple of codes per slot; the most personal first, never empty."""
    nearest = _nearest_in_history(ask, page.row)
    answer = []
    for k in range(len(page)):
        codes = [CODES[name] for bit, name in enumerate(SOURCES) if name in CODES and int(page.source[k]) >> bit & 1]
        if nearest[k]:
            codes.insert(0, f"similar_to:{nearest[k]}")
        answer.append(tuple(codes) or ("personal",))
    return answer


def _nearest_in_history(ask: RequestContext, rows: I32) -> list[str]:
    """Item id of the liked history item most like each row; empty where nothing is alike."""
    none = [""] * len(rows)
    if ask.model is None or ask.viewer is None or ask.vector is None:
        return none
    position_of, vectors = ask.model.retriever.position_of, ask.model.retriever.vectors
    past = [item_id for item_id, weight in history(ask.viewer).items() if weight >= 1.0 and item_id in position_of]
    if not past:
        return none
    position, begun = ask.index.position_of_row[rows], np.array([position_of[item_id] for item_id in past])
    cosine = _unit(vectors[position]) @ _unit(vectors[begun]).T
    cosine[position < 0] = -1.0
    cosine[position[:, None] == begun] = -1.0  # nothing is here because of itself
    best = cosine.argmax(axis=1)
    return [past[b] if cosine[k, b] >= SIMILAR_FROM else "" for k, b in enumerate(best)]


def _unit(
    vectors: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Rows scaled to length one."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = vectors / np.maximum(length, 1e-9)
    return unit
