"""The request context: what sources and supply may look at for one request."""

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
    """What a source may look at.

    vector  [F] the viewer folded into the model's factors; None for who is unknown to it
    taste   [D] what the viewer liked, as a text vector (`recsys.candidates.content_based`); None where there is none
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


def utility_hint(ask: RequestContext, rows: I32) -> F32:
    """Return [N] a cheap estimate of utility: match with the viewer where known, some popularity and recency."""
    age_d = np.maximum(ask.query.now - ask.catalog.published_at[rows], 0.0) / 86_400.0
    hint: F32 = (ask.index.popularity_score[rows] + np.exp2(-age_d / 7.0)).astype(np.float32)
    if ask.model is not None and ask.vector is not None:
        position = ask.index.position_of_row[rows]
        known = position >= 0
        hint[known] += ask.model.retriever.scores(ask.vector, position[known])
    return hint
