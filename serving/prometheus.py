"""What the service counts, for Prometheus. With several processes the figures are summed over all of them."""

from __future__ import annotations

import os
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

PROCESSES_DIR = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable of prometheus-client: where processes put their figures together; `serving.main` sets it."""

_SECONDS = (0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0)


class Metrics:
    """All meters of one app, on a registry of its own so that two apps in one process do not collide."""

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
            "mainstay_page_seconds", "Time to make one page", ["screen"], registry=own, buckets=_SECONDS
        )
        self.pages = Counter(
            "mainstay_pages", "Pages answered, by fallback level", ["fallback_level", "screen"], registry=own
        )
        self.controls = Counter(
            "mainstay_controls",
            "Controls on answered pages, by what became of them",
            ["outlet", "control", "status"],
            registry=own,
        )
        self.degraded_parts = Counter(
            "mainstay_page_parts_degraded", "Pages answered although a part did not answer", ["part"], registry=own
        )
        self.lost = Counter("mainstay_impressions_lost", "Impressions that could not be sent", registry=own)

    def _add_intake_metrics(self) -> None:
        own = self._registry
        self.events = Counter("mainstay_events", "Viewer events received", ["status"], registry=own)
        self.unknown_items = Counter(
            "mainstay_events_unknown_item",
            "Viewer events taken about an item the catalogue does not know",
            registry=own,
        )
        self.items = Counter("mainstay_items", "Catalogue items received", ["status"], registry=own)
        self.spool_records = Gauge(
            "mainstay_spool_records", "Events that wait for the stream", registry=own, multiprocess_mode="livesum"
        )
        self.spool_bytes = Gauge(
            "mainstay_spool_bytes", "Bytes that wait for the stream", registry=own, multiprocess_mode="livesum"
        )
        self.stream_losses = Counter("mainstay_stream_losses", "Times that the stream had lost its log", registry=own)

    def _add_worker_metrics(self) -> None:
        own = self._registry
        self.stalled = Gauge(
            "mainstay_stalled_partitions",
            "Partitions that no worker gets on with",
            registry=own,
            multiprocess_mode="livemax",
        )
        self.dead_letters = Gauge(
            "mainstay_dead_letters",
            "Messages that could not be read or are quarantined (mainstay dlq list)",
            registry=own,
            multiprocess_mode="livemax",
        )
        self.damaged = Gauge(
            "mainstay_damaged_states",
            "Damaged states that were set aside (mainstay quarantine list)",
            registry=own,
            multiprocess_mode="livemax",
        )
        self.unreadable = Counter(
            "mainstay_unreadable_states",
            "Times that a state could not be read and was left out",
            ["kind"],
            registry=own,
        )

    def _add_snapshot_metrics(self) -> None:
        own = self._registry
        self.revision = Gauge(
            "mainstay_revision",
            "Revision of the control plane that is being served; of several processes the one furthest behind",
            registry=own,
            multiprocess_mode="livemin",
        )
        self.catalogue = Gauge(
            "mainstay_catalogue_items", "Items in the catalogue served", registry=own, multiprocess_mode="livemin"
        )
        self.swaps = Counter("mainstay_swaps", "New worlds taken into service, by what changed", ["part"], registry=own)

    def _add_target_metrics(self) -> None:
        self.target_delivered = self._of_target("delivered", "Part of its amount that an exposure target has")
        self.target_planned = self._of_target(
            "planned", "Part of its amount that an exposure target should have by now"
        )
        self.target_price = self._of_target(
            "price", "Play equivalents per unit of attention that an exposure target is worth now"
        )
        self.target_pacing = self._of_target("pacing_error", "Mean distance from its plan, as part of its amount")
        self.target_expected = self._of_target("expected", "Part of its amount expected at the deadline; NaN: unknown")

    def _add_live_metrics(self) -> None:
        # A process measures its own share of the traffic, which is like everybody's: the latest figure stands.
        latest: dict[str, Any] = {"registry": self._registry, "multiprocess_mode": "mostrecent"}
        self.measure = Gauge(
            "mainstay_measure",
            "Measures of the pages of the last minutes (recsys.metrics)",
            ["outlet", "placement", "measure"],
            **latest,
        )
        self.control_measure = Gauge(
            "mainstay_control_measure",
            "Of controls on the pages of the last minutes: satisfied, relaxed, infeasible (shares), "
            "price (play equivalents)",
            ["outlet", "placement", "control", "measure"],
            **latest,
        )
        self.concentration = Gauge(
            "mainstay_concentration_index",
            "How concentrated what a region's viewers are shown is: 0 as wide as what is on offer, 1 one kind only",
            ["region"],
            **latest,
        )

    def _of_target(self, name: str, meaning: str) -> Gauge:
        return Gauge(
            f"mainstay_target_{name}",
            meaning,
            ["target"],
            registry=self._registry,
            multiprocess_mode="livemostrecent",
        )

    def forget_target(self, target: str) -> None:
        """Take back what the gauges said of a target that is not in force any more."""
        for gauge in (
            self.target_delivered,
            self.target_planned,
            self.target_price,
            self.target_pacing,
            self.target_expected,
        ):
            self.forget(gauge, (target,))

    @staticmethod
    def forget(gauge: Gauge, labels: tuple[str, ...]) -> None:
        """Take back what a gauge said of these labels; files that processes share cannot lose it, there it is NaN."""
        if os.environ.get(PROCESSES_DIR):
            gauge.labels(*labels).set(float("nan"))
        else:
            gauge.remove(*labels)

    def close(self) -> None:
        """This process ends: its gauges no longer count (its counters do)."""
        if os.environ.get(PROCESSES_DIR):
            mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]

    def text(self) -> bytes:
        """The exposition text."""
        if not os.environ.get(PROCESSES_DIR):
            return generate_latest(self._registry)
        everybody = CollectorRegistry()
        MultiProcessCollector(everybody)  # type: ignore[no-untyped-call]
        return generate_latest(everybody)
