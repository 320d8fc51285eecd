"""The Prometheus metrics of the service. Counters and histograms are summed over all processes."""

from __future__ import annotations

import os
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

PROCESSES_DIR = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable of prometheus-client: the directory that all processes share. `serving.main` sets it."""

_SECONDS = (0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0)


class Metrics:
    """All metrics of an app, in a separate registry, so that two apps in one process do not collide."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._add_page_metrics()
        self._add_intake_metrics()
        self._add_worker_metrics()
        self._add_snapshot_metrics()
        self._add_target_metrics()
        self._add_live_metrics()

    def _add_page_metrics(self) -> None:
        own = self._registry
        self.page_s = Histogram(
            "mainstay_page_seconds", "Time to compute a page, in seconds", ["screen"], registry=own, buckets=_SECONDS
        )
        self.pages = Counter(
            "mainstay_pages", "Pages served, by fallback level and screen", ["fallback_level", "screen"], registry=own
        )
        self.controls = Counter(
            "mainstay_controls",
            "Controls on served pages, by status in the receipt",
            ["outlet", "control", "status"],
            registry=own,
        )
        self.degraded_parts = Counter(
            "mainstay_page_parts_degraded",
            "Pages served while a part of the service was unavailable, by part",
            ["part"],
            registry=own,
        )
        self.impressions_dropped = Counter(
            "mainstay_impressions_dropped", "Impressions that could not be sent to the stream", registry=own
        )

    def _add_intake_metrics(self) -> None:
        own = self._registry
        self.events = Counter("mainstay_events", "Viewer events received, by result", ["status"], registry=own)
        self.unknown_items = Counter(
            "mainstay_events_unknown_item",
            "Viewer events accepted for an item that is not in the catalog",
            registry=own,
        )
        self.excess_events = Counter(
            "mainstay_events_excess",
            "Viewer events that do not count for popularity: more viewers of one address than viewers_per_source",
            registry=own,
        )
        self.items = Counter("mainstay_items", "Catalog items received, by result", ["status"], registry=own)
        self.spool_records = Gauge(
            "mainstay_spool_records",
            "Events in the spool that wait for delivery to the stream",
            registry=own,
            multiprocess_mode="livesum",
        )
        self.spool_bytes = Gauge(
            "mainstay_spool_bytes",
            "Bytes in the spool that wait for delivery to the stream",
            registry=own,
            multiprocess_mode="livesum",
        )
        self.stream_losses = Counter("mainstay_stream_losses", "Times that the stream lost its log", registry=own)

    def _add_worker_metrics(self) -> None:
        own = self._registry
        self.stalled_partitions = Gauge(
            "mainstay_stalled_partitions",
            "Partitions with unread messages on which no worker makes progress",
            registry=own,
            multiprocess_mode="livemax",
        )
        self.dead_letters = Gauge(
            "mainstay_dead_letters",
            "Dead letters: messages that could not be read or are quarantined (mainstay dlq list)",
            registry=own,
            multiprocess_mode="livemax",
        )
        self.quarantined_states = Gauge(
            "mainstay_quarantined_states",
            "Corrupt states in quarantine (mainstay quarantine list)",
            registry=own,
            multiprocess_mode="livemax",
        )
        self.quarantined_files = Gauge(
            "mainstay_quarantined_files",
            "Damaged files of the event log in quarantine (GET /health/ready names them)",
            registry=own,
            multiprocess_mode="livemax",
        )
        self.corrupt_states = Counter(
            "mainstay_corrupt_states",
            "Reads of a corrupt state, which were skipped, by kind of state",
            ["kind"],
            registry=own,
        )

    def _add_snapshot_metrics(self) -> None:
        own = self._registry
        self.revision = Gauge(
            "mainstay_revision",
            "Revision of the control plane in service; with several processes, the lowest",
            registry=own,
            multiprocess_mode="livemin",
        )
        self.catalog_items = Gauge(
            "mainstay_catalog_items",
            "Items in the catalog in service; with several processes, the lowest number",
            registry=own,
            multiprocess_mode="livemin",
        )
        self.snapshot_updates = Counter(
            "mainstay_snapshot_updates",
            "Serving snapshots put into service, by the part that changed",
            ["part"],
            registry=own,
        )

    def _add_target_metrics(self) -> None:
        self.target_delivered = self._target_gauge(
            "delivered", "Delivered fraction of the amount of an exposure target"
        )
        self.target_planned = self._target_gauge(
            "planned", "Planned fraction of the amount of an exposure target up to now"
        )
        self.target_price = self._target_gauge(
            "price",
            "Current price of a target per unit of attention: play equivalents, or item utilities without max_price",
        )
        self.target_pacing = self._target_gauge(
            "pacing_error", "Mean distance of an exposure target from its plan, as a fraction of its amount"
        )
        self.target_expected = self._target_gauge(
            "expected", "Expected fraction of the amount of an exposure target at its deadline; NaN if unknown"
        )

    def _add_live_metrics(self) -> None:
        # Each process measures its own sample of the traffic, so the latest value of any process is exposed.
        latest: dict[str, Any] = {"registry": self._registry, "multiprocess_mode": "mostrecent"}
        self.page_metric = Gauge(
            "mainstay_page_metric",
            "Quality metrics of pages served in the last 15 minutes",
            ["outlet", "placement", "metric"],
            **latest,
        )
        self.control_metric = Gauge(
            "mainstay_control_metric",
            "Metrics of controls on pages served in the last 15 minutes: satisfied, relaxed and infeasible are "
            "fractions of pages, price is in play equivalents",
            ["outlet", "placement", "control", "metric"],
            **latest,
        )
        self.concentration = Gauge(
            "mainstay_concentration_index",
            "Concentration of the items shown to viewers of a region: 0 if as diverse as the catalog, 1 if all alike",
            ["region"],
            **latest,
        )

    def _target_gauge(self, name: str, description: str) -> Gauge:
        return Gauge(
            f"mainstay_target_{name}",
            description,
            ["target"],
            registry=self._registry,
            multiprocess_mode="livemostrecent",
        )

    def remove_target(self, target: str) -> None:
        """Remove the series of a target that is no longer in force."""
        for gauge in (
            self.target_delivered,
            self.target_planned,
            self.target_price,
            self.target_pacing,
            self.target_expected,
        ):
            self.remove_series(gauge, (target,))

    @staticmethod
    def remove_series(gauge: Gauge, labels: tuple[str, ...]) -> None:
        """Remove a series. With several processes a series cannot be removed from their files, so it is set to NaN."""
        if os.environ.get(PROCESSES_DIR):
            gauge.labels(*labels).set(float("nan"))
        else:
            gauge.remove(*labels)

    def close(self) -> None:
        """Remove the gauges of this process from the shared files; its counters remain."""
        if os.environ.get(PROCESSES_DIR):
            mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]

    def text(self) -> bytes:
        """Return all metrics in the Prometheus text format."""
        if not os.environ.get(PROCESSES_DIR):
            return generate_latest(self._registry)
        all_processes = CollectorRegistry()
        MultiProcessCollector(all_processes)  # type: ignore[no-untyped-call]
        return generate_latest(all_processes)
