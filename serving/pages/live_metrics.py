"""Live measures: the pages of the last minutes, measured in the background and told as Prometheus gauges.

A page leaves a few references behind and nothing is computed while anybody waits.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from prometheus_client import Gauge

from features.history.impressions import POSITIVE_ACTIONS
from recsys.distribution.layouts import screen_layout
from recsys.domain.query import Query
from recsys.domain.viewer import ViewerState
from recsys.metrics.report_card import ControlOutcome, PageView, compute_metrics, control_metrics
from recsys.page import Page
from serving.prometheus import Metrics
from serving.snapshot.holders import SnapshotHolder

MEASURE_EVERY_S, MEASURE_SHARE = 10.0, 0.02
WINDOW_S = 900.0
WINDOW_PAGES = 2_000
PER_PLACEMENT = 200
"""Pages measured at most: of the last quarter of an hour, and the latest of each placement."""

VIEWERS_MIN = 20
"""What tells of viewers, not of pages, is told of at least so many."""

OTHER = "other"
"""Regions that neither an outlet nor an item names, nor any region above them."""


@dataclass(frozen=True)
class LiveMetrics:
    """`note` is called for every page, `step` by a follower."""

    holders: SnapshotHolder
    metrics: Metrics
    clock: Callable[[], float]
    _pages: deque[tuple[Query, Page, ViewerState | None]] = field(default_factory=lambda: deque(maxlen=WINDOW_PAGES))
    _said: set[tuple[Gauge, tuple[str, ...]]] = field(default_factory=set)

    def note(self, query: Query, page: Page, viewer: ViewerState | None) -> None:
        """Remember a page; costs nothing worth mentioning."""
        self._pages.append((query, page, viewer))

    def forget(self, viewer_id: str) -> None:
        """Remember no page of this viewer; one that is made for others meanwhile may be forgotten as well."""
        others = [one for one in tuple(self._pages) if one[0].viewer_id != viewer_id]
        self._pages.clear()
        self._pages.extend(others)

    def utility_value(self) -> float | None:
        """Median of what the items of the pages of late are worth to their viewers, in play
        equivalents; None without pages."""
        worth = [item.utility for _, page, _ in tuple(self._pages)[-PER_PLACEMENT:] for item in page.items]
        return float(np.median(worth)) if worth else None

    def step(self) -> None:
        """Measure the latest pages of each placement and set the gauges; what was not measured is no longer told."""
        since = self.clock() - WINDOW_S
        while self._pages and self._pages[0][0].now < since:
            self._pages.popleft()
        latest = [one for one in tuple(self._pages) if one[0].now >= since]
        by_placement: dict[tuple[str, str], list[PageView]] = defaultdict(list)
        by_region: dict[str, list[PageView]] = defaultdict(list)
        snapshot = self.holders.current
        catalog = snapshot.catalog
        known = {*snapshot.outlets, *snapshot.serving_snapshots, *catalog.regions.names}
        figure_of: dict[tuple[Gauge, tuple[str, ...]], float] = {}
        for query, page, viewer in reversed(latest):
            if not query.guided:
                continue
            group = by_placement[query.placement.outlet, query.placement.id]
            if len(group) < PER_PLACEMENT:
                group.append(self._seen(query, page, viewer))
                by_region[nearest(query.region, known)].append(group[-1])
        for (outlet, placement), pages in by_placement.items():
            for name, figure in _of_many(pages, compute_metrics(pages, catalog)).items():
                figure_of[self.metrics.page_metric, (outlet, placement, name)] = figure
            for control, figures in control_metrics(pages).items():
                for name, figure in figures.items():
                    figure_of[self.metrics.control_metric, (outlet, placement, control, name)] = figure
        for region, pages in by_region.items():
            figures = _of_many(pages, compute_metrics(pages, catalog))
            figure_of[self.metrics.concentration, (region,)] = figures["concentration_index"]
        self._publish({series: figure for series, figure in figure_of.items() if np.isfinite(figure)})

    def _publish(self, figure_of: Mapping[tuple[Gauge, tuple[str, ...]], float]) -> None:
        for (gauge, labels), figure in figure_of.items():
            gauge.labels(*labels).set(figure)
        for gauge, labels in self._said - figure_of.keys():
            self.metrics.remove_series(gauge, labels)
        self._said.clear()
        self._said.update(figure_of)

    def _seen(self, query: Query, page: Page, viewer: ViewerState | None) -> PageView:
        price = {one.control_id: one.play_equivalents for one in page.receipt.price}
        liked = (action.item_id for action in (viewer.recent if viewer else ()) if action.kind in POSITIVE_ACTIONS)
        return PageView(
            viewer_id=query.viewer_id,
            outlet=query.placement.outlet,
            placement=query.placement.id,
            region=query.region,
            row=np.array([item.row for item in page.items], np.int32),
            attention=screen_layout(query.placement.screen).attention(query.slots)[: len(page.items)],
            history=self.holders.current.catalog.rows(liked),
            outcomes=tuple(
                ControlOutcome(line.id, line.status, line.slack, price.get(line.id, 0.0))
                for line in page.receipt.controls
            ),
            engagement=page.engagement,
            unguided=page.unguided,
        )


def nearest(region: str, known: Container[str]) -> str:
    """The region itself or the nearest above it that is known: clients write what they like, and a label is for good.

    >>> nearest("cn.zj.hz", {"cn", "cn.zj"}), nearest("of my own", {"cn"})
    ('cn.zj', 'other')
    """
    while region and region not in known:
        region = region.rpartition(".")[0]
    return region or OTHER


def _of_many(pages: Sequence[PageView], figures: dict[str, float]) -> dict[str, float]:
    """The figures, without those that would tell of a few viewers only."""
    viewers = {page.viewer_id for page in pages}
    remembered = {page.viewer_id for page in pages if len(page.history)}
    few = {
        name
        for name, of in (("concentration_index", viewers), ("miscalibration_history", remembered))
        if len(of) < VIEWERS_MIN
    }
    return {name: float("nan") if name in few else figure for name, figure in figures.items()}
