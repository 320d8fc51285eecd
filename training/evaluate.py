"""Offline evaluation of models against popularity, on held-out events after a temporal split.

Models are fitted on the events before the split. Each viewer with events after it is one test case: the older half of
those events extends the viewer's history, and the newer half holds the relevant items. Any item of the catalog that the
viewer has not acted on may be recommended; item counts stay as they were at the split.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from features.events.schema import ViewerEvent
from recsys.domain.catalog import Catalog
from recsys.domain.errors import InvalidInput
from recsys.domain.item_statistics import ItemStats
from recsys.domain.types import F64, I32
from recsys.domain.viewer import ViewerState
from recsys.metrics.accuracy import coverage, ndcg, recall
from recsys.models.ranker import Predictor
from recsys.models.retriever import Retriever
from recsys.utility import utility
from training.candidate_generation import CandidateGenerator
from training.confidence import Interval, bootstrap
from training.config import Evaluation
from training.state_replay import StateReplay, replay_events
from training.timeline import Timeline, positive_row

POSITIVE_KINDS = frozenset({"play", "complete", "like"})
"""Kinds of event that make an item relevant."""


@dataclass(frozen=True)
class Case:
    """A request by a viewer after the split.

    event       the first event of the newer half; gives the viewer, time, placement and screen
    viewer      the viewer's state at the request; None for a viewer without history
    stats       item statistics as of the split
    acted_rows  [M] catalog rows that the viewer has acted on; they are not recommended
    relevant    catalog rows of the held-out items that a recommender should find
    """

    event: ViewerEvent
    viewer: ViewerState | None
    stats: ItemStats
    acted_rows: I32
    relevant: frozenset[int]


Recommender = Callable[[Case, int], I32]
"""A model under test: (case, k) -> at most k catalog rows, best first, none of them in `case.acted_rows`."""


@dataclass(frozen=True)
class Result:
    """The metrics of a model; `ndcg` and `recall` are per test case [V], `coverage` is a share of the catalog."""

    name: str
    ndcg: F64
    recall: F64
    coverage: float


def build_cases(timeline: Timeline, catalog: Catalog, split: float) -> list[Case]:
    """Return a test case for each viewer with relevant new items in the newer half of the events after the split.

    Raises InvalidInput when there are none.
    """
    first = timeline.index(split)
    replay = StateReplay(timeline, catalog)
    replay.advance(first)
    after: dict[str, list[ViewerEvent]] = defaultdict(list)
    for event in timeline.events[first:]:
        if positive_row(event, catalog) is not None:
            after[event.viewer_id].append(event)
    test_cases = []
    for viewer_id, events in after.items():
        older, newer = events[: len(events) // 2], events[len(events) // 2 :]
        replay_events(replay, older, first)
        acted = replay.acted(viewer_id)
        positive = {row for e in newer if e.kind in POSITIVE_KINDS and (row := positive_row(e, catalog)) is not None}
        if relevant := positive.difference(acted.tolist()):
            now = newer[0].at
            test_cases.append(
                Case(newer[0], replay.viewer(viewer_id, now), replay.stats(now), acted, frozenset(relevant))
            )
    if not test_cases:
        raise InvalidInput("no viewer has a relevant new item after the split: there is nothing to evaluate on")
    return test_cases


def by_popularity(case: Case, k: int) -> I32:
    """Recommend the most popular items as of the split: the baseline."""
    return top_k(case.stats.popularity(), case.acted_rows, k)


def by_retrieval(catalog: Catalog, retriever: Retriever) -> Recommender:
    """Return a recommender of the items closest to the viewer's history.

    It falls back to popularity for viewers without history on items of the model.
    """
    rows = catalog.rows(retriever.item_ids)

    def recommend(case: Case, k: int) -> I32:
        vector = retriever.viewer_vector(case.viewer) if case.viewer is not None else None
        if vector is None:
            return by_popularity(case, k)
        affinity = np.full(len(catalog), -np.inf, np.float32)
        affinity[rows] = retriever.vectors @ vector
        return top_k(affinity, case.acted_rows, k)

    return recommend


def by_ranker(catalog: Catalog, retriever: Retriever, predictor: Predictor, weight: F64) -> Recommender:
    """Return a recommender that works like serving without a policy: candidates of its sources, sorted by utility.

    weight  [A]  of each action, in play equivalents
    """
    generator = CandidateGenerator(catalog, retriever)

    def recommend(case: Case, k: int) -> I32:
        candidates = generator.generate(case.event, case.event.at, case.viewer, case.stats, case.acted_rows)
        value = utility(predictor.p(candidates.features), weight)
        order: I32 = candidates.row[np.argsort(-value, kind="stable")[:k]]
        return order

    return recommend


def top_k(score: F64 | np.ndarray[tuple[int], np.dtype[np.float32]], excluded: I32, k: int) -> I32:
    """Return the k rows with the highest finite score, except `excluded`, best first, ties by row.

    >>> top_k(np.array([3.0, 9.0, 5.0, 3.0]), np.array([1], np.int32), k=2)
    array([2, 0], dtype=int32)
    """
    score = score.copy()
    score[excluded] = -np.inf
    order = np.argsort(-score, kind="stable")[:k]
    rows: I32 = order[np.isfinite(score[order])].astype(np.int32)
    return rows


def evaluate(
    name: str,
    recommender: Recommender,
    test_cases: Sequence[Case],
    n_items: int,
    config: Evaluation,
    progress: bool = False,
) -> Result:
    """Evaluate a model on all test cases; `n_items` is the size of the catalog, for coverage."""
    k = max(config.ndcg_at, config.recall_at)
    cases = tqdm(test_cases, desc=name, unit="viewer", leave=False, disable=not progress)
    lists = [recommender(case, k).tolist() for case in cases]
    return Result(
        name,
        np.array([ndcg(rows, case.relevant, config.ndcg_at) for rows, case in zip(lists, test_cases, strict=True)]),
        np.array([recall(rows, case.relevant, config.recall_at) for rows, case in zip(lists, test_cases, strict=True)]),
        coverage((rows[: config.ndcg_at] for rows in lists), n_items),
    )


def compare(result: Result, baseline: Result, config: Evaluation, seed: int) -> Interval:
    """Return the mean gain in nDCG over the baseline, paired by viewer, with its bootstrap interval."""
    return bootstrap(result.ndcg - baseline.ndcg, config.rounds, seed)
