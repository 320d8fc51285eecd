"""Does it help? Every model against popularity, on a split by time.

Models know what was before the split. Each viewer with events after it is one case: the older half of those events is
history when the page is asked for, and the page should hold what the viewer wanted in the newer half. Any item of the
catalogue that the viewer has not acted on may be listed; item counts stay as they were at the split.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from features.events.decode import ViewerEvent
from recsys.domain.catalog import Catalog
from recsys.domain.errors import InvalidInput
from recsys.domain.types import F64, I32
from recsys.domain.viewer import ItemStats, ViewerState
from recsys.metrics.accuracy import Interval, bootstrap, coverage, ndcg, recall
from recsys.models.ranker import Predictor
from recsys.models.retriever import Retriever
from recsys.utility import utility
from training.candidate_generation import CandidateGenerator
from training.config import Evaluation
from training.state_replay import StateReplay, replay_events
from training.timeline import Timeline, positive_row

WANTED = frozenset({"play", "complete", "like"})
"""Kinds of event that make an item a target: the viewer wanted it."""


@dataclass(frozen=True)
class Case:
    """One viewer asking for a page after the split: what is known then, and what should be on the page."""

    event: ViewerEvent  # the first of the newer half: who, when, where, on what screen
    viewer: ViewerState | None
    stats: ItemStats
    acted_rows: I32
    relevant: frozenset[int]


Recommender = Callable[[Case, int], I32]
"""A model under test: (case, k) -> at most k catalogue rows, best first, none of them in `case.acted`."""


@dataclass(frozen=True)
class Result:
    """Figures of one model; `ndcg` and `recall` per case [V]."""

    name: str
    ndcg: F64
    recall: F64
    coverage: float


def build_cases(timeline: Timeline, catalog: Catalog, split: float) -> list[Case]:
    """The viewers who acted after the split and want something new in their newer half.

    Raises InvalidInput when there are none.
    """
    first = timeline.index(split)
    replay = StateReplay(timeline, catalog)
    replay.advance(first)
    after: dict[str, list[ViewerEvent]] = defaultdict(list)
    for event in timeline.events[first:]:
        if positive_row(event, catalog) is not None:
            after[event.viewer_id].append(event)
    found = []
    for viewer_id, events in after.items():
        older, newer = events[: len(events) // 2], events[len(events) // 2 :]
        replay_events(replay, older, first)
        acted = replay.acted(viewer_id)
        wanted = {row for e in newer if e.kind in WANTED and (row := positive_row(e, catalog)) is not None}
        if targets := wanted.difference(acted.tolist()):
            now = newer[0].at
            found.append(Case(newer[0], replay.viewer(viewer_id, now), replay.stats(now), acted, frozenset(targets)))
    if not found:
        raise InvalidInput("nobody wanted anything new after the split: there is nothing to evaluate on")
    return found


def by_popularity(case: Case, k: int) -> I32:
    """The baseline: what was most popular at the split."""
    return top_k(case.stats.popularity(), case.acted_rows, k)


def by_retrieval(catalog: Catalog, retriever: Retriever) -> Recommender:
    """What is nearest to the viewer's history; who has none that the model knows gets what is popular."""
    rows = catalog.rows(retriever.item_ids)

    def listed(case: Case, k: int) -> I32:
        vector = retriever.viewer_vector(case.viewer) if case.viewer is not None else None
        if vector is None:
            return by_popularity(case, k)
        affinity = np.full(len(catalog), -np.inf, np.float32)
        affinity[rows] = retriever.vectors @ vector
        return top_k(affinity, case.acted_rows, k)

    return listed


def by_ranker(catalog: Catalog, retriever: Retriever, predictor: Predictor, weight: F64) -> Recommender:
    """What serving would list without any policy: proposals of its sources, by utility.

    weight  [A]  of each action, in play equivalents
    """
    proposer = CandidateGenerator(catalog, retriever)

    def listed(case: Case, k: int) -> I32:
        proposals = proposer.generate(case.event, case.event.at, case.viewer, case.stats, case.acted_rows)
        value = utility(predictor.p(proposals.features), weight)
        order: I32 = proposals.row[np.argsort(-value, kind="stable")[:k]]
        return order

    return listed


def top_k(worth: F64 | np.ndarray[tuple[int], np.dtype[np.float32]], without: I32, k: int) -> I32:
    """The k rows of largest finite worth except `without`, best first, ties by row.

    >>> best(np.array([3.0, 9.0, 5.0, 3.0]), np.array([1], np.int32), k=2)
    array([2, 0], dtype=int32)
    """
    worth = worth.copy()
    worth[without] = -np.inf
    order = np.argsort(-worth, kind="stable")[:k]
    rows: I32 = order[np.isfinite(worth[order])].astype(np.int32)
    return rows


def evaluate(
    name: str, lister: Recommender, at: Sequence[Case], items: int, config: Evaluation, progress: bool = False
) -> Result:
    """One model over all cases; `items` is the size of the catalogue, for coverage."""
    k = max(config.ndcg_at, config.recall_at)
    asked = tqdm(at, desc=name, unit="viewer", leave=False, disable=not progress)
    lists = [lister(case, k).tolist() for case in asked]
    return Result(
        name,
        np.array([ndcg(rows, case.relevant, config.ndcg_at) for rows, case in zip(lists, at, strict=True)]),
        np.array([recall(rows, case.relevant, config.recall_at) for rows, case in zip(lists, at, strict=True)]),
        coverage((rows[: config.ndcg_at] for rows in lists), items),
    )


def compare(result: Result, over: Result, config: Evaluation, seed: int) -> Interval:
    """How much better in nDCG, viewer by viewer, with the interval that other viewers might give."""
    return bootstrap(result.ndcg - over.ndcg, config.rounds, seed)
