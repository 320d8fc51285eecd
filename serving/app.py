"""The composition root of serving: the only module that knows which services an app is wired from."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from features.columns import FEATURES, columns
from features.control.connect import connect, migrate
from features.control.plane import ControlPlane
from features.control.transactions import map_db_errors
from features.embeddings.connect import encoder_lock_path, open_encoder
from features.embeddings.encoder import Encoder
from features.embeddings.refresh import EmbeddingRefresher
from features.events.spool.connect import open_spool
from features.events.spool.port import Spool
from features.events.stream.connect import open_stream
from features.events.stream.port import Stream
from features.events.stream.watchdog import LogWatchdog
from features.history.event_log import EventLog
from features.history.log_epochs import epoch_partitions
from features.settings import Settings
from features.state.online.connect import open_online
from features.state.online.guarded import BreakerStore
from features.state.online.memory import MemoryStore
from features.state.online.port import OnlineStore
from features.state.quarantine import CorruptStateCounter
from recsys.domain.decay import DAY_S
from recsys.pipeline import Engine
from serving.api.routes import (
    events,
    feeds,
    health,
    items,
    metrics,
    model,
    policies,
    previews,
    profiles,
    root,
    targets,
    viewers,
    vocabulary,
)
from serving.console import routes as console
from serving.editorial.pacing_loop import PacingLoop
from serving.editorial.policy_service import PolicyService
from serving.editorial.preview.requests import RequestLog
from serving.editorial.preview.service import PreviewService
from serving.editorial.preview.worker_pool import PreviewPool
from serving.editorial.target_service import TargetService
from serving.pages.event_intake import EventIntake
from serving.pages.impression_publisher import ImpressionPublisher
from serving.pages.live_metrics import LiveMetrics
from serving.pages.page_service import PageService
from serving.pollers import build_pollers
from serving.prometheus import Metrics
from serving.schemas import problems
from serving.schemas.tokens import Tokens, home_secret
from serving.services import Services
from serving.snapshot.embedding_refresher import EmbeddingPoller
from serving.snapshot.holders import SnapshotHolder
from serving.snapshot.model_loader import ModelPoller
from serving.snapshot.profiles import ready_profiles
from serving.viewer_data import ViewerData

VERSION = "0.1.0"
STORE_TIMEOUT_S = 1.0
"""Time limit of the online store for pollers, previews and the console; the limit for a page is a twentieth of it."""

DESCRIPTION = """Pages for every screen, held to what editors stand for, each with a receipt.

Errors are RFC 9457 problem details. Times are RFC 3339 UTC. Ids are opaque. The editors' console is at `/console`."""

ROUTERS = (
    feeds.router,
    events.router,
    items.router,
    policies.router,
    targets.router,
    viewers.router,
    previews.router,
    profiles.router,
    root.router,
    vocabulary.router,
    health.router,
    metrics.router,
    model.router,
    console.router,
)

OpenSpool = Callable[[Callable[[Mapping[int, int]], object]], Spool]
"""Opens a spool, given the callback for delivered offsets."""


def build(
    settings: Settings,
    *,
    stream: Stream | None = None,
    spool: OpenSpool | None = None,
    online: OnlineStore | None = None,
    control: ControlPlane | None = None,
    clock: Callable[[], float] = time.time,
    engine: Engine | None = None,
) -> FastAPI:
    """Return the app. Arguments that are given are used as they are; the settings say how to make all others."""
    meters = Metrics()
    stream = stream or open_stream(settings.stream_url, partitions=settings.partitions)
    online, page_store = _stores(settings.online_url) if online is None else (online, BreakerStore(online))
    control, prepare = (control, _nothing) if control else _control_plane(settings, clock)
    unreadable = CorruptStateCounter(lambda kind: meters.unreadable.labels(kind).inc())
    holders = SnapshotHolder(control, online, clock, meters, prepare, unreadable)
    watch, waiting = _open_spool(settings, stream, spool, meters)
    tokens = Tokens(settings.secret.encode() or home_secret(settings.home))
    engine = engine or _engine(settings)
    publisher, live = ImpressionPublisher(waiting, meters.lost.inc), LiveMetrics(holders, meters, clock)
    feed = PageService(
        engine, holders, page_store, publisher, tokens, meters, clock, live.record,
        viewer_ttl_s=settings.viewer_ttl_days * DAY_S, unreadable=unreadable,
    )  # fmt: skip
    loop = PacingLoop(holders, online, _sources(stream, settings.topic, online), clock, meters, control.revision)
    desk, log = (
        PolicyService(control, holders, clock, loop.forecast_findings, live.utility_value),
        EventLog(settings.event_log_dir),
    )
    requests = RequestLog(log, online, feed.recent_queries, unreadable=unreadable)
    models, content = _artifacts(settings, holders)
    services = Services(
        settings=settings,
        clock=clock,
        metrics=meters,
        tokens=tokens,
        stream=stream,
        spool=waiting,
        watch=watch,
        online=online,
        viewers=page_store,
        event_log=log,
        control=control,
        holders=holders,
        unreadable=unreadable,
        publisher=publisher,
        live_metrics=live,
        model_poller=models,
        content=content,
        pages=feed,
        event_intake=EventIntake(waiting, control, tokens, meters, clock, lambda: holders.current.catalog.row_of),
        targets=loop,
        policy_service=desk,
        target_service=TargetService(loop, control, desk),
        previews=PreviewService(engine, holders, requests, PreviewPool(), clock),
        viewer_data=ViewerData(
            log, online, stream, settings.topic, settings.group, clock, (feed.forget_viewer, live.forget)
        ),
        profiles=ready_profiles(),
    )
    services.pollers.update(build_pollers(services))
    return create_app(services)


def create_app(services: Services) -> FastAPI:
    """Return the app that answers with these services; it starts and stops them."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        services.start()
        yield
        services.stop()

    app = FastAPIOffline(title="Mainstay", version=VERSION, description=DESCRIPTION, lifespan=lifespan)
    app.state.services = services
    problems.install(app)
    for router in ROUTERS:
        app.include_router(router)
    return app


def _nothing() -> None:
    """Prepare nothing: a control plane that was handed in has its tables."""


def _control_plane(settings: Settings, clock: Callable[[], float]) -> tuple[ControlPlane, Callable[[], None]]:
    """Return the control plane, and a call that migrates its database.

    The call is made once the database first answers, so that a process may start before its database does.
    """
    database = connect(settings.control_url)

    def prepare() -> None:
        with map_db_errors():
            migrate(database)

    return ControlPlane(database, clock), prepare


def _engine(settings: Settings) -> Engine:
    return Engine(
        columns=columns,
        candidates=settings.candidates,
        solve_s=settings.solve_ms / 1000,
        clock=time.perf_counter,
    )


def _artifacts(settings: Settings, holders: SnapshotHolder) -> tuple[ModelPoller, EmbeddingPoller | None]:
    """Return what brings new models, and new text vectors if an encoder is configured, into the snapshot."""
    encoder = open_encoder(settings.encoder)
    content = None if encoder is None else EmbeddingPoller(_vectors(settings, encoder), holders)
    models = ModelPoller(
        settings.registry_uri,
        settings.model,
        settings.alias,
        FEATURES,
        holders.set_model,
        lambda: encoder.name if encoder else "",
    )
    return models, content


def _open_spool(
    settings: Settings, stream: Stream, spool: OpenSpool | None, metrics: Metrics
) -> tuple[LogWatchdog, Spool]:
    """Return the spool and the watchdog of the stream, which has the spool send again what a lost log contained."""

    def on_loss(why: str) -> None:
        metrics.stream_losses.inc()
        waiting.redeliver()

    watch = LogWatchdog(stream, settings.topic, settings.group, on_loss)
    waiting = (
        spool(watch.record_acked)
        if spool
        else open_spool(
            settings.stream_url,
            stream,
            settings.topic,
            directory=settings.spool_dir,
            limit_bytes=settings.spool_mb << 20,
            on_delivered=watch.record_acked,
        )
    )
    return watch, waiting


def _stores(url: str) -> tuple[OnlineStore, BreakerStore]:
    """Return the online store for work that can wait, and for pages; a store in memory serves both."""
    patient = open_online(url, STORE_TIMEOUT_S)
    quick = patient if isinstance(patient, MemoryStore) else open_online(url)
    return patient, BreakerStore(quick)


def _vectors(settings: Settings, encoder: Encoder) -> EmbeddingRefresher:
    """Return the store of text vectors."""
    store = open_online(settings.vectors_url, STORE_TIMEOUT_S)
    return EmbeddingRefresher(encoder, store, "" if isinstance(store, MemoryStore) else encoder_lock_path(settings))


def _sources(stream: Stream, topic: str, online: OnlineStore) -> Callable[[], list[str]]:
    """Return a call that lists the partitions of the log, and of logs it replaced, by the names that states use.

    The stream is asked for its number of partitions once: it does not change while a process runs.
    """
    partitions: list[int] = []

    def sources() -> list[str]:
        if not partitions:
            partitions.append(stream.partitions(topic))
        return epoch_partitions(online, topic, partitions[0])

    return sources
