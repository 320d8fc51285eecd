"""Live measures: the pages of the last minutes, measured in the background and told as Prometheus gauges.

A page leaves a few references behind and nothing is computed while anybody waits.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from features.offline.seen import WANTED
from recsys.distribution.screens import layout
from recsys.measures.table import Fate, Seen, control_measures, measures
from recsys.state import ViewerState
from recsys.types import Page, Query
from serving.holders import Holders
from serving.metrics import Metrics

MEASURE_EVERY_S, MEASURE_SHARE = 10.0, 0.02
WINDOW_S = 900.0
KEPT = 2_000
PER_PLACEMENT = 200
"""Pages measured at most: of the last quarter of an hour, and the latest of each placement."""


@dataclass(frozen=True)
class LiveMeasures:
    """`note` is called for every page, `step` by a follower."""

    holders: Holders
    metrics: Metrics
    clock: Callable[[], float]
    _pages: deque[tuple[Query, Page, ViewerState | None]] = field(default_factory=lambda: deque(maxlen=KEPT))

    def note(self, query: Query, page: Page, viewer: ViewerState | None) -> None:
        """Remember a page; costs nothing worth mentioning."""
        self._pages.append((query, page, viewer))

    def step(self) -> None:
        """Measure the latest pages of each placement and set the gauges."""
        since = self.clock() - WINDOW_S
        latest = [one for one in tuple(self._pages) if one[0].now >= since]
        by_placement: dict[tuple[str, str], list[Seen]] = defaultdict(list)
        by_region: dict[str, list[Seen]] = defaultdict(list)
        catalog = self.holders.current.catalog
        for query, page, viewer in reversed(latest):
            if not query.guided:
                continue
            group = by_placement[query.placement.outlet, query.placement.id]
            if len(group) < PER_PLACEMENT:
                group.append(self._seen(query, page, viewer))
                by_region[query.region].append(group[-1])
        for (outlet, placement), pages in by_placement.items():
            for name, figure in measures(pages, catalog).items():
                self._set(self.metrics.measure.labels(outlet, placement, name), figure)
            for control, figures in control_measures(pages).items():
                for name, figure in figures.items():
                    self._set(self.metrics.control_measure.labels(outlet, placement, control, name), figure)
        for region, pages in by_region.items():
            self._set(self.metrics.cocoon.labels(region), measures(pages, catalog)["cocoon_index"])

    def _set(self, gauge: object, figure: float) -> None:
        if np.isfinite(figure):  # what could not be measured keeps its last figure
            gauge.set(figure)  # type: ignore[attr-defined]

    def _seen(self, query: Query, page: Page, viewer: ViewerState | None) -> Seen:
        price = {one.control_id: one.clicks for one in page.receipt.price}
        liked = (action.item_id for action in (viewer.recent if viewer else ()) if action.kind in WANTED)
        return Seen(
            viewer_id=query.viewer_id,
            outlet=query.placement.outlet,
            placement=query.placement.id,
            region=query.region,
            row=np.array([item.row for item in page.items], np.int32),
            attention=layout(query.placement.screen).attention(query.slots)[: len(page.items)],
            history=self.holders.current.catalog.rows(liked),
            fates=tuple(Fate(line.id, line.status, line.by, price.get(line.id, 0.0)) for line in page.receipt.controls),
            engagement=page.engagement,
            unguided=page.unguided,
        )
