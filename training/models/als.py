"""Fit the ALS retriever on viewers' actions, weighted as serving weights a viewer's history."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np
from implicit.als import AlternatingLeastSquares
from scipy.sparse import csr_matrix  # type: ignore[import-untyped]
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from features.events.schema import ViewerEvent
from recsys.domain.catalog import Catalog
from recsys.domain.errors import InvalidInput
from recsys.domain.types import F32
from recsys.domain.viewer import Recent, ViewerState
from recsys.models.als import AlsRetriever
from recsys.models.history import WEIGHT, history
from training.config import Als
from training.timeline import count_for_items


@dataclass(frozen=True)
class Interactions:
    """A matrix of V viewers (rows) x M items (columns), with the weights of `recsys.models.history.WEIGHT`."""

    item_ids: tuple[str, ...]
    weight: csr_matrix


def interactions(events: Sequence[ViewerEvent], catalog: Catalog) -> Interactions:
    """Return the interaction matrix of these events.

    Items that are missing from the catalog and viewers without actions are left out. Raises InvalidInput when the
    matrix would be empty.
    """
    actions_of_viewer: dict[str, list[Recent]] = defaultdict(list)
    for event in compress(events, count_for_items(events)):
        if event.item_id in catalog.row_of and (event.kind in WEIGHT or event.kind == "hide"):
            actions_of_viewer[event.viewer_id].append(Recent(str(event.item_id), event.kind, event.at))
    column: dict[str, int] = {}
    rows, columns, weights = [], [], []
    for row, (viewer_id, actions) in enumerate(actions_of_viewer.items()):
        for item_id, weight in history(ViewerState(viewer_id, recent=tuple(actions))).items():
            rows.append(row)
            columns.append(column.setdefault(item_id, len(column)))
            weights.append(weight)
    if not column:
        raise InvalidInput("the event log holds no action on an item of the catalog in the training window")
    shape = (len(actions_of_viewer), len(column))
    return Interactions(tuple(column), csr_matrix((np.array(weights, np.float32), (rows, columns)), shape=shape))


def fit(data: Interactions, config: Als, seed: int) -> AlsRetriever:
    """Fit the item factors of a retriever; the same data, configuration and seed give the same factors."""
    confidence = data.weight.copy()
    confidence.data = 1.0 + config.alpha * confidence.data  # as in serving; implicit expects confidences
    with threadpool_limits(1, "blas"):  # BLAS threads compete with implicit's own threads
        model = AlternatingLeastSquares(
            factors=config.factors,
            regularization=config.regularization,
            alpha=1.0,
            iterations=config.iterations,
            num_threads=1,
            random_state=seed,
        )
        model.fit(confidence, show_progress=False)
    vectors: F32 = np.ascontiguousarray(model.item_factors, np.float32)
    return AlsRetriever(data.item_ids, vectors, config.regularization, config.alpha)
