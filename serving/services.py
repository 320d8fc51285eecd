"""The services of one process: what an app is wired from, and the order in which it starts and stops."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from features.offline.log import EventLog
from features.online import OnlineStore
from features.online.guarded import GuardedStore
from features.spool import Spool
from features.stream import Stream
from features.stream.watch import Watch
from features.unreadable import Unreadable
from recsys.guidance.profiles import Profile
from recsys.settings import Settings
from serving.content import ContentFollower
from serving.control import ControlPlane
from serving.desk import PolicyDesk
from serving.feed import FeedService
from serving.follow import Follower
from serving.holders import Holders
from serving.ingest import Ingest
from serving.measures import LiveMeasures
from serving.metrics import Metrics
from serving.preview.service import Previews
from serving.publisher import Publisher
from serving.pursuits import TargetLoop
from serving.registry import ModelFollower
from serving.targets import TargetDesk
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
    watch: Watch
    online: OnlineStore
    viewers: GuardedStore
    event_log: EventLog
    control: ControlPlane
    holders: Holders
    unreadable: Unreadable
    publisher: Publisher
    live_metrics: LiveMeasures
    models: ModelFollower
    content: ContentFollower | None
    feed: FeedService
    event_intake: Ingest
    targets: TargetLoop
    policy_service: PolicyDesk
    target_service: TargetDesk
    previews: Previews
    viewer_data: ViewerData
    profiles: Mapping[str, Profile]
    followers: dict[str, Follower] = field(default_factory=dict)

    def start(self) -> None:
        """Read catalog and statistics once if their stores answer, then start all background work."""
        for name in ("control", "online"):
            self.followers[name].once()  # the first request sees the catalog, if there is one
        for follower in self.followers.values():
            follower.start()
        self.spool.start()
        self.publisher.start()

    def stop(self) -> None:
        """Send what is still queued, then stop all background work and close all connections."""
        self.previews.stop()
        self.publisher.stop()
        self.spool.close()
        for name, follower in self.followers.items():
            follower.stop(0.0 if name in ("engine", "model") else 2.0)  # those two hold nothing, and may take long
        if self.content is not None:
            self.content.close()
        self.stream.close()
        self.viewers.close()
        self.online.close()
        self.control.close()
        self.metrics.close()
