"""The composition root of the HTTP service: it creates all services from the settings and wires them into an app."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from features.columns import FEATURES, columns
from features.control.audit_trail import AuditSigner
from features.control.connect import audit_key_of, checkpoint_of, connect, migrate
from features.control.plane import ControlPlane
from features.control.transactions import Database, map_db_errors
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
from recsys.domain.query import Query
from recsys.domain.viewer import ViewerState
from recsys.page import Page
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
from serving.pages.source_limits import SourceLimits
from serving.pollers import build_pollers
from serving.prometheus import Metrics
from serving.schemas import problems
from serving.schemas.tokens import Tokens, home_secret
from serving.services import Services
from serving.snapshot.embedding_refresher import EmbeddingPoller
from serving.snapshot.holders import SnapshotHolder
from serving.snapshot.model_loader import ModelPoller
from serving.snapshot.model_trial import ModelTrial
from serving.snapshot.model_watch import ModelWatch
from serving.snapshot.profiles import ready_profiles
from serving.viewer_data import ViewerData

VERSION = "0.1.0"
STORE_TIMEOUT_S = 1.0
"""Timeout of the online store for pollers, previews and the console. Pages use a much shorter one."""

DESCRIPTION = """Mainstay recommends pages of items for every screen, applies the editorial policy of each outlet, and
returns a receipt with every page.

Errors are RFC 9457 problem details. Times are in UTC, formatted as RFC 3339. Ids are opaque strings. The console for
editors is at `/console`."""

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

OnPage = Callable[[Query, Page, ViewerState | None], None]
"""A function that is called for every page that is served."""

OpenSpool = Callable[[Callable[[Mapping[int, int]], object]], Spool]
"""A factory of a spool. Its argument is the callback for delivered offsets."""


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
    """Return the app. Dependencies that are not passed are created from the settings."""
    metrics = Metrics()
    stream = stream or open_stream(settings.stream_url, partitions=settings.partitions)
    online, page_store = _stores(settings.online_url) if online is None else (online, BreakerStore(online))
    control, prepare = (control, _skip_migration) if control else _control_plane(settings, clock)
    corrupt_states = CorruptStateCounter(lambda kind: metrics.corrupt_states.labels(kind).inc())
    holders = SnapshotHolder(control, online, clock, metrics, prepare, corrupt_states)
    watchdog, event_spool = _open_spool(settings, stream, spool, metrics)
    engine, tokens = engine or _engine(settings), Tokens(settings.secret.encode() or home_secret(settings.home))
    publisher = ImpressionPublisher(event_spool, metrics.impressions_dropped.inc)
    live, watch = LiveMetrics(holders, metrics, clock), ModelWatch(lambda: holders.current.closed)
    pages = PageService(
        engine, holders, page_store, publisher, tokens, metrics, clock, _each(live.record, watch.record),
        viewer_ttl_s=settings.viewer_ttl_days * DAY_S, unreadable=corrupt_states,
    )  # fmt: skip
    loop = PacingLoop(holders, online, _sources(stream, settings.topic, online), clock, metrics, control.revision)
    policy_service = _policy_service(settings, control, holders, clock, loop, live)
    log, trial = EventLog(settings.event_log_dir), ModelTrial(engine, holders, online, clock, corrupt_states)
    requests = RequestLog(log, online, pages.recent_queries, unreadable=corrupt_states)
    model_poller, embedding_poller = _artifact_pollers(settings, holders, trial, watch)
    services = Services(
        settings=settings,
        clock=clock,
        metrics=metrics,
        tokens=tokens,
        stream=stream,
        spool=event_spool,
        watchdog=watchdog,
        online=online,
        viewers=page_store,
        event_log=log,
        control=control,
        holders=holders,
        corrupt_states=corrupt_states,
        publisher=publisher,
        live_metrics=live,
        model_poller=model_poller,
        embedding_poller=embedding_poller,
        pages=pages,
        event_intake=_event_intake(settings, event_spool, control, tokens, metrics, clock, holders),
        targets=loop,
        policy_service=policy_service,
        target_service=TargetService(loop, control, policy_service),
        previews=PreviewService(engine, holders, requests, PreviewPool(), clock),
        viewer_data=_viewer_data(settings, log, online, stream, clock, (pages.forget_viewer, live.forget)),
        profiles=ready_profiles(),
    )
    services.pollers.update(build_pollers(services))
    return create_app(services)


def create_app(services: Services) -> FastAPI:
    """Return an app for these services. Its lifespan starts and stops them."""

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


def _each(*records: OnPage) -> OnPage:
    """Return a function that passes a page to each of these."""

    def record(query: Query, page: Page, viewer: ViewerState | None) -> None:
        for function in records:
            function(query, page, viewer)

    return record


def _skip_migration() -> None:
    """Do nothing. A control plane that is passed to `build` already has its tables."""


def _control_plane(settings: Settings, clock: Callable[[], float]) -> tuple[ControlPlane, Callable[[], None]]:
    """Return the control plane and a function that migrates its database.

    The function is called when the database first responds, so that a process can start before its database does.
    """
    database = Database(connect(settings.control_url), AuditSigner(audit_key_of(settings)), checkpoint_of(settings))

    def prepare() -> None:
        with map_db_errors(database.engine):
            migrate(database)

    return ControlPlane(database, clock), prepare


def _engine(settings: Settings) -> Engine:
    """Return the recommendation engine."""
    return Engine(
        columns=columns,
        candidates=settings.candidates,
        solve_s=settings.solve_ms / 1000,
        budget_s=settings.page_budget_ms / 1000,
        clock=time.thread_time,
    )


def _policy_service(
    settings: Settings,
    control: ControlPlane,
    holders: SnapshotHolder,
    clock: Callable[[], float],
    loop: PacingLoop,
    live: LiveMetrics,
) -> PolicyService:
    """Return the service of policies, which refuses those whose pages exceed the budget of a page."""
    page_work = 1e3 * settings.page_budget_ms
    return PolicyService(control, holders, clock, loop.forecast_findings, live.utility_value, page_work)


def _event_intake(
    settings: Settings,
    spool: Spool,
    control: ControlPlane,
    tokens: Tokens,
    metrics: Metrics,
    clock: Callable[[], float],
    holders: SnapshotHolder,
) -> EventIntake:
    """Return the intake of viewer events and items, which checks item ids against the current catalog."""
    limits = SourceLimits(settings.viewers_per_source)
    return EventIntake(
        spool, control, tokens, metrics, clock, lambda: holders.current.catalog.row_of, limits,
        lambda: holders.current.catalog,
    )  # fmt: skip


def _viewer_data(
    settings: Settings,
    log: EventLog,
    online: OnlineStore,
    stream: Stream,
    clock: Callable[[], float],
    on_erased: tuple[Callable[[str], None], ...],
) -> ViewerData:
    """Return the service that exports and erases the data of a viewer."""
    return ViewerData(log, online, stream, settings.topic, settings.group, clock, on_erased)


def _artifact_pollers(
    settings: Settings, holders: SnapshotHolder, trial: ModelTrial, watch: ModelWatch
) -> tuple[ModelPoller, EmbeddingPoller | None]:
    """Return the pollers of models and of text vectors; the latter is None if no encoder is configured."""
    encoder = open_encoder(settings.encoder)
    embeddings = None if encoder is None else EmbeddingPoller(_embedding_refresher(settings, encoder), holders)
    models = ModelPoller(
        settings.registry_uri,
        settings.model,
        settings.alias,
        FEATURES,
        holders.set_model,
        lambda: encoder.name if encoder else "",
        trial.fault,
        watch,
    )
    return models, embeddings


def _open_spool(
    settings: Settings, stream: Stream, spool: OpenSpool | None, metrics: Metrics
) -> tuple[LogWatchdog, Spool]:
    """Return the watchdog of the stream and the spool. If the log is lost, the spool sends its events again."""

    def on_loss(reason: str) -> None:
        metrics.stream_losses.inc()
        event_spool.redeliver()

    watchdog = LogWatchdog(stream, settings.topic, settings.group, on_loss)
    event_spool = (
        spool(watchdog.record_acked)
        if spool
        else open_spool(
            settings.stream_url,
            stream,
            settings.topic,
            directory=settings.spool_dir,
            limit_bytes=settings.spool_mb << 20,
            on_delivered=watchdog.record_acked,
        )
    )
    return watchdog, event_spool


def _stores(url: str) -> tuple[OnlineStore, BreakerStore]:
    """Return the online store for background work and the one for pages. An in-memory store is shared by both."""
    background_store = open_online(url, STORE_TIMEOUT_S)
    page_store = background_store if isinstance(background_store, MemoryStore) else open_online(url)
    return background_store, BreakerStore(page_store)


def _embedding_refresher(settings: Settings, encoder: Encoder) -> EmbeddingRefresher:
    """Return the refresher of text vectors, with the store that caches them."""
    store = open_online(settings.vectors_url, STORE_TIMEOUT_S)
    return EmbeddingRefresher(encoder, store, "" if isinstance(store, MemoryStore) else encoder_lock_path(settings))


def _sources(stream: Stream, topic: str, online: OnlineStore) -> Callable[[], list[str]]:
    """Return a function that lists the partitions of all log epochs, by the names that states use.

    The number of partitions is read from the stream once, because it does not change while a process runs.
    """
    partitions: list[int] = []

    def sources() -> list[str]:
        if not partitions:
            partitions.append(stream.partitions(topic))
        return epoch_partitions(online, topic, partitions[0])

    return sources
