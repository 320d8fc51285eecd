"""Everything that pages are made from besides the query and the viewer."""

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
    """All that a page is made from besides its query and viewer; read once, so one request sees one world."""

    catalog: Catalog
    stats: ItemStats
    model: ServedModel | None
    policy: CompiledPolicy
    index: CandidateIndex
    prices: ActivePrices = NO_PRICES

    def __repr__(self) -> str:
        model = self.model.bundle.version if self.model else "none"
        return f"World({self.catalog}, model {model}, policy {self.policy.version})"

    @classmethod
    def of(
        cls, catalog: Catalog, stats: ItemStats, model: ServedModel | None, policy: CompiledPolicy
    ) -> ServingSnapshot:
        """A world with its index derived; `replace(world, policy=p)` is the same world, steered otherwise."""
        stats = stats.resized(len(catalog))
        return cls(catalog, stats, model, policy, CandidateIndex.of(catalog, stats, model))
