"""The serving snapshot: everything that a page is made from besides the query and the viewer."""

from __future__ import annotations

from dataclasses import dataclass

from recsys.candidates.index import CandidateIndex
from recsys.domain.catalog import Catalog
from recsys.domain.item_statistics import ItemStats
from recsys.guidance.compilation.compile import CompiledPolicy
from recsys.models.served_model import ServedModel
from recsys.pacing.on_page import NO_PRICES, ActivePrices


@dataclass(frozen=True)
class ServingSnapshot:
    """A consistent set of catalog, statistics, model and policy. Each request reads exactly one snapshot.

    To derive a snapshot with another policy, use `replace(snapshot, policy=policy)`.
    """

    catalog: Catalog
    stats: ItemStats
    model: ServedModel | None
    policy: CompiledPolicy
    index: CandidateIndex
    prices: ActivePrices = NO_PRICES

    def __repr__(self) -> str:
        model = self.model.bundle.version if self.model else "none"
        return f"ServingSnapshot({self.catalog}, model {model}, policy {self.policy.version})"

    @classmethod
    def of(
        cls, catalog: Catalog, stats: ItemStats, model: ServedModel | None, policy: CompiledPolicy
    ) -> ServingSnapshot:
        """Build a snapshot and derive its candidate index."""
        stats = stats.resized(len(catalog))
        return cls(catalog, stats, model, policy, CandidateIndex.of(catalog, stats, model))
