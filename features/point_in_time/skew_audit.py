"""Training-serving skew audit: recompute the features of served pages from the log.

They must equal the features recorded in the impressions. Each impression records from which events its page was made
(`features.lineage`). Viewers are folded, and votes on items summed, up to those offsets; `features.columns` computes
the features as it did for the page. An impression does not record the catalog and the model; the caller passes those of
that time.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import msgspec
import numpy as np

from features.columns import AT, FEATURES, empty_features, item_columns, viewer_columns
from features.events.schema import ViewerEvent
from features.history.arrow_schema import logged_events, with_all_columns
from features.history.event_log import FOREVER, EventLog
from features.item_counts import MEASURES, ItemCounts
from features.lineage import FeatureLineage
from features.point_in_time.vote_table import VoteTable, by_viewer, load_votes
from features.state.viewer_fold import ViewerFold
from features.state.votes import LoggedEvent
from recsys.domain.catalog import Catalog
from recsys.domain.decay import FAST_HALF_LIFE_S, HALF_LIFE_S, TTL_S
from recsys.domain.regions import within
from recsys.domain.types import F32, F64, I32, I64
from recsys.domain.viewer import ViewerState, unexpired
from recsys.models.retriever import Retriever

VISITS = MEASURES.index("visits")


class _FeatureRecord(msgspec.Struct):
    """The part of an impression's context that the audit reads."""

    features: str = ""
    feature_shape: tuple[int, int] = (0, 0)
    as_of: FeatureLineage | None = None
    model_version: str = ""


@dataclass(frozen=True)
class ServedPage:
    """A served page with its recorded features.

    features  [K, F'] of its items: the first F' of FEATURES, which were all features at that time
    lineage   the events from which the page was made
    """

    event: ViewerEvent
    model_version: str
    features: F32
    lineage: FeatureLineage


def served_pages(log: EventLog, since: float = 0.0, until: float = FOREVER) -> Iterator[ServedPage]:
    """Yield the pages whose impressions record features and lineage, in time order. Raises Unavailable."""
    query = """
        SELECT * FROM log WHERE kind = 'impression' AND "at" >= $since AND "at" < $until AND context != ''
        QUALIFY row_number() OVER (PARTITION BY viewer_id, id ORDER BY source, "offset") = 1 ORDER BY "at", id
    """
    for impression in logged_events(with_all_columns(log.query(query, {"since": since, "until": until}, since, until))):
        try:
            context = msgspec.convert(impression.event.context, _FeatureRecord)
        except msgspec.ValidationError:
            continue  # a context of another engine
        rows, columns = context.feature_shape
        if context.as_of is not None and rows == len(impression.event.items) and 0 < columns <= len(FEATURES):
            features = np.frombuffer(b64decode(context.features), np.float32).reshape(rows, columns)
            yield ServedPage(impression.event, context.model_version, features, context.as_of)


def recompute_features(
    log: EventLog,
    catalog: Catalog,
    pages: Sequence[ServedPage],
    retrievers: Mapping[str, Retriever],
    *,
    ttl_s: float = TTL_S,
) -> list[F32]:
    """Return the recomputed features of these pages: [K, F] each, NaN for items outside the catalog.

    retrievers  model version -> retriever that computes `affinity`; for other versions it is 0
    Raises Unavailable.
    """
    replayer = _CountReplayer(load_votes(log, catalog, ttl_s))
    states = _viewers(log, pages, ttl_s)
    features = []
    for page, viewer in zip(pages, states, strict=True):
        event, indices = page.event, [n for n, item_id in enumerate(page.event.items) if item_id in catalog.row_of]
        items, until_offset = [event.items[n] for n in indices], [page.lineage.until_offset[n] for n in indices]
        rows, screen = catalog.rows(items), event.placement.split("-")[1]
        out = empty_features(len(rows))
        counts = replayer.counts_at(
            rows, msgspec.structs.replace(page.lineage, until_offset=until_offset), event.region, screen
        )
        item_columns(out, rows, catalog, counts, event.at, event.region, screen)
        if viewer is not None:
            viewer_columns(out, rows, viewer, catalog, event.at, screen)
            _affinity(out, items, viewer, retrievers.get(page.model_version))
        features.append(np.full((len(event.items), len(FEATURES)), np.nan, np.float32))
        features[-1][indices] = out
    return features


def _affinity(out: F32, items: Sequence[str], viewer: ViewerState, retriever: Retriever | None) -> None:
    vector = retriever.viewer_vector(viewer) if retriever is not None else None
    if retriever is not None and vector is not None:
        matches = [(n, retriever.position_of[i]) for n, i in enumerate(items) if i in retriever.position_of]
        if matches:
            indices, positions = np.array(matches, np.int64).T
            out[indices, AT["affinity"]] = retriever.scores(vector, positions)


class _CountReplayer:
    """The votes by item, which can be summed up to given offsets."""

    def __init__(self, votes: VoteTable) -> None:
        self._votes, self._order = votes, np.argsort(votes.row, kind="stable")
        self._row = votes.row[self._order]

    def counts_at(self, rows: I32, lineage: FeatureLineage, region: str, screen: str) -> ItemCounts:
        """Return the counts of a page's items, for its region and its screen, decayed to the time of the lineage."""
        votes, size = self._votes, len(rows)
        in_region = np.array([within(name, region) if region else False for name in votes.regions], np.bool_)
        on_screen = np.array([bool(screen) and name == screen for name in votes.screens], np.bool_)
        count, visit_counts = np.zeros((size, len(MEASURES))), np.zeros((size, 3))
        first, last = np.searchsorted(self._row, rows), np.searchsorted(self._row, rows, "right")
        for n, until_offset in enumerate(lineage.until_offset):
            selected = self._order[first[n] : last[n]]
            offset_of = dict(zip(lineage.sources, until_offset, strict=True))
            cut = np.array([offset_of.get(source, -1) for source in votes.sources], np.int64)
            if not len(selected):
                continue
            selected = selected[votes.offset[selected] <= cut[votes.source[selected]]]
            weight = votes.value[selected] * np.exp2((votes.at[selected] - lineage.at) / HALF_LIFE_S)
            count[n] = np.bincount(votes.measure[selected], weight, len(MEASURES))
            visit = votes.measure[selected] == VISITS
            selected, weight = selected[visit], weight[visit]
            visit_counts[n] = (
                _recent_visits(votes, selected, lineage.at),
                weight @ in_region[votes.region[selected]],
                weight @ on_screen[votes.screen[selected]],
            )
        count, visit_counts = (side.astype(np.float32).astype(np.float64) for side in (count, visit_counts))
        return ItemCounts(
            count, visit_counts[:, 0], visit_counts[:, 1], visit_counts[:, 2], np.array(lineage.total), lineage.items
        )


def _recent_visits(votes: VoteTable, selected: I64, at: float) -> float:
    """Return the fast-decaying visits, decayed to `at` or to the newest visit, whichever is later."""
    times: F64 = votes.at[selected]
    moment = max(at, float(times.max(initial=0.0)))
    return float(votes.value[selected] @ np.exp2((times - moment) / FAST_HALF_LIFE_S))


def _viewers(log: EventLog, pages: Sequence[ServedPage], ttl_s: float) -> list[ViewerState | None]:
    """Return the viewer state that each page read."""
    query = """
        SELECT * FROM log SEMI JOIN (SELECT unnest($viewers) AS viewer_id) USING (viewer_id)
        QUALIFY row_number() OVER (PARTITION BY source, "offset") = 1 ORDER BY viewer_id, source, "offset"
    """
    order = sorted((n for n in range(len(pages)) if pages[n].lineage.viewer), key=lambda n: pages[n].event.viewer_id)
    groups = groupby(order, key=lambda n: pages[n].event.viewer_id)
    pages_of = {viewer_id: list(indices) for viewer_id, indices in groups}
    states: list[ViewerState | None] = [None] * len(pages)
    for viewer_id, events in by_viewer(with_all_columns(log.query(query, {"viewers": list(pages_of)}))):
        for n in pages_of[viewer_id]:
            state = _fold_until(viewer_id, events, pages[n].lineage.viewer, ttl_s)
            states[n] = unexpired(state, pages[n].event.at, ttl_s)
    return states


def _fold_until(
    viewer_id: str, events: Sequence[LoggedEvent], until_offset: Mapping[str, int], ttl_s: float
) -> ViewerState:
    fold = ViewerFold(ViewerState(viewer_id), ttl_s)
    for event in events:
        if event.offset <= until_offset.get(event.source, -1):
            fold.apply(event)
    return fold.state()
