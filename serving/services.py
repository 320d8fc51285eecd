"""The services of one process, and the order in which they start and stop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from features.control.plane import ControlPlane
from features.events.spool.port import Spool
from features.events.stream.port import Stream
from features.events.stream.watchdog import LogWatchdog
from features.history.event_log import EventLog
from features.settings import Settings
from features.state.online.guarded import BreakerStore
from features.state.online.port import OnlineStore
from features.state.quarantine import CorruptStateCounter
from recsys.guidance.policy.profiles import Profile
from serving.editorial.pacing_loop import PacingLoop
from serving.editorial.policy_service import PolicyService
from serving.editorial.preview.service import PreviewService
from serving.editorial.target_service import TargetService
from serving.pages.event_intake import EventIntake
from serving.pages.impression_publisher import ImpressionPublisher
from serving.pages.live_metrics import LiveMetrics
from serving.pages.page_service import PageService
from serving.prometheus import Metrics
from serving.schemas.tokens import Tokens
from serving.snapshot.embedding_refresher import EmbeddingPoller
from serving.snapshot.holders import SnapshotHolder
from serving.snapshot.model_loader import ModelPoller
from serving.snapshot.poller import Poller
from serving.viewer_data import ViewerData


@dataclass(frozen=True)
class Services:
    """All services of an app. Routes, tests and benchmarks read them from `app.state.services`.

    online            the online store for background work, with a long timeout
    viewers           the online store for pages, with a short timeout and a circuit breaker
    embedding_poller  None if no text encoder is configured
    pollers           background pollers by name; `serving.pollers` adds them
    """

    settings: Settings
    clock: Callable[[], float]
    metrics: Metrics
    tokens: Tokens
    stream: Stream
    spool: Spool
    watchdog: LogWatchdog
    online: OnlineStore
    viewers: BreakerStore
    event_log: EventLog
    control: ControlPlane
    holders: SnapshotHolder
    corrupt_states: CorruptStateCounter
    publisher: ImpressionPublisher
    live_metrics: LiveMetrics
    model_poller: ModelPoller
    embedding_poller: EmbeddingPoller | None
    pages: PageService
    event_intake: EventIntake
    targets: PacingLoop
    policy_service: PolicyService
    target_service: TargetService
    previews: PreviewService
    viewer_data: ViewerData
    profiles: Mapping[str, Profile]
    pollers: dict[str, Poller] = field(default_factory=dict)

    def start(self) -> None:
        """Read the catalog and item statistics once, if their stores respond, then start all background work."""
        for name in ("control", "online"):
            self.pollers[name].run_once()  # so that the first request uses the stored catalog
        for poller in self.pollers.values():
            poller.start()
        self.spool.start()
        self.publisher.start()

    def stop(self) -> None:
        """Send all queued impressions and events, then stop all background work and close all connections."""
        self.previews.stop()
        self.publisher.stop(1.5)
        self.spool.close()
        for poller in self.pollers.values():
            poller.stop(0.0)  # all of them first, so that the waiting times below do not add up
        for name, poller in self.pollers.items():
            poller.stop(0.0 if name in ("engine", "model") else 0.5)  # these two own no resources and can be slow
        if self.embedding_poller is not None:
            self.embedding_poller.close()
        self.stream.close()
        self.viewers.close()
        self.online.close()
        self.control.close()
        self.metrics.close()
