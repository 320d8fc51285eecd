"""The services of one process: what an app is wired from, and the order in which it starts and stops."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from features.offline.log import EventLog
from features.online import OnlineStore
from features.online.guarded import BreakerStore
from features.spool import Spool
from features.stream import Stream
from features.stream.watch import LogWatchdog
from features.unreadable import CorruptStateCounter
from recsys.guidance.profiles import Profile
from recsys.settings import Settings
from serving.content import EmbeddingPoller
from serving.control import ControlPlane
from serving.desk import PolicyService
from serving.feed import PageService
from serving.follow import Poller
from serving.holders import SnapshotHolder
from serving.ingest import EventIntake
from serving.measures import LiveMetrics
from serving.metrics import Metrics
from serving.preview.service import PreviewService
from serving.publisher import ImpressionPublisher
from serving.pursuits import PacingLoop
from serving.registry import ModelPoller
from serving.targets import TargetService
from serving.tokens import Tokens
from serving.viewers import ViewerData


@dataclass(frozen=True)
class Services:
    """Everything an app is wired from; routes, tests and benchmarks read it from `app.state.services`.

    online     the online store for work that can wait
    viewers    the online store as pages read it: short time-outs, and no calls at all while it does not answer
    content    None when no text encoder is configured
    followers  background pollers by name; `serving.pollers` adds them
    """

    settings: Settings
    clock: Callable[[], float]
    metrics: Metrics
    tokens: Tokens
    stream: Stream
    spool: Spool
    watch: LogWatchdog
    online: OnlineStore
    viewers: BreakerStore
    event_log: EventLog
    control: ControlPlane
    holders: SnapshotHolder
    unreadable: CorruptStateCounter
    publisher: ImpressionPublisher
    live_metrics: LiveMetrics
    model_poller: ModelPoller
    content: EmbeddingPoller | None
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
        """Read catalog and statistics once if their stores answer, then start all background work."""
        for name in ("control", "online"):
            self.pollers[name].run_once()  # the first request sees the catalog, if there is one
        for follower in self.pollers.values():
            follower.start()
        self.spool.start()
        self.publisher.start()

    def stop(self) -> None:
        """Send what is still queued, then stop all background work and close all connections."""
        self.previews.stop()
        self.publisher.stop()
        self.spool.close()
        for name, follower in self.pollers.items():
            follower.stop(0.0 if name in ("engine", "model") else 2.0)  # those two hold nothing, and may take long
        if self.content is not None:
            self.content.close()
        self.stream.close()
        self.viewers.close()
        self.online.close()
        self.control.close()
        self.metrics.close()
