"""The trial of a model before it takes traffic: whole pages of known viewers, made as requests would make them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from features.state.codec import viewer_at
from features.state.keys import VIEWERS
from features.state.online.port import OnlineStore
from features.state.quarantine import CorruptStateCounter
from recsys.domain.errors import Unavailable
from recsys.domain.placement import Placement, Screen, Surface
from recsys.domain.query import Query
from recsys.domain.trace import FallbackLevel
from recsys.domain.viewer import ViewerState
from recsys.guidance.compilation.compile import compile_policy
from recsys.models.probe import probe_viewer
from recsys.models.served_model import ServedModel
from recsys.page import Page
from recsys.pipeline import Engine
from recsys.snapshot import ServingSnapshot
from serving.snapshot.holders import SnapshotHolder
from serving.snapshot.model_watch import MIN_PERSONAL_SHARE, model_error

VIEWERS_MAX, VIEWERS_MIN = 30, 5
"""Number of viewers of the online store whose pages are made, and of personal pages from which on they are compared."""

PLACEMENT = Placement("trial", Screen.MOBILE, Surface.HOME)
SLOTS = 10


@dataclass(frozen=True)
class ModelTrial:
    """A trial with the current catalog and statistics. Its pages have no policy, which is no part of a model."""

    engine: Engine
    holders: SnapshotHolder
    online: OnlineStore
    clock: Callable[[], float]
    unreadable: CorruptStateCounter

    def fault(self, model: ServedModel) -> str | None:
        """Return why the model must not take traffic; None if all pages are as good as those of the model in service.

        Before the catalog is read there are no pages, and None is returned.
        """
        current = self.holders.current
        if not len(current.catalog):
            return None
        trial, before = (
            ServingSnapshot.of(current.catalog, current.stats, m, compile_policy((), current.catalog))
            for m in (model, current.model)
        )
        for page in model.bundle.probe_pages:
            viewer = probe_viewer(page.history, self.clock())
            if fault := self._page_fault(viewer, trial, expected=FallbackLevel.PERSONAL):
                return f"page of a viewer of the probe: {fault}"
        viewers = self._known_viewers()
        for viewer in viewers:
            if fault := self._page_fault(viewer, trial):
                return f"page of a known viewer: {fault}"
        return self._level_fault(viewers, trial, before) if current.model is not None else None

    def _page_fault(
        self, viewer: ViewerState, snapshot: ServingSnapshot, expected: FallbackLevel | None = None
    ) -> str | None:
        try:
            page = self._page(viewer, snapshot)
        except Exception as error:  # the model made it fail, whatever the error is
            return f"{type(error).__name__}: {error}"
        if error_text := model_error(page):
            return error_text
        if page.model_version == "none" or not np.isfinite([item.utility for item in page.items]).all():
            return "its utilities are not finite numbers"
        if expected is not None and page.fallback_level is not expected:
            return f"fallback level {page.fallback_level}, expected {expected}"
        return None

    def _page(self, viewer: ViewerState, snapshot: ServingSnapshot) -> Page:
        query = Query("trial", viewer.viewer_id, PLACEMENT, "", self.clock(), SLOTS, guided=False)
        return self.engine.run(query, viewer, snapshot)

    def _level_fault(
        self, viewers: Sequence[ViewerState], trial: ServingSnapshot, before: ServingSnapshot
    ) -> str | None:
        n_new, n_before = (
            sum(self._page(viewer, snapshot).fallback_level is FallbackLevel.PERSONAL for viewer in viewers)
            for snapshot in (trial, before)
        )
        if n_before >= VIEWERS_MIN and n_new < MIN_PERSONAL_SHARE * n_before:
            return (
                f"of {len(viewers)} known viewers, {n_new} would get a personal page;"
                f" it is {n_before} with the model in service"
            )
        return None

    def _known_viewers(self) -> list[ViewerState]:
        """Return viewers of the online store who have acted; none if the store does not answer."""
        try:
            return list(islice(self._states(), VIEWERS_MAX))
        except Unavailable:
            return []

    def _states(self) -> Iterator[ViewerState]:
        for key, raw in islice(self.online.scan(VIEWERS), 10 * VIEWERS_MAX):
            state = self.unreadable.decode(key, raw, viewer_at)
            if state is not None and state.recent:
                yield state
