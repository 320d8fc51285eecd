"""All measures over impressions, as columns: one row per group (outlet, placement, ...), and one per control.

The same functions serve the offline log, a notebook and the live gauges.
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
    """What became of a control on a page: status, slots it gave way by, price of one unit in play equivalents."""

    control_id: str
    status: str
    slack: int = 0
    price: float = 0.0


@dataclass(frozen=True)
class PageView:
    """One impression of K items.

    row        [K]  catalogue rows in slot order
    attention  [K]  chance that each slot is looked at
    history    [H]  catalogue rows of what the viewer did before, liked or played; empty for strangers
    engagement, unguided  utility of the page, and of the best page without guidance, in play equivalents; NaN = unknown
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
    """The measures of one group of impressions; NaN where there is nothing to measure.

    target  [L]  what editors aim at, as masses over the catalogue's labels
    """
    label = catalog.label
    offer = profile(label, np.ones(len(catalog)))
    of_page = [profile(label[page.row], page.attention) for page in pages]
    row = np.concatenate([page.row for page in pages]) if pages else np.zeros(0, np.int32)
    attention = np.concatenate([page.attention for page in pages]) if pages else np.zeros(0)
    by_outlet = exposure(catalog.outlet[row], attention, len(catalog.outlets.names))
    engaged = np.array([page.engagement for page in pages])
    free = np.array([page.unguided for page in pages])
    known = np.isfinite(engaged) & np.isfinite(free)
    calibrated = [
        miscalibration(profile(label[page.history], np.ones(len(page.history))), of)
        for page, of in zip(pages, of_page, strict=True)
        if len(page.history)
    ]
    ranked = [discounted(label[page.row]) for page in pages]
    return {
        "pages": float(len(pages)),
        "value_against_unguided": float(engaged[known].sum() / free[known].sum()) if free[known].sum() else np.nan,
        "miscalibration_history": _mean(calibrated),
        "miscalibration_target": _mean(miscalibration(target, of) for of in of_page) if target is not None else np.nan,
        "exposure_gini_outlets": gini(by_outlet),
        "coverage_outlets": coverage(by_outlet),
        "coverage_items": coverage(exposure(row, attention, len(catalog))),
        "intra_list_diversity": _mean(intra_list_diversity(label[page.row]) for page in pages),
        "radio_representation": _mean(representation(label[page.row], offer) for page in pages),
        "radio_fragmentation": fragmentation(ranked),
        "concentration_index": _concentration(pages, of_page, offer),
    }


def control_measures(pages: Iterable[PageView]) -> dict[str, dict[str, float]]:
    """Control -> pages where it was in force, satisfaction rate, relaxed and infeasible share, mean price in play
    equivalents."""
    fates: dict[str, list[ControlOutcome]] = defaultdict(list)
    for page in pages:
        for fate in page.outcomes:
            fates[fate.control_id].append(fate)
    return {name: _control_metrics(found) for name, found in sorted(fates.items())}


def report_table(
    pages: Sequence[PageView], catalog: Catalog, by: Callable[[PageView], str] = lambda page: page.placement
) -> dict[str, list[object]]:
    """Columns of all measures, one row per group, as for a data frame: {"group": [...], "pages": [...], ...}."""
    groups: dict[str, list[PageView]] = defaultdict(list)
    for page in pages:
        groups[by(page)].append(page)
    names = sorted(groups)
    rows: list[Mapping[str, float]] = [compute_metrics(groups[name], catalog) for name in names]
    columns: dict[str, list[object]] = {"group": list(names)}
    for name in rows[0] if rows else ():
        columns[name] = [row[name] for row in rows]
    return columns


def _control_metrics(fates: Sequence[ControlOutcome]) -> dict[str, float]:
    status = [fate.status for fate in fates]
    return {
        "pages": float(len(fates)),
        "satisfied": float(np.mean([fate.slack == 0 for fate in fates])),
        "relaxed": status.count("relaxed") / len(fates),
        "infeasible": status.count("infeasible") / len(fates),
        "price": float(np.mean([fate.price for fate in fates])),
    }


def _concentration(pages: Sequence[PageView], of_page: Sequence[F64], offer: F64) -> float:
    """Mean index of the viewers of the group, over all that each was shown in it."""
    shown: dict[str, F64] = {}
    for page, of in zip(pages, of_page, strict=True):
        shown[page.viewer_id] = shown.get(page.viewer_id, 0.0) + of * page.attention.sum()
    return _mean(concentration_index(mass, offer) for mass in shown.values())


def _mean(figures: Iterable[float]) -> float:
    known = [figure for figure in figures if np.isfinite(figure)]
    return float(np.mean(known)) if known else float("nan")
