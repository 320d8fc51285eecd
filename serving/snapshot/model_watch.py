"""The watch over the model in service: how many of its pages fall to a lower fallback level."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container
from dataclasses import dataclass

from recsys.domain.query import Query
from recsys.domain.trace import FallbackLevel
from recsys.domain.viewer import ViewerState
from recsys.page import Page

WINDOW = 200
"""Number of newest pages that are counted."""

MIN_FAILED, MAX_FAILED_SHARE = 5, 0.05
"""A model is at fault if it fails on this many pages of the window and on a larger share of them than this."""

MIN_KNOWN, MIN_PERSONAL_SHARE = 20, 0.5
"""A model is at fault if known viewers get less than this share of the personal pages that they got from the model
before it, on at least this many pages of each."""

MODEL_STAGES = frozenset({"viewer", "personal", "rank"})
"""Stages of a page that fail if the model does."""


def model_error(page: Page) -> str | None:
    """Return the error of the first stage that failed on a page because of its model; None if none did."""
    failed = (f"{stage.name}: {stage.error}" for stage in page.trace if stage.error and stage.name in MODEL_STAGES)
    return next(failed, None)


@dataclass(frozen=True, slots=True)
class _Seen:
    has_history: bool  # the viewer has acted before
    personal: bool
    error: str | None


class ModelWatch:
    """Counts of the newest pages of the model in service. `record` is called for every page, and is cheap."""

    def __init__(self, closed_outlets: Callable[[], Container[str]] = lambda: ()) -> None:
        """`closed_outlets` returns the outlets whose pages are made without a model."""
        self._closed_outlets = closed_outlets
        self._version = ""
        self._expected: float | None = None
        self._pages: deque[_Seen] = deque(maxlen=WINDOW)

    def follow(self, version: str) -> None:
        """Start to count the pages of another model; the share of personal pages so far is what it is compared with."""
        self._expected = self._personal_share()
        self._version, self._pages = version, deque(maxlen=WINDOW)

    def record(self, query: Query, page: Page, viewer: ViewerState | None) -> None:
        """Count a page."""
        error = model_error(page)
        if page.model_version != self._version:
            if page.model_version != "none" or not self._version or query.placement.outlet in self._closed_outlets():
                return  # a page that the model before made, or that needs no model
            error = "the page could not be made with the model"
        has_history = query.personalised and viewer is not None and bool(viewer.recent)
        self._pages.append(_Seen(has_history, page.fallback_level is FallbackLevel.PERSONAL, error))

    def fault(self) -> str | None:
        """Return why the model must leave service; None if it may stay."""
        pages = tuple(self._pages)
        errors = [page.error for page in pages if page.error]
        if len(errors) >= MIN_FAILED and len(errors) > MAX_FAILED_SHARE * len(pages):
            return f"{len(errors)} of its last {len(pages)} pages fell to a lower fallback level: {errors[-1]}"
        share = self._personal_share()
        if share is not None and self._expected is not None and share < MIN_PERSONAL_SHARE * self._expected:
            return (
                f"{share:.0%} of its pages for known viewers are personal;"
                f" it was {self._expected:.0%} with the model before"
            )
        return None

    @property
    def proven(self) -> bool:
        """Whether a full window of pages has shown no fault."""
        return len(self._pages) == WINDOW and self.fault() is None

    def _personal_share(self) -> float | None:
        """Return the share of personal pages among those for known viewers; None for fewer than MIN_KNOWN."""
        personal = [page.personal for page in tuple(self._pages) if page.has_history]
        return sum(personal) / len(personal) if len(personal) >= MIN_KNOWN else None
