"""What the ranker is given to rank: proposals of serving's own sources, features from serving's own columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from features.columns import FEATURES, columns
from features.events.schema import ViewerEvent
from recsys.candidates.content_based import content_profile
from recsys.candidates.context import RequestContext
from recsys.candidates.index import CandidateIndex
from recsys.candidates.sources import SOURCES
from recsys.distribution.eligibility import first_match, ineligible
from recsys.domain.catalog import Catalog
from recsys.domain.item_statistics import ItemStats
from recsys.domain.placement import Placement, Screen, Surface
from recsys.domain.query import Query
from recsys.domain.types import ACTIONS, F32, I32
from recsys.domain.viewer import ViewerState
from recsys.guidance.compilation.compile import compile_policy
from recsys.models.bundle import Bundle
from recsys.models.ranker import Predictor, Ranker, tensors
from recsys.models.retriever import Retriever
from recsys.models.served_model import ServedModel

REFRESH = 50
"""The orders of popular and new items are derived again after so many pages; serving does it every second or so."""


@dataclass(frozen=True)
class CandidateSet:
    """Candidates of one page, N of them.

    row [N] catalogue rows, rising · affinity [N] match of viewer and item · features [N, F] as in FEATURES
    """

    row: I32
    affinity: F32
    features: F32


class CandidateGenerator:
    """Asks serving's sources, without any policy, and keeps what may be shown."""

    def __init__(self, catalog: Catalog, retriever: Retriever) -> None:
        self._catalog, self._model = catalog, _unranked(retriever)
        self._policy = compile_policy((), catalog)
        self._index: CandidateIndex | None = None
        self._pages = 0

    def generate(
        self, event: ViewerEvent, at: float, viewer: ViewerState | None, stats: ItemStats, without: I32
    ) -> CandidateSet:
        """Candidates for the viewer of `event`, where and on what the event happened, at unix second `at`.

        `without` [M] rows are not proposed. `stats` must be as of `at` or before.
        """
        if self._index is None or self._pages % REFRESH == 0:
            self._index = CandidateIndex.of(self._catalog, stats, self._model)
        self._pages += 1
        query, retriever = _query(event, at), self._model.retriever
        vector = retriever.viewer_vector(viewer) if viewer is not None else None
        ask = RequestContext(
            query,
            viewer,
            self._catalog,
            stats,
            self._model,
            self._policy,
            self._index,
            vector,
            content_profile=content_profile(viewer, self._catalog, at),
        )
        named = np.zeros(len(self._catalog), np.bool_)
        for source in SOURCES.values():
            rows = source(ask)
            named[rows[rows >= 0]] = True
        named[without] = False
        proposed = np.flatnonzero(named).astype(np.int32)
        allowed, _ = first_match(ineligible(self._catalog, proposed, query, viewer))
        row: I32 = proposed[allowed]
        affinity = np.zeros(len(row), np.float32)
        if vector is not None:
            position = self._index.position_of_row[row]
            affinity = np.where(position >= 0, retriever.scores(vector, position), np.float32(0.0))
        screen = query.placement.screen
        features = columns(row, affinity, viewer, self._catalog, stats, at, event.region, screen)
        return CandidateSet(row, affinity, features)


def _query(event: ViewerEvent, at: float) -> Query:
    """The request that this event's viewer would have made; the web's home page where the event does not say."""
    if event.placement:
        placement = Placement.parse(event.placement)
    else:
        placement = Placement("any", event.screen or Screen.WEB, Surface.HOME)
    return Query(event.id, event.viewer_id, placement, event.region, at, slots=1, guided=False)


def _unranked(retriever: Retriever) -> ServedModel:
    """A model of which only retrieval has been learned, as the sources want one; its ranker is never asked."""
    items = len(retriever.item_ids)
    network = Ranker(len(FEATURES), len(ACTIONS), hidden=1)
    bundle = Bundle(
        version="unranked",
        created_at=0.0,
        item_ids=retriever.item_ids,
        item_vectors=retriever.vectors,
        retriever_params={},
        popularity=np.zeros(items, np.float32),
        network=tensors(network),
        feature_names=FEATURES,
        probe_features=np.zeros((0, len(FEATURES)), np.float32),
        probe_p=np.zeros((0, len(ACTIONS)), np.float32),
        metrics={},
    )
    return ServedModel(bundle, retriever, Predictor(network))
