"""The frontier: the cost and effect of a draft at several strengths.

Strength 1 is the draft itself, on all requests, so its figures are those of the report. The other strengths are
replayed on a sample; a point is the figure at strength 1 plus the difference to strength 1 on this sample.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from recsys.domain.types import F64
from recsys.guidance.policy.controls import Quota
from recsys.preview.bootstrap import Estimate, ratio
from recsys.preview.page_summary import PageSummary
from recsys.preview.pairs import AFTER, FREE, Pairs
from recsys.preview.report import Point
from recsys.preview.study import Study


class _Figures(NamedTuple):
    """Figures of pages: the share with a relaxed control, and the exposure shares of axes and quotas."""

    relaxed: float
    values: dict[str, float]
    quotas: dict[str, float]


def frontier(study: Study, pairs: Pairs, strengths: Mapping[float, Mapping[int, PageSummary]]) -> tuple[Point, ...]:
    """Return the draft at every tried strength. The sample are the requests with results at all strengths."""
    if not strengths:
        return ()
    common = set.intersection(*(set(pages) for pages in strengths.values()))
    sample = [i for i, n in enumerate(pairs.numbers) if n in common]
    if not sample:
        return ()
    everywhere = list(range(len(pairs)))
    all_figures = _figures(study, pairs, everywhere, list(pairs.pages[AFTER]))
    after = [pairs.pages[AFTER][i] for i in sample]
    sample_figures = _figures(study, pairs, sample, after)
    draft = Point(strength=1.0, requests=len(pairs), guidance_cost=_cost(pairs), **all_figures._asdict())
    points = [draft]
    for strength, by_request in strengths.items():
        pages = [by_request[pairs.numbers[i]] for i in sample]
        figures = _figures(study, pairs, sample, pages)
        points.append(
            Point(
                strength=strength,
                requests=len(sample),
                guidance_cost=_cost(pairs, sample, np.array([page.page_utility for page in pages])),
                relaxed=_shifted(all_figures.relaxed, figures.relaxed, sample_figures.relaxed),
                values=_all_shifted(all_figures.values, figures.values, sample_figures.values),
                quotas=_all_shifted(all_figures.quotas, figures.quotas, sample_figures.quotas),
            )
        )
    return tuple(sorted(points, key=lambda point: point.strength))


def _cost(pairs: Pairs, sample: list[int] | None = None, utility: F64 | None = None) -> Estimate:
    """Return the guidance cost of the draft, plus the difference of pages on a sample to those of the draft."""
    free, after = pairs.utility[FREE], pairs.utility[AFTER]
    draft = ratio(free - after, free, pairs.w)
    if sample is None or utility is None:
        return draft
    more, base, w = after[sample] - utility, free[sample], pairs.w[:, sample]
    difference = ratio(more, base, w)
    if len(sample) == len(pairs):
        return ratio(free - utility, free, pairs.w)
    all_bottom, bottom = pairs.w @ free, w @ base
    usable = (all_bottom != 0) & (bottom != 0)
    spread = (pairs.w @ (free - after))[usable] / all_bottom[usable] + (w @ more)[usable] / bottom[usable]
    low, high = np.quantile(spread, [0.025, 0.975]) if usable.any() else (0.0, 0.0)
    return Estimate(mean=draft.mean + difference.mean, low=float(low), high=float(high))


def _figures(study: Study, pairs: Pairs, indexes: list[int], pages: list[PageSummary]) -> _Figures:
    catalog = study.world.catalog
    total = max(sum(float(page.attention.sum()) for page in pages), 1e-9)
    values: dict[str, float] = defaultdict(float)
    quotas: dict[str, float] = defaultdict(float)
    for i, page in zip(indexes, pages, strict=True):
        query = pairs.requests[i].query
        policy = study.after[query.placement.outlet]
        for axis in policy.effective.weights:
            if axis in catalog.axes.code:
                axis_value = catalog.axis[page.row, catalog.axes.code[axis]]
                values[axis] += float(page.attention @ axis_value) / total
        for origin in policy.controls:
            control = origin.control
            if isinstance(control, Quota) and control.at_least is not None and control.holds(query):
                member = policy.member(control.where, query.region)[page.row]
                quotas[control.id] += float(page.attention @ member) / total
    return _Figures(float(np.mean([page.has_relaxed for page in pages])), dict(values), dict(quotas))


def _shifted(at_one: float, figure: float, sample_at_one: float) -> float:
    """Return a share at another strength, in [0, 1]."""
    return min(max(at_one + figure - sample_at_one, 0.0), 1.0)


def _all_shifted(at_one: dict[str, float], figure: dict[str, float], sample: dict[str, float]) -> dict[str, float]:
    return {name: _shifted(share, figure.get(name, 0.0), sample.get(name, 0.0)) for name, share in at_one.items()}
