"""Training-serving skew: the features logged when pages were served against those that the event log gives.

Two questions, column by column. Skew: does the log, read up to the offsets that the impression records, give the values
that were served? Any difference is a fault, or the catalogue or a model is not the one that served the page. Lag: does
the log, read up to the time of the page, give them? A difference is no fault: it shows how many values the ranker sees
fresher in training than in serving, since serving lags behind by what the worker had not folded yet.
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
"""Values that differ by less, absolutely below 1 and relatively above, count as equal."""


@dataclass(frozen=True)
class ColumnSkew:
    """One feature: how many values were compared, how many of them differ, by how much at most, and how many lag."""

    feature: str
    compared: int
    differing: int
    largest: float
    lagging: int


@dataclass(frozen=True)
class SkewReport:
    """What the audit of some pages found.

    rows       items of these pages that are in the catalogue
    unknown    items that are not: they cannot be compared
    unmodelled pages of models that were not passed in: their `affinity` is not compared
    erased     viewers erased since the oldest page: the log lacks their events, so the pages' counts may differ
    """

    pages: int
    rows: int
    unknown: int
    unmodelled: int
    erased: int
    columns: tuple[ColumnSkew, ...]

    @property
    def differing(self) -> int:
        """Values that differ, over all columns."""
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

    retrievers  model version -> its retriever, for `affinity`
    Raises InvalidInput when no page of this time records its features, Unavailable.
    """
    pages = list(served_pages(log, since, until))
    if not pages:
        raise InvalidInput("no impression of this time records the features of its page")
    served = np.concatenate([_padded(page.features) for page in pages])
    again = np.concatenate(recompute_features(log, catalog, pages, retrievers, ttl_s=ttl_s))
    in_catalog = np.isfinite(again[:, AT["log_popularity"]])
    modelled = np.repeat(
        [page.model_version in retrievers or page.model_version in ("", "none") for page in pages],
        [len(page.event.items) for page in pages],
    )
    served[~modelled, AT["affinity"]] = np.nan
    fresh = _at_page_time(log, catalog, pages, in_catalog, ttl_s)
    off, behind = _difference(served, again), _difference(served, fresh)
    behind[:, AT["affinity"]] = np.nan  # every model would need its own pass over the log
    oldest = min(page.event.at for page in pages)
    return SkewReport(
        pages=len(pages),
        rows=int(in_catalog.sum()),
        unknown=int((~in_catalog).sum()),
        unmodelled=sum(page.model_version not in (*retrievers, "", "none") for page in pages),
        erased=sum(at >= oldest for at in log.erasures.with_data().values()),
        columns=tuple(_column(name, off[:, n], behind[:, n]) for n, name in enumerate(FEATURES)),
    )


def _padded(features: F32) -> F32:
    """[K, F'] -> [K, F]: NaN for the columns that an older engine did not have."""
    out = np.full((len(features), len(FEATURES)), np.nan, np.float32)
    out[:, : features.shape[1]] = features
    return out


def _at_page_time(
    log: EventLog, catalog: Catalog, pages: list[ServedPage], in_catalog: np.ndarray[tuple[int], np.dtype[np.bool_]],
    ttl_s: float,
) -> F32:  # fmt: skip
    """[R, F] features from everything before each page; NaN for items that are not in the catalogue."""
    rows = [(page.event, item) for page in pages for item in page.event.items]
    rows = [row for row, known in zip(rows, in_catalog.tolist(), strict=True) if known]
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
    """[R, F] absolute below 1, relative above; NaN where either is."""
    return np.abs(a.astype(np.float64) - b) / np.maximum(np.abs(a.astype(np.float64)), 1.0)


def _column(name: str, off: F64, behind: F64) -> ColumnSkew:
    judged = off[np.isfinite(off)]
    return ColumnSkew(
        name,
        compared=len(judged),
        differing=int((judged > TOLERANCE).sum()),
        largest=float(judged.max(initial=0.0)),
        lagging=int((behind > TOLERANCE).sum()),
    )
