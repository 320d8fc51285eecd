"""All metrics over impressions, by group (outlet, placement, ...) and by control.

The offline log, notebooks and the live gauges use the same functions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from recsys.domain.catalog import Catalog
from recsys.domain.types import F64, I32
from recsys.metrics.calibration import miscalibration, profile
from recsys.metrics.concentration import concentration_index
from recsys.metrics.diversity import intra_list_diversity
from recsys.metrics.exposure import coverage, exposure, gini
from recsys.metrics.radio import discounted, fragmentation, representation


@dataclass(frozen=True)
class ControlOutcome:
    """The outcome of a control on a page.

    by     number of slots by which it was relaxed
    price  shadow price of one unit in play equivalents
    """

    control_id: str
    status: str
    slack: int = 0
    price: float = 0.0


@dataclass(frozen=True)
class PageView:
    """An impression of a page of K items.

    row        [K]  catalog rows in slot order
    attention  [K]  chance that each slot is looked at
    history    [H]  catalog rows of the items that the viewer liked or played before; empty for a new viewer
    engagement, unguided  utility of the page, and of the best page without guidance, in play equivalents; NaN: unknown
    """

    viewer_id: str
    outlet: str
    placement: str
    region: str
    row: I32
    attention: F64
    history: I32 = field(default_factory=lambda: np.zeros(0, np.int32))
    outcomes: tuple[ControlOutcome, ...] = ()
    engagement: float = float("nan")
    unguided: float = float("nan")


def compute_metrics(pages: Sequence[PageView], catalog: Catalog, target: F64 | None = None) -> dict[str, float]:
    """Return the metrics of a group of impressions; NaN where a metric is undefined.

    target  [L]  editorial target, as masses over the catalog's labels
    """
    label = catalog.label
    offer = profile(label, np.ones(len(catalog)))
    page_profiles = [profile(label[page.row], page.attention) for page in pages]
    row = np.concatenate([page.row for page in pages]) if pages else np.zeros(0, np.int32)
    attention = np.concatenate([page.attention for page in pages]) if pages else np.zeros(0)
    by_outlet = exposure(catalog.outlet[row], attention, len(catalog.outlets.names))
    engagement = np.array([page.engagement for page in pages])
    unguided = np.array([page.unguided for page in pages])
    finite = np.isfinite(engagement) & np.isfinite(unguided)
    calibrated = [
        miscalibration(profile(label[page.history], np.ones(len(page.history))), shown)
        for page, shown in zip(pages, page_profiles, strict=True)
        if len(page.history)
    ]
    ranked = [discounted(label[page.row]) for page in pages]
    return {
        "pages": float(len(pages)),
        "value_against_unguided": _ratio(engagement[finite].sum(), unguided[finite].sum()),
        "miscalibration_history": _mean(calibrated),
        "miscalibration_target": _mean(miscalibration(target, shown) for shown in page_profiles)
        if target is not None
        else np.nan,
        "exposure_gini_outlets": gini(by_outlet),
        "coverage_outlets": coverage(by_outlet),
        "coverage_items": coverage(exposure(row, attention, len(catalog))),
        "intra_list_diversity": _mean(intra_list_diversity(label[page.row]) for page in pages),
        "radio_representation": _mean(representation(label[page.row], offer) for page in pages),
        "radio_fragmentation": fragmentation(ranked),
        "concentration_index": _concentration(pages, page_profiles, offer),
    }


def control_metrics(pages: Iterable[PageView]) -> dict[str, dict[str, float]]:
    """Return for each control the number of pages on which it was in force, and means over these pages.

    The means are the shares of pages on which it was satisfied, relaxed and infeasible, and the price in play
    equivalents.
    """
    by_control: dict[str, list[ControlOutcome]] = defaultdict(list)
    for page in pages:
        for outcome in page.outcomes:
            by_control[outcome.control_id].append(outcome)
    return {name: _outcome_metrics(outcomes) for name, outcomes in sorted(by_control.items())}


def report_table(
    pages: Sequence[PageView], catalog: Catalog, by: Callable[[PageView], str] = lambda page: page.placement
) -> dict[str, list[object]]:
    """Return columns of all metrics with one row per group: {"group": [...], "pages": [...], ...}."""
    groups: dict[str, list[PageView]] = defaultdict(list)
    for page in pages:
        groups[by(page)].append(page)
    names = sorted(groups)
    rows: list[Mapping[str, float]] = [compute_metrics(groups[name], catalog) for name in names]
    columns: dict[str, list[object]] = {"group": list(names)}
    for name in rows[0] if rows else ():
        columns[name] = [row[name] for row in rows]
    return columns


def _outcome_metrics(outcomes: Sequence[ControlOutcome]) -> dict[str, float]:
    status = [outcome.status for outcome in outcomes]
    return {
        "pages": float(len(outcomes)),
        "satisfied": float(np.mean([outcome.slack == 0 for outcome in outcomes])),
        "relaxed": status.count("relaxed") / len(outcomes),
        "infeasible": status.count("infeasible") / len(outcomes),
        "price": float(np.mean([outcome.price for outcome in outcomes])),
    }


def _concentration(pages: Sequence[PageView], page_profiles: Sequence[F64], offer: F64) -> float:
    """Return the mean index of the group's viewers, each over all of its impressions in the group."""
    shown: dict[str, F64] = {}
    for page, mass in zip(pages, page_profiles, strict=True):
        shown[page.viewer_id] = shown.get(page.viewer_id, 0.0) + mass * page.attention.sum()
    return _mean(concentration_index(mass, offer) for mass in shown.values())


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")


def _mean(values: Iterable[float]) -> float:
    """Return the mean of the finite values; NaN if there are none."""
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")
