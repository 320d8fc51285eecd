"""Personal retrieval: viewers are folded into the item factors of implicit ALS at request time.

No vector of a viewer is stored anywhere: it is computed from what the viewer did lately, so the last click counts on
the next page, and a viewer who is forgotten leaves nothing behind.
"""

from __future__ import annotations

import faiss
import numpy as np

from recsys.domain.types import F32, I32, I64, Bool
from recsys.domain.viewer import ViewerState
from recsys.models.history import history

EXACT_UP_TO = 50_000
"""Catalogues up to this size are searched exactly; larger ones through an HNSW graph."""


def fold_in(vectors: F32, gram: F32, rows: I32, weight: F32, regularization: float, alpha: float) -> F32:
    """A viewer's factors given fixed item factors (Hu, Koren & Volinsky 2008, eq. 4).

    vectors  [M, D]  item factors Y
    gram     [D, D]  Y'Y
    rows     [H]     items of the viewer's history, weight [H] their weights; confidence is 1 + alpha * weight
    return   [D]     x = (Y'Y + Y'(C - I)Y + regularization * I)^-1 Y'C p
    """
    y = vectors[rows].astype(np.float64)
    extra = alpha * weight.astype(np.float64)
    left = gram + (y.T * extra) @ y + regularization * np.eye(vectors.shape[1])
    solved: F32 = np.linalg.solve(left, y.T @ (1.0 + extra)).astype(np.float32)
    return solved


class AlsRetriever:
    """The retriever of kind `als`: finds the items nearest to a viewer's history. Safe to share between threads.

    Positions 0..M-1 count the bundle's items; `recsys.candidates.index` maps them to catalogue rows.
    """

    def __init__(self, item_ids: tuple[str, ...], vectors: F32, regularization: float, alpha: float) -> None:
        self.item_ids = item_ids
        self.position_of = {item_id: position for position, item_id in enumerate(item_ids)}
        self.vectors = np.ascontiguousarray(vectors, np.float32)
        self._gram: F32 = (vectors.astype(np.float64).T @ vectors.astype(np.float64)).astype(np.float32)
        self._regularization, self._alpha = regularization, alpha
        dimensions = vectors.shape[1]
        self._exact = len(item_ids) <= EXACT_UP_TO
        self._index: faiss.Index = (
            faiss.IndexFlatIP(dimensions)
            if self._exact
            else faiss.IndexHNSWFlat(dimensions, 32, faiss.METRIC_INNER_PRODUCT)
        )
        self._index.add(self.vectors)

    def viewer_vector(self, viewer: ViewerState) -> F32 | None:
        """[D] factors of the viewer; None when nothing in the history is known to the model."""
        known = [(self.position_of[i], w) for i, w in history(viewer).items() if i in self.position_of]
        if not known:
            return None
        rows = np.array([position for position, _ in known], np.int32)
        weight = np.array([weight for _, weight in known], np.float32)
        return fold_in(self.vectors, self._gram, rows, weight, self._regularization, self._alpha)

    def scores(self, vector: F32, positions: I32 | I64) -> F32:
        """Return [P] inner products of a viewer's factors with the items at these positions."""
        found: F32 = self.vectors[positions] @ vector
        return found

    def nearest(self, vector: F32, count: int, allowed: Bool | None = None) -> I32:
        """[<= count] positions of the items with the largest inner product, best first.

        `allowed` [M] limits the search itself, so that a screen which can show few items still gets its nearest ones.
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
        _, found = self._index.search(vector[None, :], min(count, len(self.item_ids)), params=params)
        positions: I32 = found[0][found[0] >= 0].astype(np.int32)
        return positions
