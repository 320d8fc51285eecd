"""The request context: everything that sources and supply read for one request."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from recsys.candidates.index import CandidateIndex
from recsys.distribution.eligibility import first_match, ineligible
from recsys.domain.catalog import Catalog
from recsys.domain.item_statistics import ItemStats
from recsys.domain.query import Query
from recsys.domain.trace import DropReason
from recsys.domain.types import F32, I32, Bool
from recsys.domain.viewer import ViewerState
from recsys.guidance.compilation.compile import CompiledPolicy
from recsys.models.served_model import ServedModel
from recsys.pacing.on_page import NO_PRICES, ActivePrices, frequency_capped


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

    @cached_property
    def ineligible(self) -> dict[DropReason, Bool]:
        """Return masks [catalog] of the items that may not be shown, by reason."""
        return ineligible(self.catalog, slice(None), self.query, self.viewer)

    @cached_property
    def eligible(self) -> Bool:
        """Return [catalog] whether an item may be shown to this viewer, here and now."""
        eligible, _ = first_match(self.ineligible)
        return eligible

    @cached_property
    def frequency_capped(self) -> Bool:
        """Return [catalog] whether an item belongs to an exposure target whose frequency cap the viewer has reached."""
        rows = np.arange(len(self.catalog), dtype=np.int32)
        return frequency_capped(self.policy, rows, self.query, self.viewer, self.prices)

    @cached_property
    def selectable(self) -> Bool:
        """Return [catalog] whether an item is eligible, and neither blocked nor at its frequency cap.

        Sources are cut to their maximum number of these items. A control of stricter enforcement can still readmit a
        blocked item.
        """
        return self.eligible & ~self.frequency_capped & ~self.policy.block_members(self.query)


def utility_hint(context: RequestContext, rows: I32) -> F32:
    """Return [N] a cheap estimate of utility from retrieval affinity, popularity and recency."""
    age_d = np.maximum(context.query.now - context.catalog.published_at[rows], 0.0) / 86_400.0
    hint: F32 = (context.index.popularity_score[rows] + np.exp2(-age_d / 7.0)).astype(np.float32)
    if context.model is not None and context.vector is not None:
        position = context.index.position_of_row[rows]
        in_model = position >= 0
        hint[in_model] += context.model.retriever.scores(context.vector, position[in_model])
    return hint
