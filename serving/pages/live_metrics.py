"""Live metrics: the pages of the last minutes, measured in the background and exposed as Prometheus gauges.

The request path only keeps references to a page; all computation is done by a poller.
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
"""Pages measured: the latest of the last WINDOW_S seconds, WINDOW_PAGES in all and PER_PLACEMENT of each placement."""

VIEWERS_MIN = 20
"""Minimum number of distinct viewers behind a metric about viewers; below it the metric is not exposed."""

UNKNOWN_REGION = "other"
"""Label of regions that are unknown to outlets and items, as are all their parents."""


@dataclass(frozen=True)
class LiveMetrics:
    """A window of recent pages and its gauges. `record` is called for every page, `step` by a poller."""

    holders: SnapshotHolder
    metrics: Metrics
    clock: Callable[[], float]
    _pages: deque[tuple[Query, Page, ViewerState | None]] = field(default_factory=lambda: deque(maxlen=WINDOW_PAGES))
    _published: set[tuple[Gauge, tuple[str, ...]]] = field(default_factory=set)

    def record(self, query: Query, page: Page, viewer: ViewerState | None) -> None:
        """Add a page to the window; constant time."""
        self._pages.append((query, page, viewer))

    def forget(self, viewer_id: str) -> None:
        """Remove the pages of a viewer from the window; a page recorded at the same moment may be lost as well."""
        remaining = [entry for entry in tuple(self._pages) if entry[0].viewer_id != viewer_id]
        self._pages.clear()
        self._pages.extend(remaining)

    def utility_value(self) -> float | None:
        """Return the median utility of items on recent pages, in play equivalents; None without pages."""
        values = [item.utility for _, page, _ in tuple(self._pages)[-PER_PLACEMENT:] for item in page.items]
        return float(np.median(values)) if values else None

    def step(self) -> None:
        """Measure the latest pages of each placement and set the gauges; remove gauges without pages."""
        since = self.clock() - WINDOW_S
        while self._pages and self._pages[0][0].now < since:
            self._pages.popleft()
        entries = [entry for entry in tuple(self._pages) if entry[0].now >= since]
        by_placement: dict[tuple[str, str], list[PageView]] = defaultdict(list)
        by_region: dict[str, list[PageView]] = defaultdict(list)
        snapshot = self.holders.current
        catalog = snapshot.catalog
        known_regions = {*snapshot.outlets, *snapshot.serving_snapshots, *catalog.regions.names}
        series_values: dict[tuple[Gauge, tuple[str, ...]], float] = {}
        for query, page, viewer in reversed(entries):
            if not query.guided:
                continue
            group = by_placement[query.placement.outlet, query.placement.id]
            if len(group) < PER_PLACEMENT:
                group.append(self._page_view(query, page, viewer))
                by_region[nearest(query.region, known_regions)].append(group[-1])
        for (outlet, placement), pages in by_placement.items():
            for name, value in _hide_small_groups(pages, compute_metrics(pages, catalog)).items():
                series_values[self.metrics.page_metric, (outlet, placement, name)] = value
            for control, outcomes in control_metrics(pages).items():
                for name, value in outcomes.items():
                    series_values[self.metrics.control_metric, (outlet, placement, control, name)] = value
        for region, pages in by_region.items():
            metrics_of_region = _hide_small_groups(pages, compute_metrics(pages, catalog))
            series_values[self.metrics.concentration, (region,)] = metrics_of_region["concentration_index"]
        self._publish({series: value for series, value in series_values.items() if np.isfinite(value)})

    def _publish(self, values: Mapping[tuple[Gauge, tuple[str, ...]], float]) -> None:
        for (gauge, labels), value in values.items():
            gauge.labels(*labels).set(value)
        for gauge, labels in self._published - values.keys():
            self.metrics.remove_series(gauge, labels)
        self._published.clear()
        self._published.update(values)

    def _page_view(self, query: Query, page: Page, viewer: ViewerState | None) -> PageView:
        price = {entry.control_id: entry.play_equivalents for entry in page.receipt.price}
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


def nearest(region: str, known_regions: Container[str]) -> str:
    """Return the region or its nearest known parent, else UNKNOWN_REGION.

    Regions are free text of clients, and a label value is never freed: unknown regions must not become labels.

    >>> nearest("cn.zj.hz", {"cn", "cn.zj"}), nearest("of my own", {"cn"})
    ('cn.zj', 'other')
    """
    while region and region not in known_regions:
        region = region.rpartition(".")[0]
    return region or UNKNOWN_REGION


def _hide_small_groups(pages: Sequence[PageView], values: dict[str, float]) -> dict[str, float]:
    """Replace metrics about fewer than VIEWERS_MIN viewers by NaN."""
    viewers = {page.viewer_id for page in pages}
    with_history = {page.viewer_id for page in pages if len(page.history)}
    hidden = {
        metric
        for metric, viewer_ids in (("concentration_index", viewers), ("miscalibration_history", with_history))
        if len(viewer_ids) < VIEWERS_MIN
    }
    return {metric: float("nan") if metric in hidden else value for metric, value in values.items()}
