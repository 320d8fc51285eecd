"""Features of served pages, recomputed from the log: they equal those that the impressions record, or there is a fault.

Each impression says from which events its page was made (`features.lineage`). Viewers are folded, and votes on
items summed, up to those offsets; `features.columns` does the rest, as it did for the page. What an impression does not
hold is the catalogue and the model as they were then: hand in those.
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


class _Context(msgspec.Struct):
    """What is read of an impression's context."""

    features: str = ""
    feature_shape: tuple[int, int] = (0, 0)
    as_of: FeatureLineage | None = None
    model_version: str = ""


@dataclass(frozen=True)
class ServedPage:
    """A page with the features that were used: features [K, F'] of its items, the first F' of FEATURES: all of them, or
    those that there were when the page was made."""

    event: ViewerEvent
    model_version: str
    features: F32
    knew: FeatureLineage


def served_pages(log: EventLog, since: float = 0.0, until: float = FOREVER) -> Iterator[ServedPage]:
    """Pages in the order of time whose impressions say what they knew. Raises Unavailable."""
    query = """
        SELECT * FROM log WHERE kind = 'impression' AND "at" >= $since AND "at" < $until AND context != ''
        QUALIFY row_number() OVER (PARTITION BY viewer_id, id ORDER BY source, "offset") = 1 ORDER BY "at", id
    """
    for one in logged_events(with_all_columns(log.query(query, {"since": since, "until": until}, since, until))):
        try:
            context = msgspec.convert(one.event.context, _Context)
        except msgspec.ValidationError:
            continue  # a context of another engine
        rows, columns = context.feature_shape
        if context.as_of is not None and rows == len(one.event.items) and 0 < columns <= len(FEATURES):
            features = np.frombuffer(b64decode(context.features), np.float32).reshape(rows, columns)
            yield ServedPage(one.event, context.model_version, features, context.as_of)


def recompute_features(
    log: EventLog,
    catalog: Catalog,
    pages: Sequence[ServedPage],
    retrievers: Mapping[str, Retriever],
    *,
    ttl_s: float = TTL_S,
) -> list[F32]:
    """Recompute the features of these pages: [K, F] each, NaN for an item that is not in the catalogue.

    retrievers  model version -> what gave `affinity`; of other models it is 0
    Raises Unavailable.
    """
    counted = _CountReplayer(load_votes(log, catalog, ttl_s))
    states = _viewers(log, pages, ttl_s)
    answer = []
    for page, viewer in zip(pages, states, strict=True):
        event, places = page.event, [n for n, item_id in enumerate(page.event.items) if item_id in catalog.row_of]
        items, upto = [event.items[n] for n in places], [page.knew.until_offset[n] for n in places]
        rows, screen = catalog.rows(items), event.placement.split("-")[1]
        out = empty_features(len(rows))
        figures = counted.advance(rows, msgspec.structs.replace(page.knew, upto=upto), event.region, screen)
        item_columns(out, rows, catalog, figures, event.at, event.region, screen)
        if viewer is not None:
            viewer_columns(out, rows, viewer, catalog, event.at, screen)
            _affinity(out, items, viewer, retrievers.get(page.model_version))
        answer.append(np.full((len(event.items), len(FEATURES)), np.nan, np.float32))
        answer[-1][places] = out
    return answer


def _affinity(out: F32, items: Sequence[str], viewer: ViewerState, retriever: Retriever | None) -> None:
    vector = retriever.viewer_vector(viewer) if retriever is not None else None
    if retriever is not None and vector is not None:
        known = [(n, retriever.position_of[i]) for n, i in enumerate(items) if i in retriever.position_of]
        if known:
            places, positions = np.array(known, np.int64).T
            out[places, AT["affinity"]] = retriever.scores(vector, positions)


class _CountReplayer:
    """Votes by item, to be summed up to offsets."""

    def __init__(self, votes: VoteTable) -> None:
        self._votes, self._order = votes, np.argsort(votes.row, kind="stable")
        self._row = votes.row[self._order]

    def advance(self, rows: I32, knew: FeatureLineage, region: str, screen: str) -> ItemCounts:
        """Counts of a page's items in a page's region and on its screen, as they weighed when the page was made."""
        votes, size = self._votes, len(rows)
        here = np.array([within(name, region) if region else False for name in votes.regions], np.bool_)
        on_it = np.array([bool(screen) and name == screen for name in votes.screens], np.bool_)
        count, others = np.zeros((size, len(MEASURES))), np.zeros((size, 3))
        first, last = np.searchsorted(self._row, rows), np.searchsorted(self._row, rows, "right")
        for n, upto in enumerate(knew.until_offset):
            mine = self._order[first[n] : last[n]]
            known = dict(zip(knew.sources, upto, strict=True))
            cut = np.array([known.get(source, -1) for source in votes.sources], np.int64)
            if not len(mine):
                continue
            mine = mine[votes.offset[mine] <= cut[votes.source[mine]]]
            weight = votes.value[mine] * np.exp2((votes.at[mine] - knew.at) / HALF_LIFE_S)
            count[n] = np.bincount(votes.measure[mine], weight, len(MEASURES))
            visit = votes.measure[mine] == VISITS
            mine, weight = mine[visit], weight[visit]
            others[n] = (
                _lately(votes, mine, knew.at),
                weight @ here[votes.region[mine]],
                weight @ on_it[votes.screen[mine]],
            )
        count, others = (side.astype(np.float32).astype(np.float64) for side in (count, others))
        return ItemCounts(count, others[:, 0], others[:, 1], others[:, 2], np.array(knew.total), knew.items)


def _lately(votes: VoteTable, mine: I64, at: float) -> float:
    """Visits that decay fast, as of `at` or, where one is newer, as of that."""
    times: F64 = votes.at[mine]
    moment = max(at, float(times.max(initial=0.0)))
    return float(votes.value[mine] @ np.exp2((times - moment) / FAST_HALF_LIFE_S))


def _viewers(log: EventLog, pages: Sequence[ServedPage], ttl_s: float) -> list[ViewerState | None]:
    """The state that each page read."""
    query = """
        SELECT * FROM log SEMI JOIN (SELECT unnest($viewers) AS viewer_id) USING (viewer_id)
        QUALIFY row_number() OVER (PARTITION BY source, "offset") = 1 ORDER BY viewer_id, source, "offset"
    """
    order = sorted((n for n in range(len(pages)) if pages[n].knew.viewer), key=lambda n: pages[n].event.viewer_id)
    asked = {who: list(theirs) for who, theirs in groupby(order, key=lambda n: pages[n].event.viewer_id)}
    states: list[ViewerState | None] = [None] * len(pages)
    for viewer_id, events in by_viewer(with_all_columns(log.query(query, {"viewers": list(asked)}))):
        for n in asked[viewer_id]:
            state = _folded(viewer_id, events, pages[n].knew.viewer, ttl_s)
            states[n] = unexpired(state, pages[n].event.at, ttl_s)
    return states


def _folded(viewer_id: str, events: Sequence[LoggedEvent], upto: Mapping[str, int], ttl_s: float) -> ViewerState:
    fold = ViewerFold(ViewerState(viewer_id), ttl_s)
    for one in events:
        if one.offset <= upto.get(one.source, -1):
            fold.apply(one)
    return fold.state()
