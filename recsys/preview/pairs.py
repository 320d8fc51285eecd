"""The completed pairs of a study, as columns over n requests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from recsys.domain.types import F64
from recsys.preview.bootstrap import ratio
from recsys.preview.groups import Groups
from recsys.preview.page_summary import PageSummary
from recsys.preview.report import Exposure
from recsys.preview.study import ReplayRequest

FREE, BEFORE, AFTER = 0, 1, 2
PAGES = 1000.0
"""Number of pages to which exposure figures refer."""


@dataclass(frozen=True)
class Pairs:
    """The pages of n requests, three for each.

    numbers  n indexes of the requests in the study
    pages    [3][n] pages: unguided, before, after
    unit     n indexes of viewers
    w        [rounds, n] bootstrap weights
    """

    numbers: tuple[int, ...]
    requests: tuple[ReplayRequest, ...]
    pages: tuple[tuple[PageSummary, ...], ...]
    unit: tuple[int, ...]
    w: F64

    def __len__(self) -> int:
        return len(self.numbers)

    def column(self, value_of: Callable[[PageSummary], float]) -> F64:
        """Return [3, n] a figure of each page."""
        return np.array([[value_of(page) for page in side] for side in self.pages], np.float64)

    @cached_property
    def utility(self) -> F64:
        """[3, n] utility of each page, in play equivalents."""
        return self.column(lambda page: page.page_utility)

    @cached_property
    def expected_plays(self) -> F64:
        """[3, n] expected plays of each page."""
        return self.column(lambda page: page.expected_plays)

    @cached_property
    def attention(self) -> F64:
        """[3, n] total attention of each page; shorter pages have less."""
        return self.column(lambda page: float(page.attention.sum()))

    def exposure(self, groups: Groups, kind: str) -> F64:
        """Return [3, n, G] the attention per page and group."""
        return np.array([[groups.exposure(kind, page) for page in side] for side in self.pages])

    def exposure_of_outlets(self, groups: Groups) -> tuple[Exposure, ...]:
        """Return the attention gained and lost per outlet, largest changes first."""
        exposure, count = self.exposure(groups, "outlets"), np.ones(len(self))
        change = exposure[AFTER] - exposure[BEFORE]
        rows = [
            Exposure(
                outlet=name,
                before=PAGES * float(exposure[BEFORE, :, g].mean()),
                after=PAGES * float(exposure[AFTER, :, g].mean()),
                difference=ratio(PAGES * change[:, g], count, self.w),
                gained=PAGES * float(np.maximum(change[:, g], 0.0).mean()),
                lost=PAGES * float(np.maximum(-change[:, g], 0.0).mean()),
            )
            for g, name in enumerate(groups.names("outlets"))
            if exposure[:, :, g].any()
        ]
        return tuple(sorted(rows, key=lambda row: (-abs(row.difference.mean), row.outlet)))
