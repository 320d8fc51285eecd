"""Personal retrieval with implicit ALS. Viewers are folded into the item factors at request time.

No viewer vector is stored. It is computed from the viewer's recent actions, so the last action counts on the next page,
and erasing a viewer leaves no vector behind.
"""

from __future__ import annotations

import faiss
import numpy as np

from recsys.domain.types import F32, I32, I64, Bool
from recsys.domain.viewer import ViewerState
from recsys.models.history import history

MAX_EXACT_ITEMS = 50_000
"""Maximum number of items for exact search; larger models use an HNSW graph."""


def fold_in(vectors: F32, gram: F32, rows: I32, weight: F32, regularization: float, alpha: float) -> F32:
    """Return a viewer's factors for fixed item factors (Hu, Koren & Volinsky 2008, eq. 4).

    vectors  [M, D]  item factors Y
    gram     [D, D]  Y'Y
    rows     [H]     items of the viewer's history
    weight   [H]     weights of these items; the confidence is 1 + alpha * weight
    return   [D]     x = (Y'Y + Y'(C - I)Y + regularization * I)^-1 Y'C p
    """
    y = vectors[rows].astype(np.float64)
    extra = alpha * weight.astype(np.float64)
    matrix = gram + (y.T * extra) @ y + regularization * np.eye(vectors.shape[1])
    solved: F32 = np.linalg.solve(matrix, y.T @ (1.0 + extra)).astype(np.float32)
    return solved


class AlsRetriever:
    """A retriever of kind `als`, which finds the items nearest to a viewer's history. It is thread-safe.

    Positions 0..M-1 are the bundle's items; `recsys.candidates.index` maps them to catalog rows.
    """

    def __init__(self, item_ids: tuple[str, ...], vectors: F32, regularization: float, alpha: float) -> None:
        self.item_ids = item_ids
        self.position_of = {item_id: position for position, item_id in enumerate(item_ids)}
        self.vectors = np.ascontiguousarray(vectors, np.float32)
        self._gram: F32 = (vectors.astype(np.float64).T @ vectors.astype(np.float64)).astype(np.float32)
        self._regularization, self._alpha = regularization, alpha
        dimensions = vectors.shape[1]
        self._exact = len(item_ids) <= MAX_EXACT_ITEMS
        self._index: faiss.Index = (
            faiss.IndexFlatIP(dimensions)
            if self._exact
            else faiss.IndexHNSWFlat(dimensions, 32, faiss.METRIC_INNER_PRODUCT)
        )
        self._index.add(self.vectors)

    def viewer_vector(self, viewer: ViewerState) -> F32 | None:
        """Return [D] the viewer's factors; None if the model has no item of the viewer's history."""
        weighted = [(self.position_of[i], w) for i, w in history(viewer).items() if i in self.position_of]
        if not weighted:
            return None
        rows = np.array([position for position, _ in weighted], np.int32)
        weight = np.array([weight for _, weight in weighted], np.float32)
        return fold_in(self.vectors, self._gram, rows, weight, self._regularization, self._alpha)

    def scores(self, vector: F32, positions: I32 | I64) -> F32:
        """Return [P] inner products of a viewer's factors with the items at these positions."""
        scores: F32 = self.vectors[positions] @ vector
        return scores

    def nearest(self, vector: F32, count: int, allowed: Bool | None = None) -> I32:
        """Return [<= count] positions of the items with the largest inner product, best first.

        allowed  [M] limits the search itself, so that a screen with few playable items still gets `count` items
        """
        params = None
        if allowed is not None:
            bitmap = np.packbits(allowed, bitorder="little")
            selector = faiss.IDSelectorBitmap(bitmap)
            params = (
                faiss.SearchParameters(sel=selector)
                if self._exact
                else faiss.SearchParametersHNSW(sel=selector, efSearch=4 * count)
            )
        _, neighbours = self._index.search(vector[None, :], min(count, len(self.item_ids)), params=params)
        positions: I32 = neighbours[0][neighbours[0] >= 0].astype(np.int32)
        return positions
