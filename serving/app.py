"""The composition root of serving: the one place that knows which part is made of what."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from features.aside import aside
from features.columns import FEATURES, columns
from features.content import Encoder
from features.content.connect import lock_of, open_encoder
from features.content.vectors import Vectors
from features.offline.lives import sources_of
from features.offline.log import EventLog
from features.online import OnlineStore
from features.online.connect import open_online
from features.online.guarded import GuardedStore
from features.online.memory import MemoryStore
from features.spool import Spool
from features.spool.connect import open_spool
from features.stream import Stream
from features.stream.connect import open_stream
from features.stream.watch import Watch
from features.unreadable import Unreadable
from features.worker.dead import LetterCount
from recsys.guidance.solver import warm
from recsys.pipeline import Engine
from recsys.settings import Settings
from recsys.state import DAY_S
from serving import problems
from serving.changes import Changes
from serving.console.routes import routes as console_routes
from serving.content import ContentFollower
from serving.control import ControlPlane
from serving.control.connect import connect, migrate
from serving.control.ledger import answering
from serving.desk import PolicyDesk
from serving.feed import FeedService
from serving.follow import Follower
from serving.holders import Holders
from serving.ingest import Ingest
from serving.measures import MEASURE_EVERY_S, MEASURE_SHARE, LiveMeasures
from serving.metrics import Metrics
from serving.preview.crew import Crew
from serving.preview.requests import Requests
from serving.preview.service import Previews
from serving.profiles import ready_profiles
from serving.publisher import Publisher
from serving.pursuits import TargetLoop
from serving.registry import ModelFollower
from serving.routes import events, feeds, health, items, policies, previews, root, targets
from serving.routes import metrics as metrics_routes
from serving.routes import model as model_routes
from serving.routes import profiles as profile_routes
from serving.routes import viewers as viewer_routes
from serving.routes import vocabulary as vocabulary_routes
from serving.schemas import Health, PartHealth
from serving.targets import TargetDesk
from serving.tokens import Tokens, home_secret

VERSION = "0.1.0"
STATS_EVERY_S = 1.0
MODEL_EVERY_S = 2.0
STREAM_EVERY_S = 2.0
LETTERS_EVERY_S = 10.0
CHANGES_EVERY_S = 0.3
TARGETS_EVERY_S = 1.0
CONTENT_EVERY_S = 0.5
STORE_TIMEOUT_S = 1.0
"""What followers, previews and the console wait for the online store at most; a page waits a twentieth of that."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")

STATS_SHARE = 0.05
"""Reading the statistics takes at most this share of a process's time: many items are read less often."""

DESCRIPTION = """Pages for every screen, held to what editors stand for, each with a receipt.

Errors are RFC 9457 problem details. Times are RFC 3339 UTC. Ids are opaque. The editors' console is at `/console`."""


@dataclass(frozen=True)
class Parts:
    """What an app was wired from; tests and the console reach it as `app.state.parts`.

    viewers  the online store as pages read it: short time-outs, and not asked at all while it does not answer
    """

    settings: Settings
    stream: Stream
    spool: Spool
    watch: Watch
    online: OnlineStore
    viewers: GuardedStore
    control: ControlPlane
    holders: Holders
    publisher: Publisher
    models: ModelFollower
    followers: dict[str, Follower]
    feed: FeedService
    targets: TargetLoop
    previews: Previews
    content: ContentFollower | None

    def start(self) -> None:
        """Read everything once that can be read at once, then follow it in the background."""
        for name in ("control", "online"):
            self.followers[name].once()  # the first request sees the catalogue, if there is one
        for follower in self.followers.values():
            follower.start()
        self.spool.start()
        self.publisher.start()

    def stop(self) -> None:
        """Send what waits, then let go of everything."""
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

    def health(self) -> Health:
        """How each part was when it was last asked."""
        snapshot, model = self.holders.current, self.models
        parts = {
            name: PartHealth(ok=self.followers[name].ok, detail=self.followers[name].error or "answers")
            for name in ("control", "online", "stream", "engine")
        }
        spool = self.spool.state()
        why = f": {spool.fault}" if spool.fault else ""
        parts["spool"] = PartHealth(ok=not why, detail=f"{spool.records:,} events wait{why}")
        standstill = self.watch.standstill
        parts["worker"] = PartHealth(ok=not standstill, detail=standstill or "gets on")
        if (fault := self.viewers.fault) is not None:
            parts["online"] = PartHealth(ok=False, detail=f"pages go on without it: {fault}")
        version = snapshot.model.bundle.version if snapshot.model else None
        parts["model"] = PartHealth(
            ok=version is not None and model.refused is None,
            detail=model.refused or self.followers["model"].error or (f"serves {version}" if version else "none yet"),
            version=version,
        )
        parts["catalogue"] = PartHealth(
            ok=len(snapshot.catalog) > 0, detail=f"{len(snapshot.catalog):,} items at revision {snapshot.revision}"
        )
        pursued, silent = self.followers["targets"], "; ".join(self.targets.silent())
        detail = silent or pursued.error or f"{len(self.targets.running)} pursued"
        parts["targets"] = PartHealth(ok=pursued.ok and not silent, detail=detail)
        if self.content is not None:
            waiting, refused = self.content.vectors.waiting, len(self.content.vectors.refused)
            detail = self.followers["content"].error or f"{waiting:,} items wait for a text vector, {refused:,} refused"
            parts["content"] = PartHealth(ok=self.followers["content"].ok, detail=detail)
        faults = "; ".join(f"{outlet}: {why}" for outlet, why in sorted(snapshot.faults.items()))
        parts["policies"] = PartHealth(ok=not faults, detail=faults or "all in force")
        if snapshot.revision < 0 or not parts["engine"].ok:
            status = "not ready"
        else:
            status = "ready" if all(part.ok for part in parts.values()) else "degraded"
        return Health.model_validate({"status": status, "parts": parts})


def build(
    settings: Settings,
    *,
    stream: Stream | None = None,
    spool: Callable[[Callable[[Mapping[int, int]], object]], Spool] | None = None,
    online: OnlineStore | None = None,
    control: ControlPlane | None = None,
    clock: Callable[[], float] = time.time,
    engine: Engine | None = None,
) -> FastAPI:
    """The service. What is handed in is used as it is; everything else comes from the settings' URLs.

    spool   makes one, given whom to tell of deliveries (as `open_spool` is)
    """
    metrics = Metrics()
    stream = stream or open_stream(settings.stream_url, partitions=settings.partitions)
    online, viewers = _stores(settings.online_url) if online is None else (online, GuardedStore(online))
    prepare: Callable[[], None] = lambda: None  # noqa: E731
    if control is None:
        database = connect(settings.control_url)
        control = ControlPlane(database, clock)

        def prepare() -> None:
            """Migrate when the database first answers, so that a process may start before its database does."""
            with answering():
                migrate(database)

    tokens = Tokens(settings.secret.encode() or home_secret(settings.home))
    engine = engine or Engine(
        columns=columns,
        candidates=settings.candidates,
        solve_s=settings.solve_ms / 1000,
        clock=time.perf_counter,
    )
    unreadable = Unreadable(lambda kind: metrics.unreadable.labels(kind).inc())
    holders = Holders(control, online, clock, metrics, prepare, unreadable)
    encoder = open_encoder(settings.encoder)
    content = None if encoder is None else ContentFollower(_vectors(settings, encoder), holders)
    models = ModelFollower(
        settings.registry_uri,
        settings.model,
        settings.alias,
        FEATURES,
        holders.take_model,
        lambda: encoder.name if encoder else "",
    )
    watch = Watch(stream, settings.topic, settings.group, lambda why: _lost(waiting, metrics))
    waiting = spool(watch.saw) if spool else _spool(settings, stream, watch)
    publisher = Publisher(waiting, metrics.lost.inc)
    live = LiveMeasures(holders, metrics, clock)
    feed = FeedService(
        engine,
        holders,
        viewers,
        publisher,
        tokens,
        metrics,
        clock,
        live.note,
        viewer_ttl_s=settings.viewer_ttl_days * DAY_S,
        unreadable=unreadable,
    )
    ingest = Ingest(waiting, control, tokens, metrics, clock, lambda: holders.current.catalog.row_of)
    loop = TargetLoop(holders, online, _sources(stream, settings.topic, online), clock, metrics, control.revision)
    desk = PolicyDesk(control, holders, clock, loop.foresee, live.worth)
    log = EventLog(settings.event_log_dir)
    requests = Requests(log, online, feed.lately, unreadable=unreadable)
    trial = Previews(engine, holders, requests, Crew(), clock)
    followers = {
        "control": Follower("control", holders.follow_control, settings.poll_ms / 1000),
        "online": Follower("online", holders.follow_stats, STATS_EVERY_S, STATS_SHARE),
        "measures": Follower("measures", live.step, MEASURE_EVERY_S, MEASURE_SHARE),
        "requests": Follower("requests", feed.lately, LETTERS_EVERY_S),  # old ones leave
        "stream": Follower("stream", _watched(watch, waiting, stream, settings.topic, metrics), STREAM_EVERY_S),
        "letters": Follower("letters", _counted(LetterCount(stream, settings.topic), metrics), LETTERS_EVERY_S),
        "aside": Follower("aside", lambda: metrics.damaged.set(sum(1 for _ in aside(online))), LETTERS_EVERY_S),
        "targets": Follower("targets", loop.step, TARGETS_EVERY_S),
        "engine": Follower("engine", warm, threading.TIMEOUT_MAX),  # once: no page waits for a compiler
        "model": Follower("model", models.step, max(MODEL_EVERY_S, settings.poll_ms / 1000)),
    }
    if content is not None:
        followers["content"] = Follower("content", content.step, CONTENT_EVERY_S)
    if settings.changes:
        outbox = Changes(control, stream, settings.topic, f"{settings.home}/changes", clock)
        followers["changes"] = Follower("changes", outbox.step, CHANGES_EVERY_S)
    remembered = (stream, waiting, watch, online, viewers, control)
    parts = Parts(settings, *remembered, holders, publisher, models, followers, feed, loop, trial, content)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        parts.start()
        yield
        parts.stop()
        metrics.close()

    app = FastAPIOffline(title="Mainstay", version=VERSION, description=DESCRIPTION, lifespan=lifespan)
    app.state.parts = parts
    problems.install(app)
    for router in (
        feeds.routes(feed, settings.admin_token),
        events.routes(ingest),
        items.routes(control, ingest, settings.admin_token),
        policies.routes(desk, control, settings.admin_token),
        targets.routes(TargetDesk(loop, control, desk), settings.admin_token),
        viewer_routes.routes(
            log,
            online,
            clock,
            settings.admin_token,
            settings.host in LOOPBACK,
            stream,
            settings.topic,
            settings.group,
            (feed.forget, live.forget),
        ),
        previews.routes(desk, trial, settings.admin_token),
        profile_routes.routes(ready_profiles()),
        root.routes(),
        vocabulary_routes.routes(lambda: holders.current.catalog),
        model_routes.routes(lambda: holders.current.model),
        health.routes(parts.health),
        metrics_routes.routes(metrics),
        console_routes(online, settings.admin_token, unreadable),
    ):
        app.include_router(router)
    return app


def _stores(url: str) -> tuple[OnlineStore, GuardedStore]:
    """The online store for what can wait, and for pages; a store in memory is one and the same."""
    patient = open_online(url, STORE_TIMEOUT_S)
    quick = patient if isinstance(patient, MemoryStore) else open_online(url)
    return patient, GuardedStore(quick)


def _vectors(settings: Settings, encoder: Encoder) -> Vectors:
    """The keeper of text vectors."""
    kept = open_online(settings.vectors_url, STORE_TIMEOUT_S)
    return Vectors(encoder, kept, "" if isinstance(kept, MemoryStore) else lock_of(settings))


def _sources(stream: Stream, topic: str, online: OnlineStore) -> Callable[[], list[str]]:
    """What states call the partitions of the log and of those that stood in its place before. The number of partitions
    is asked for once: it does not change while a process runs."""
    partitions: list[int] = []

    def sources() -> list[str]:
        if not partitions:
            partitions.append(stream.partitions(topic))
        return sources_of(online, topic, partitions[0])

    return sources


def _watched(watch: Watch, spool: Spool, stream: Stream, topic: str, metrics: Metrics) -> Callable[[], None]:
    """A step that sees whether the stream answers, has its log, and is worked on; its figures."""

    def step() -> None:
        state = spool.state()
        metrics.spool_records.set(state.records)
        metrics.spool_bytes.set(state.size)
        stream.partitions(topic)
        try:
            watch.step()
        finally:
            metrics.stalled.set(len(watch.stalled))

    return step


def _spool(settings: Settings, stream: Stream, watch: Watch) -> Spool:
    return open_spool(
        settings.stream_url,
        stream,
        settings.topic,
        directory=settings.spool_dir,
        limit_bytes=settings.spool_mb << 20,
        on_delivered=watch.saw,
    )


def _lost(spool: Spool, metrics: Metrics) -> None:
    metrics.stream_losses.inc()
    spool.redeliver()


def _counted(letters: LetterCount, metrics: Metrics) -> Callable[[], None]:
    return lambda: metrics.dead_letters.set(letters.look())
