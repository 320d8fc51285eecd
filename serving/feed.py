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

from features.codec import StateError, viewer_at, viewer_key
from features.events import ViewerEvent, encode
from features.offline.known import Known, known
from features.online import OnlineStore
from features.stream import Record
from features.unreadable import Unreadable
from features.viewer_event import region_of
from recsys.distribution.screens import default_slots, layout
from recsys.errors import NotFound, Unavailable
from recsys.guidance.compile import compile_policy
from recsys.messages import message
from recsys.pipeline import UNGUIDED, Engine, World
from recsys.state import TTL_S, ItemStats, ViewerState, remembered
from recsys.types import Page, Placement, Query
from serving.holders import Holders, Snapshot
from serving.metrics import Metrics
from serving.publisher import Publisher
from serving.schemas import PageAnswer, PageRequest, Slot, SlotDetail, StageOut, rfc3339
from serving.tokens import Attribution, Cursor, Tokens

log = logging.getLogger("mainstay.serving")

AGE_KEPT = 21
"""An impression keeps a viewer's age no further than ratings of items go."""

QUERIES_KEPT = 2_000
"""Latest requests that a process remembers, for previews where no log is at hand."""

QUERIES_KEPT_S = 86_400.0
"""And for so long: viewers who are erased by another process leave this one's memory too."""


@dataclass(frozen=True)
class FeedService:
    """Makes pages. Relevance fails open, rung by rung; guidance and eligibility come with every rung."""

    engine: Engine
    holders: Holders
    online: OnlineStore
    publisher: Publisher
    tokens: Tokens
    metrics: Metrics
    clock: Callable[[], float]
    watch: Callable[[Query, Page, ViewerState | None], None] = lambda query, page, viewer: None
    asked: deque[Query] = field(default_factory=lambda: deque(maxlen=QUERIES_KEPT))
    viewer_ttl_s: float = TTL_S  # a viewer who was idle for longer is a stranger
    unreadable: Unreadable = field(default_factory=Unreadable)

    def recommend(self, placement_id: str, asked: PageRequest) -> PageAnswer:
        """The page. Raises NotFound for an unknown placement, CursorError for a cursor of another session."""
        began = time.perf_counter()
        placement, now = Placement.parse(placement_id), self.clock()
        snapshot = self.holders.current
        query = self._query(placement, asked, now)
        world, missing = _world(snapshot, placement.outlet)
        viewer = None
        if asked.personalised:
            viewer = remembered(self._viewer(asked.viewer_id, missing), now, self.viewer_ttl_s)
        page = self._page(query, viewer, world, missing)
        if fault := next((stage.error for stage in page.trace if (stage.error or "").startswith(UNGUIDED)), None):
            log.error("page of request %s at %s: %s", query.request_id, placement.id, fault)
            missing.append("policy")
        answer = self._answer(asked, query, page, snapshot, missing)
        if not asked.preview:
            self._count(query, page, missing, time.perf_counter() - began)
            if page.items:
                self.asked.append(query)
                self.watch(query, page, viewer)
                knew = known(page, viewer, world.stats) if page.features.size else None
                self.publisher.send(partial(_impression, query, page, knew))
        return answer

    def lately(self) -> tuple[Query, ...]:
        """The latest requests; what is older than QUERIES_KEPT_S leaves."""
        with suppress(IndexError):  # two threads may look at once
            while self.asked[0].now < self.clock() - QUERIES_KEPT_S:
                self.asked.popleft()
        return tuple(self.asked)

    def forget(self, viewer_id: str) -> None:
        """Remember no request of this viewer; one that others make meanwhile may be forgotten as well."""
        others = [query for query in tuple(self.asked) if query.viewer_id != viewer_id]
        self.asked.clear()
        self.asked.extend(others)

    def _query(self, placement: Placement, asked: PageRequest, now: float) -> Query:
        shown: tuple[str, ...] = ()
        request_id = uuid4().hex
        seed = zlib.crc32(request_id.encode()) >> 1 if asked.seed is None else asked.seed
        if asked.cursor is not None:
            cursor = self.tokens.read_cursor(asked.cursor, placement=placement.id, viewer_id=asked.viewer_id, now=now)
            shown, seed = cursor.shown, cursor.seed
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

    def _viewer(self, viewer_id: str, missing: list[str]) -> ViewerState | None:
        """What is remembered of the viewer; None for a stranger, and when the store does not answer."""
        key = viewer_key(viewer_id)
        try:
            raw = self.online.get([key])[0]
            return None if raw is None else viewer_at(key, raw)
        except Unavailable:  # who guards the store says so once, not once a page
            missing.append("online")
            return None
        except StateError as error:
            self.unreadable.skipped(key, error)
            missing.append("online")
            return None

    def _page(self, query: Query, viewer: ViewerState | None, world: World, missing: list[str]) -> Page:
        """The best page there is; a model that breaks the engine costs the personal rung, not the page."""
        try:
            return self.engine.run(query, viewer, world)
        except Exception:
            if world.model is None:
                raise
            log.exception("the page of request %s failed; trying without the model", query.request_id)
        missing.append("model")
        bare = replace(World.of(world.catalog, world.stats, None, world.policy), steered=world.steered)
        return self.engine.run(query, None, bare)

    def _answer(
        self, asked: PageRequest, query: Query, page: Page, snapshot: Snapshot, missing: list[str]
    ) -> PageAnswer:
        placement, items = query.placement.id, snapshot.catalog.items
        cursor = None
        if len(page.items) == query.slots:
            shown = (*query.shown, *(slot.item_id for slot in page.items))
            cursor = self.tokens.write_cursor(Cursor(placement, query.viewer_id, shown, query.seed, query.now))
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
            rung=page.rung.value,
            items=slots,
            next_cursor=cursor,
            attribution_token=self.tokens.write_attribution(
                Attribution(query.request_id, placement, query.viewer_id, query.now)
            ),
            model_version=page.model_version,
            policy_version=page.policy_version,
            missing=missing,
            receipt=page.receipt,
            trace=[
                StageOut(name=s.name, entered=s.entered, left=s.left, dropped=dict(s.dropped), error=s.error)
                for s in page.trace
            ]
            if asked.trace
            else None,
        )

    def _count(self, query: Query, page: Page, missing: list[str], took_s: float) -> None:
        screen = query.placement.screen.value
        self.metrics.page_s.labels(screen).observe(took_s)
        self.metrics.pages.labels(page.rung.value, screen).inc()
        for part in missing:
            self.metrics.missing.labels(part).inc()
        for control in page.receipt.controls:
            self.metrics.controls.labels(query.placement.outlet, control.id, control.status).inc()


def _world(snapshot: Snapshot, outlet: str) -> tuple[World, list[str]]:
    """What pages of this outlet are made from, and which parts are not what they should be."""
    if snapshot.revision < 0:
        # Nothing was ever read: no catalogue, so an empty page that says so, rather than an error on a screen.
        return World.of(snapshot.catalog, ItemStats.empty(0), None, compile_policy((), snapshot.catalog)), [
            "control",
            "model",
        ]
    world = snapshot.worlds.get(outlet)
    if world is None:
        raise NotFound(message("outlet_not_found", outlet=outlet))
    missing = [] if snapshot.model else ["model"]
    return world, missing + (["policy"] if outlet in snapshot.closed else [])


def _fates(page: Page) -> list[JsonValue]:
    """What became of each control: id, status, slots it gave way by, price in clicks."""
    price = {one.control_id: round(one.clicks, 6) for one in page.receipt.price}
    return [[line.id, line.status, line.by, price.get(line.id, 0.0)] for line in page.receipt.controls]


def _impression(query: Query, page: Page, knew: Known | None) -> Record:
    """The page as an event for the log: all that a training run or an audit needs to know of it."""
    context: dict[str, JsonValue] = {
        "seed": query.seed,
        "rung": page.rung.value,
        "model_version": page.model_version,
        "policy_version": page.policy_version,
        "personalised": query.personalised,
        "guided": query.guided,
        "propensity": 1.0,  # pages are deterministic given their inputs
        "slots": query.slots,  # with these a replay can ask the same again
        "age": None if query.age is None else min(query.age, AGE_KEPT),
        "shown": list(query.shown),
        "controls": _fates(page),
        "engagement": page.engagement,
        "unguided": page.unguided,
        "features": b64encode(page.features.tobytes()).decode(),
        "feature_shape": list(page.features.shape),
    }
    if knew is not None:
        context["as_of"] = knew.said()
    if page.credits:
        context["targets"] = {key: list(credit) for key, credit in page.credits.items()}
    attention = layout(query.placement.screen).attention(query.slots)[: len(page.items)]
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
