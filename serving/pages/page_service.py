"""One page for one request: read the viewer and the snapshot once, run the engine, sign the tokens of the answer."""

from __future__ import annotations

import logging
import time
import zlib
from base64 import b64encode
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from uuid import uuid4

from pydantic import JsonValue

from features.events.decode import encode
from features.events.schema import ViewerEvent
from features.events.stream.port import Record
from features.lineage import FeatureLineage, lineage_of
from features.state.codec import StateError, viewer_at, viewer_key
from features.state.online.port import OnlineStore
from features.state.quarantine import CorruptStateCounter
from recsys.distribution.layouts import default_slots, screen_layout
from recsys.domain.decay import TTL_S
from recsys.domain.errors import NotFound, Unavailable
from recsys.domain.item_statistics import ItemStats
from recsys.domain.placement import Placement
from recsys.domain.query import Query
from recsys.domain.regions import region_of
from recsys.domain.viewer import ViewerState, unexpired
from recsys.guidance.compilation.compile import compile_policy
from recsys.messages import message
from recsys.page import Page
from recsys.pipeline import UNGUIDED_ERROR, Engine
from recsys.snapshot import ServingSnapshot
from serving.pages.impression_publisher import ImpressionPublisher
from serving.prometheus import Metrics
from serving.schemas.resources import PageAnswer, PageRequest, Slot, SlotDetail, StageOut, rfc3339
from serving.schemas.tokens import Attribution, PageToken, Tokens
from serving.snapshot.holders import Snapshot, SnapshotHolder

log = logging.getLogger("mainstay.serving")

AGE_BUCKETS = 21
"""Maximum age stored in an impression; no age rating of an item is higher."""

QUERIES_MAX = 2_000
"""Maximum number of recent requests kept in memory for previews without an event log."""

QUERIES_TTL_S = 86_400.0
"""How long a request stays in memory, in seconds: bounds how long a viewer erased by another process is kept."""


@dataclass(frozen=True)
class PageService:
    """A service that answers page requests.

    Relevance falls back level by level; guidance and eligibility apply on every level.

    viewer_ttl_s  viewers idle for longer are treated as new, in seconds
    """

    engine: Engine
    holders: SnapshotHolder
    online: OnlineStore
    publisher: ImpressionPublisher
    tokens: Tokens
    metrics: Metrics
    clock: Callable[[], float]
    on_page: Callable[[Query, Page, ViewerState | None], None] = lambda query, page, viewer: None
    queries: deque[Query] = field(default_factory=lambda: deque(maxlen=QUERIES_MAX))
    viewer_ttl_s: float = TTL_S
    unreadable: CorruptStateCounter = field(default_factory=CorruptStateCounter)

    def recommend(self, placement_id: str, request: PageRequest) -> PageAnswer:
        """Return a page. Raises NotFound for an unknown placement, PageTokenError for a token of another session."""
        start = time.perf_counter()
        placement, now = Placement.parse(placement_id), self.clock()
        snapshot = self.holders.current
        query = self._query(placement, request, now)
        serving_snapshot, degraded = _serving_snapshot(snapshot, placement.outlet)
        viewer = None
        if request.personalised:
            viewer = unexpired(self._viewer(request.viewer_id, degraded), now, self.viewer_ttl_s)
        page = self._page(query, viewer, serving_snapshot, degraded)
        if fault := next((stage.error for stage in page.trace if (stage.error or "").startswith(UNGUIDED_ERROR)), None):
            log.error("guidance failed on the page of request %s at %s: %s", query.request_id, placement.id, fault)
            degraded.append("policy")
        answer = self._answer(request, query, page, snapshot, degraded)
        if not request.preview:
            self._count(query, page, degraded, time.perf_counter() - start)
            if page.items:
                self.queries.append(query)
                self.on_page(query, page, viewer)
                lineage = lineage_of(page, viewer, serving_snapshot.stats) if page.features.size else None
                self.publisher.send(partial(_impression, query, page, lineage))
        return answer

    def recent_queries(self) -> tuple[Query, ...]:
        """Return the recent requests; drop those older than QUERIES_TTL_S."""
        with suppress(IndexError):  # another thread may drop the last entry at the same moment
            while self.queries[0].now < self.clock() - QUERIES_TTL_S:
                self.queries.popleft()
        return tuple(self.queries)

    def forget_viewer(self, viewer_id: str) -> None:
        """Drop the recent requests of a viewer; a request recorded at the same moment may be lost as well."""
        remaining = [query for query in tuple(self.queries) if query.viewer_id != viewer_id]
        self.queries.clear()
        self.queries.extend(remaining)

    def _query(self, placement: Placement, request: PageRequest, now: float) -> Query:
        shown: tuple[str, ...] = ()
        shown_before = b""
        request_id = uuid4().hex
        seed = zlib.crc32(request_id.encode()) >> 1 if request.seed is None else request.seed
        if request.page_token is not None:
            session = self.tokens.read_page_token(
                request.page_token, placement=placement.id, viewer_id=request.viewer_id, now=now
            )
            shown, shown_before, seed = session.shown, session.shown_before, session.seed
        return Query(
            request_id=request_id,
            viewer_id=request.viewer_id,
            placement=placement,
            region=request.region or region_of(placement.outlet),  # outlet codes begin with the code of their region
            now=now,
            slots=request.slots or default_slots(placement.screen, placement.surface),
            seed=seed,
            age=request.age,
            personalised=request.personalised,
            guided=request.guided,
            shown=shown,
            shown_before=shown_before,
        )

    def _viewer(self, viewer_id: str, degraded: list[str]) -> ViewerState | None:
        """Return the state of the viewer; None for a new viewer or when the store does not answer."""
        key = viewer_key(viewer_id)
        try:
            raw = self.online.get([key])[0]
            return None if raw is None else viewer_at(key, raw)
        except Unavailable:  # not logged here: the circuit breaker logs an outage once
            degraded.append("online")
            return None
        except StateError as error:
            self.unreadable.record(key, error)
            degraded.append("online")
            return None

    def _page(self, query: Query, viewer: ViewerState | None, snapshot: ServingSnapshot, degraded: list[str]) -> Page:
        """Run the engine; when it fails with the model, run it without model and viewer."""
        try:
            return self.engine.run(query, viewer, snapshot)
        except Exception:
            if snapshot.model is None:
                raise
            log.exception("page of request %s failed; retrying without the model", query.request_id)
        degraded.append("model")
        without_model = replace(
            ServingSnapshot.of(snapshot.catalog, snapshot.stats, None, snapshot.policy), prices=snapshot.prices
        )
        return self.engine.run(query, None, without_model)

    def _answer(
        self, request: PageRequest, query: Query, page: Page, snapshot: Snapshot, degraded: list[str]
    ) -> PageAnswer:
        placement, items = query.placement.id, snapshot.catalog.items
        page_token = None
        if len(page.items) == query.slots:
            shown, shown_before = query.after((slot.item_id for slot in page.items), snapshot.catalog)
            page_token = self.tokens.write_page_token(
                PageToken(placement, query.viewer_id, shown, query.seed, query.now, shown_before)
            )
        slots = [
            Slot.model_construct(
                slot=slot.slot,
                item=items[slot.row],
                reasons=slot.reasons,
                control_ids=slot.control_ids,
                detail=SlotDetail(utility=slot.utility, bonus=slot.bonus, p=dict(slot.p), sources=slot.sources)
                if request.trace
                else None,
            )
            for slot in page.items
        ]
        return PageAnswer.model_construct(  # built from trusted parts: no validation needed
            request_id=query.request_id,
            placement=placement,
            at=rfc3339(query.now),
            fallback_level=page.fallback_level.value,
            items=slots,
            next_page_token=page_token,
            attribution_token=self.tokens.write_attribution(
                Attribution(query.request_id, placement, query.viewer_id, query.now)
            ),
            model_version=page.model_version,
            policy_version=page.policy_version,
            degraded_parts=degraded,
            receipt=page.receipt,
            trace=[
                StageOut(
                    name=s.name,
                    candidates_in=s.candidates_in,
                    candidates_out=s.candidates_out,
                    dropped=dict(s.dropped),
                    error=s.error,
                )
                for s in page.trace
            ]
            if request.trace
            else None,
        )

    def _count(self, query: Query, page: Page, degraded: list[str], elapsed_s: float) -> None:
        screen = query.placement.screen.value
        self.metrics.page_s.labels(screen).observe(elapsed_s)
        self.metrics.pages.labels(page.fallback_level.value, screen).inc()
        for part in degraded:
            self.metrics.degraded_parts.labels(part).inc()
        for control in page.receipt.controls:
            self.metrics.controls.labels(query.placement.outlet, control.id, control.status).inc()


def _serving_snapshot(snapshot: Snapshot, outlet: str) -> tuple[ServingSnapshot, list[str]]:
    """Return the snapshot for pages of an outlet, and the names of its degraded parts."""
    if snapshot.revision < 0:
        # The control plane was never read: answer an empty page with degraded parts rather than an error.
        return ServingSnapshot.of(snapshot.catalog, ItemStats.empty(0), None, compile_policy((), snapshot.catalog)), [
            "control",
            "model",
        ]
    serving_snapshot = snapshot.serving_snapshots.get(outlet)
    if serving_snapshot is None:
        raise NotFound(message("outlet_not_found", outlet=outlet))
    degraded = [] if snapshot.model else ["model"]
    return serving_snapshot, degraded + (["policy"] if outlet in snapshot.closed else [])


def _control_outcomes(page: Page) -> list[JsonValue]:
    """Return the outcome of each control: id, status, slots by which it was relaxed, price in play equivalents."""
    price = {entry.control_id: round(entry.play_equivalents, 6) for entry in page.receipt.price}
    return [[line.id, line.status, line.slack, price.get(line.id, 0.0)] for line in page.receipt.controls]


def _impression(query: Query, page: Page, lineage: FeatureLineage | None) -> Record:
    """Return the page as an impression event with everything that training, audits and previews need."""
    context: dict[str, JsonValue] = {
        "seed": query.seed,
        "fallback_level": page.fallback_level.value,
        "model_version": page.model_version,
        "policy_version": page.policy_version,
        "personalised": query.personalised,
        "guided": query.guided,
        "propensity": 1.0,  # pages are deterministic given their inputs
        "slots": query.slots,  # slots, age and shown let a replay repeat the request
        "age": None if query.age is None else min(query.age, AGE_BUCKETS),
        "shown": list(query.shown),
        "shown_before": b64encode(query.shown_before).decode(),
        "controls": _control_outcomes(page),
        "engagement": page.engagement,
        "unguided": page.unguided,
        "features": b64encode(page.features.tobytes()).decode(),
        "feature_shape": list(page.features.shape),
    }
    if lineage is not None:
        context["as_of"] = lineage.to_json()
    if page.delivered:
        context["targets"] = {key: list(credit) for key, credit in page.delivered.items()}
    attention = screen_layout(query.placement.screen).attention(query.slots)[: len(page.items)]
    event = ViewerEvent(
        id=f"page-{uuid4().hex}",  # random: a guessed id would make the impression look like a duplicate
        kind="impression",
        viewer_id=query.viewer_id,
        at=query.now,
        screen=query.placement.screen,
        region=query.region,
        placement=query.placement.id,
        request_id=query.request_id,
        items=tuple(slot.item_id for slot in page.items),
        attention=tuple(attention.tolist()),
        context=context,
    )
    return Record(query.viewer_id, encode(event))
