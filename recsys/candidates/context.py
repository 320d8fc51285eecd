"""The request context: everything that sources and supply read for one request."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys.candidates.index import CandidateIndex
from recsys.domain.catalog import Catalog
from recsys.domain.item_statistics import ItemStats
from recsys.domain.query import Query
from recsys.domain.types import F32, I32
from recsys.domain.viewer import ViewerState
from recsys.guidance.compilation.compile import CompiledPolicy
from recsys.models.served_model import ServedModel
from recsys.pacing.on_page import NO_PRICES, ActivePrices


@dataclass(frozen=True)
class RequestContext:
    """The query, the viewer and the serving snapshot of one request.

    vector           [F] the viewer folded into the model's factors; None if the model has none of the viewer's items
    content_profile  [D] mean text vector of the items that the viewer liked (`recsys.candidates.content_based`); None
                     if there is none
    """

    query: Query
    viewer: ViewerState | None
    catalog: Catalog
    stats: ItemStats
    model: ServedModel | None
    policy: CompiledPolicy
    index: CandidateIndex
    vector: F32 | None
    prices: ActivePrices = NO_PRICES
    content_profile: F32 | None = None


def utility_hint(context: RequestContext, rows: I32) -> F32:
    """Return [N] a cheap estimate of utility from retrieval affinity, popularity and recency."""
    age_d = np.maximum(context.query.now - context.catalog.published_at[rows], 0.0) / 86_400.0
    hint: F32 = (context.index.popularity_score[rows] + np.exp2(-age_d / 7.0)).astype(np.float32)
    if context.model is not None and context.vector is not None:
        position = context.index.position_of_row[rows]
        in_model = position >= 0
        hint[in_model] += context.model.retriever.scores(context.vector, position[in_model])
    return hint
