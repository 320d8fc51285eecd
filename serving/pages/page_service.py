"""One page for one request: reads the viewer once and the world once, asks the engine, signs the answer."""

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
"""An impression keeps a viewer's age no further than ratings of items go."""

QUERIES_MAX = 2_000
"""Latest requests that a process remembers, for previews where no log is at hand."""

QUERIES_TTL_S = 86_400.0
"""And for so long: viewers who are erased by another process leave this one's memory too."""


@dataclass(frozen=True)
class PageService:
    """Makes pages. Relevance falls back level by level; guidance and eligibility apply on every level."""

    engine: Engine
    holders: SnapshotHolder
    online: OnlineStore
    publisher: ImpressionPublisher
    tokens: Tokens
    metrics: Metrics
    clock: Callable[[], float]
    on_page: Callable[[Query, Page, ViewerState | None], None] = lambda query, page, viewer: None
    queries: deque[Query] = field(default_factory=lambda: deque(maxlen=QUERIES_MAX))
    viewer_ttl_s: float = TTL_S  # a viewer who was idle for longer is a stranger
    unreadable: CorruptStateCounter = field(default_factory=CorruptStateCounter)

    def recommend(self, placement_id: str, asked: PageRequest) -> PageAnswer:
        """The page. Raises NotFound for an unknown placement, PageTokenError for a page token of another session."""
        began = time.perf_counter()
        placement, now = Placement.parse(placement_id), self.clock()
        snapshot = self.holders.current
        query = self._query(placement, asked, now)
        world, degraded = _serving_snapshot(snapshot, placement.outlet)
        viewer = None
        if asked.personalised:
            viewer = unexpired(self._viewer(asked.viewer_id, degraded), now, self.viewer_ttl_s)
        page = self._page(query, viewer, world, degraded)
        if fault := next((stage.error for stage in page.trace if (stage.error or "").startswith(UNGUIDED_ERROR)), None):
            log.error("page of request %s at %s: %s", query.request_id, placement.id, fault)
            degraded.append("policy")
        answer = self._answer(asked, query, page, snapshot, degraded)
        if not asked.preview:
            self._count(query, page, degraded, time.perf_counter() - began)
            if page.items:
                self.queries.append(query)
                self.on_page(query, page, viewer)
                knew = lineage_of(page, viewer, world.stats) if page.features.size else None
                self.publisher.send(partial(_impression, query, page, knew))
        return answer

    def recent_queries(self) -> tuple[Query, ...]:
        """The latest requests; what is older than QUERIES_KEPT_S leaves."""
        with suppress(IndexError):  # two threads may look at once
            while self.queries[0].now < self.clock() - QUERIES_TTL_S:
                self.queries.popleft()
        return tuple(self.queries)

    def forget_viewer(self, viewer_id: str) -> None:
        """Remember no request of this viewer; one that others make meanwhile may be forgotten as well."""
        others = [query for query in tuple(self.queries) if query.viewer_id != viewer_id]
        self.queries.clear()
        self.queries.extend(others)

    def _query(self, placement: Placement, asked: PageRequest, now: float) -> Query:
        shown: tuple[str, ...] = ()
        request_id = uuid4().hex
        seed = zlib.crc32(request_id.encode()) >> 1 if asked.seed is None else asked.seed
        if asked.page_token is not None:
            session = self.tokens.read_page_token(
                asked.page_token, placement=placement.id, viewer_id=asked.viewer_id, now=now
            )
            shown, seed = session.shown, session.seed
        return Query(
            request_id=request_id,
            viewer_id=asked.viewer_id,
            placement=placement,
            region=asked.region or region_of(placement.outlet),  # outlets are named after their places
            now=now,
            slots=asked.slots or default_slots(placement.screen, placement.surface),
            seed=seed,
            age=asked.age,
            personalised=asked.personalised,
            guided=asked.guided,
            shown=shown,
        )

    def _viewer(self, viewer_id: str, degraded: list[str]) -> ViewerState | None:
        """What is remembered of the viewer; None for a stranger, and when the store does not answer."""
        key = viewer_key(viewer_id)
        try:
            raw = self.online.get([key])[0]
            return None if raw is None else viewer_at(key, raw)
        except Unavailable:  # who guards the store says so once, not once a page
            degraded.append("online")
            return None
        except StateError as error:
            self.unreadable.record(key, error)
            degraded.append("online")
            return None

    def _page(self, query: Query, viewer: ViewerState | None, world: ServingSnapshot, degraded: list[str]) -> Page:
        """The best page there is; a model that breaks the engine costs the personal level, not the page."""
        try:
            return self.engine.run(query, viewer, world)
        except Exception:
            if world.model is None:
                raise
            log.exception("the page of request %s failed; trying without the model", query.request_id)
        degraded.append("model")
        bare = replace(ServingSnapshot.of(world.catalog, world.stats, None, world.policy), prices=world.prices)
        return self.engine.run(query, None, bare)

    def _answer(
        self, asked: PageRequest, query: Query, page: Page, snapshot: Snapshot, degraded: list[str]
    ) -> PageAnswer:
        placement, items = query.placement.id, snapshot.catalog.items
        page_token = None
        if len(page.items) == query.slots:
            shown = (*query.shown, *(slot.item_id for slot in page.items))
            page_token = self.tokens.write_page_token(
                PageToken(placement, query.viewer_id, shown, query.seed, query.now)
            )
        slots = [
            Slot.model_construct(
                slot=slot.slot,
                item=items[slot.row],
                reasons=slot.reasons,
                control_ids=slot.control_ids,
                detail=SlotDetail(utility=slot.utility, bonus=slot.bonus, p=dict(slot.p), sources=slot.sources)
                if asked.trace
                else None,
            )
            for slot in page.items
        ]
        return PageAnswer.model_construct(  # made of our own parts: nothing to validate
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
            if asked.trace
            else None,
        )

    def _count(self, query: Query, page: Page, degraded: list[str], took_s: float) -> None:
        screen = query.placement.screen.value
        self.metrics.page_s.labels(screen).observe(took_s)
        self.metrics.pages.labels(page.fallback_level.value, screen).inc()
        for part in degraded:
            self.metrics.degraded_parts.labels(part).inc()
        for control in page.receipt.controls:
            self.metrics.controls.labels(query.placement.outlet, control.id, control.status).inc()


def _serving_snapshot(snapshot: Snapshot, outlet: str) -> tuple[ServingSnapshot, list[str]]:
    """What pages of this outlet are made from, and which parts are not what they should be."""
    if snapshot.revision < 0:
        # Nothing was ever read: no catalogue, so an empty page that says so, rather than an error on a screen.
        return ServingSnapshot.of(snapshot.catalog, ItemStats.empty(0), None, compile_policy((), snapshot.catalog)), [
            "control",
            "model",
        ]
    world = snapshot.serving_snapshots.get(outlet)
    if world is None:
        raise NotFound(message("outlet_not_found", outlet=outlet))
    degraded = [] if snapshot.model else ["model"]
    return world, degraded + (["policy"] if outlet in snapshot.closed else [])


def _control_outcomes(page: Page) -> list[JsonValue]:
    """What became of each control: id, status, slots it gave way by, price in play equivalents."""
    price = {one.control_id: round(one.play_equivalents, 6) for one in page.receipt.price}
    return [[line.id, line.status, line.slack, price.get(line.id, 0.0)] for line in page.receipt.controls]


def _impression(query: Query, page: Page, knew: FeatureLineage | None) -> Record:
    """The page as an event for the log: all that a training run or an audit needs to know of it."""
    context: dict[str, JsonValue] = {
        "seed": query.seed,
        "rung": page.fallback_level.value,
        "model_version": page.model_version,
        "policy_version": page.policy_version,
        "personalised": query.personalised,
        "guided": query.guided,
        "propensity": 1.0,  # pages are deterministic given their inputs
        "slots": query.slots,  # with these a replay can ask the same again
        "age": None if query.age is None else min(query.age, AGE_BUCKETS),
        "shown": list(query.shown),
        "controls": _control_outcomes(page),
        "engagement": page.engagement,
        "unguided": page.unguided,
        "features": b64encode(page.features.tobytes()).decode(),
        "feature_shape": list(page.features.shape),
    }
    if knew is not None:
        context["as_of"] = knew.to_json()
    if page.delivered:
        context["targets"] = {key: list(credit) for key, credit in page.delivered.items()}
    attention = screen_layout(query.placement.screen).attention(query.slots)[: len(page.items)]
    event = ViewerEvent(
        id=f"page-{uuid4().hex}",  # nobody can guess it, and have the page taken for sent twice
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
