"""Training-serving skew: features logged with served pages, compared with features recomputed from the event log.

The audit answers two questions for each feature. Skew: does the log, read up to the offsets that the impression
records, yield the served values? A difference is a fault, unless the catalog or a model is not the one that served the
page. Lag: does the log, read up to the time of the page, yield them? A difference is no fault: it counts values that
are more recent in training than in serving, because the worker had not folded the latest events yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from features.columns import AT, FEATURES
from features.history.event_log import FOREVER, EventLog
from features.point_in_time.query import EntityRows, get_historical_features
from features.point_in_time.skew_audit import ServedPage, recompute_features, served_pages
from recsys.domain.catalog import Catalog
from recsys.domain.decay import TTL_S
from recsys.domain.errors import InvalidInput
from recsys.domain.types import F32, F64
from recsys.models.retriever import Retriever

TOLERANCE = 1e-5
"""Differences up to this size count as equal: absolute for values below 1, relative above."""


@dataclass(frozen=True)
class ColumnSkew:
    """The skew of one feature: numbers of compared, differing and lagging values, and the largest difference."""

    feature: str
    compared: int
    differing: int
    largest: float
    lagging: int


@dataclass(frozen=True)
class SkewReport:
    """The result of an audit.

    rows        items of the audited pages that are in the catalog
    unknown     items that are not in the catalog and cannot be compared
    unmodelled  pages of models that were not passed in; their `affinity` is not compared
    erased      viewers erased since the oldest page; the log lacks their events, so counts may differ
    """

    pages: int
    rows: int
    unknown: int
    unmodelled: int
    erased: int
    columns: tuple[ColumnSkew, ...]

    @property
    def differing(self) -> int:
        """The number of differing values of all features."""
        return sum(column.differing for column in self.columns)


def audit_skew(
    log: EventLog,
    catalog: Catalog,
    retrievers: Mapping[str, Retriever],
    *,
    since: float = 0.0,
    until: float = FOREVER,
    ttl_s: float = TTL_S,
) -> SkewReport:
    """Compare the logged features of the pages served in [since, until).

    retrievers  the retriever of each model version, for `affinity`
    Raises InvalidInput when no page of this period records its features, Unavailable.
    """
    pages = list(served_pages(log, since, until))
    if not pages:
        raise InvalidInput("no impression of this period records the features of its page")
    served = np.concatenate([_padded(page.features) for page in pages])
    recomputed = np.concatenate(recompute_features(log, catalog, pages, retrievers, ttl_s=ttl_s))
    in_catalog = np.isfinite(recomputed[:, AT["log_popularity"]])
    modelled = np.repeat(
        [page.model_version in retrievers or page.model_version in ("", "none") for page in pages],
        [len(page.event.items) for page in pages],
    )
    served[~modelled, AT["affinity"]] = np.nan
    current = _at_page_time(log, catalog, pages, in_catalog, ttl_s)
    skew, lag = _difference(served, recomputed), _difference(served, current)
    lag[:, AT["affinity"]] = np.nan  # it would take one pass over the log per model
    oldest = min(page.event.at for page in pages)
    return SkewReport(
        pages=len(pages),
        rows=int(in_catalog.sum()),
        unknown=int((~in_catalog).sum()),
        unmodelled=sum(page.model_version not in (*retrievers, "", "none") for page in pages),
        erased=sum(at >= oldest for at in log.erasures.with_data().values()),
        columns=tuple(_column(name, skew[:, n], lag[:, n]) for n, name in enumerate(FEATURES)),
    )


def _padded(features: F32) -> F32:
    """Return the features [K, F'] with all F columns; columns that an older log lacks are NaN."""
    out = np.full((len(features), len(FEATURES)), np.nan, np.float32)
    out[:, : features.shape[1]] = features
    return out


def _at_page_time(
    log: EventLog, catalog: Catalog, pages: list[ServedPage], in_catalog: np.ndarray[tuple[int], np.dtype[np.bool_]],
    ttl_s: float,
) -> F32:  # fmt: skip
    """Return the features [R, F] as of the time of each page; NaN for items that are not in the catalog."""
    rows = [(page.event, item) for page in pages for item in page.event.items]
    rows = [row for row, is_item in zip(rows, in_catalog.tolist(), strict=True) if is_item]
    out = np.full((len(in_catalog), len(FEATURES)), np.nan, np.float32)
    out[in_catalog] = get_historical_features(
        log,
        catalog,
        EntityRows(
            [event.viewer_id for event, _ in rows],
            [item for _, item in rows],
            np.array([event.at for event, _ in rows], np.float64),
            [event.region for event, _ in rows],
            [event.placement.split("-")[1] for event, _ in rows],
        ),
        ttl_s=ttl_s,
    )
    return out


def _difference(a: F32, b: F32) -> F64:
    """Return the differences [R, F]: absolute for values below 1, relative above; NaN where `a` or `b` is NaN."""
    return np.abs(a.astype(np.float64) - b) / np.maximum(np.abs(a.astype(np.float64)), 1.0)


def _column(name: str, skew: F64, lag: F64) -> ColumnSkew:
    compared = skew[np.isfinite(skew)]
    return ColumnSkew(
        name,
        compared=len(compared),
        differing=int((compared > TOLERANCE).sum()),
        largest=float(compared.max(initial=0.0)),
        lagging=int((lag > TOLERANCE).sum()),
    )
