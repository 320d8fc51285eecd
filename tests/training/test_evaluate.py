"""Offline evaluation: the history and the relevant items of a test case, and valid recommendations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from features.columns import FEATURES
from features.events.schema import ViewerEvent
from features.state.fold import fold_viewer
from features.state.votes import LoggedEvent
from recsys.domain.catalog import Catalog
from recsys.domain.errors import InvalidInput
from recsys.domain.types import ACTIONS
from recsys.domain.viewer import ViewerState
from recsys.models.ranker import Predictor, Ranker
from recsys.utility import weight_vector
from training.config import Als, Evaluation
from training.evaluate import Case, build_cases, by_popularity, by_ranker, by_retrieval, compare, evaluate, top_k
from training.models.als import fit, interactions
from training.timeline import Timeline

MakeEvents = Callable[..., list[ViewerEvent]]


@pytest.fixture(scope="module")
def timeline(make_events: MakeEvents) -> Timeline:
    return Timeline.of(make_events(viewers=80))


@pytest.fixture(scope="module")
def split(timeline: Timeline) -> float:
    return timeline.cut(0.25)


@pytest.fixture(scope="module")
def eval_cases(timeline: Timeline, catalog: Catalog, split: float) -> list[Case]:
    return build_cases(timeline, catalog, split)


def test_a_case_has_the_older_half_as_history_and_positives_of_the_newer_half_as_relevant(
    timeline: Timeline, catalog: Catalog, split: float, eval_cases: list[Case]
) -> None:
    assert {case.event.viewer_id for case in eval_cases} == {event.viewer_id for event in timeline.since(split)}
    for case in eval_cases:
        viewer_id = case.event.viewer_id
        before = [event for event in timeline.before(split) if event.viewer_id == viewer_id]
        after = [event for event in timeline.since(split) if event.viewer_id == viewer_id]
        history, held_out = before + after[: len(after) // 2], after[len(after) // 2 :]
        logged = [LoggedEvent("any", n, event) for n, event in enumerate(history)]
        expected = fold_viewer(ViewerState(viewer_id), logged) if logged else None
        assert (case.viewer and case.viewer.recent) == (expected and expected.recent)
        assert case.acted_rows.tolist() == sorted({catalog.row_of[str(event.item_id)] for event in history})
        positive = {catalog.row_of[str(event.item_id)] for event in held_out if event.kind != "dislike"}
        assert case.relevant == positive - set(case.acted_rows.tolist())
        assert case.event is held_out[0]


def test_item_counts_stay_as_they_were_at_the_split(
    timeline: Timeline, catalog: Catalog, split: float, eval_cases: list[Case]
) -> None:
    played = Counter(event.item_id for event in timeline.before(split) if event.kind != "dislike")
    for case in eval_cases:
        assert {catalog.ids[row] for row in np.flatnonzero(case.stats.count[:, 0])} == set(played)


def test_recommendations_hold_no_duplicates_and_no_items_acted_on(
    timeline: Timeline, catalog: Catalog, split: float, eval_cases: list[Case]
) -> None:
    retriever = fit(interactions(timeline.before(split), catalog), Als(factors=8, iterations=3), seed=1)
    predictor = Predictor(Ranker(len(FEATURES), len(ACTIONS)))
    for recommender in (
        by_popularity,
        by_retrieval(catalog, retriever),
        by_ranker(catalog, retriever, predictor, weight_vector()),
    ):
        for case in eval_cases:
            recommended = recommender(case, 50).tolist()
            assert len(set(recommended)) == len(recommended) == 50
            assert not set(recommended) & set(case.acted_rows.tolist())


def test_retrieval_falls_back_to_popularity_for_new_viewers(
    timeline: Timeline, catalog: Catalog, split: float, eval_cases: list[Case]
) -> None:
    retriever = fit(interactions(timeline.before(split), catalog), Als(factors=8, iterations=3), seed=1)
    new_viewer = Case(eval_cases[0].event, None, eval_cases[0].stats, np.zeros(0, np.int32), frozenset({1}))
    recommended = by_retrieval(catalog, retriever)(new_viewer, 10)
    assert recommended.tolist() == by_popularity(new_viewer, 10).tolist()
    popularity = new_viewer.stats.popularity()
    assert popularity[recommended].tolist() == sorted(popularity.tolist(), reverse=True)[:10]


def test_top_k_leaves_out_rows_without_a_finite_score(eval_cases: list[Case]) -> None:
    score = np.array([1.0, -np.inf, 3.0, 2.0], np.float32)
    assert top_k(score, np.array([2], np.int32), k=10).tolist() == [3, 0]
    assert score[2] == 3.0  # the input is not modified


def test_a_perfect_recommender_scores_one_and_gains_are_paired_by_viewer(eval_cases: list[Case]) -> None:
    config = Evaluation(ndcg_at=5, recall_at=10, rounds=100)
    oracle = evaluate("oracle", lambda case, k: np.array(sorted(case.relevant)[:k], np.int32), eval_cases, 160, config)
    assert oracle.ndcg.tolist() == pytest.approx([1.0] * len(eval_cases))
    assert oracle.recall.tolist() == pytest.approx([1.0] * len(eval_cases))
    popularity = evaluate("popularity", by_popularity, eval_cases, 160, config)
    gain = compare(oracle, popularity, config, seed=1)
    assert gain.mean == pytest.approx(1.0 - popularity.ndcg.mean())
    assert gain.low <= gain.mean <= gain.high


def test_a_split_without_later_events_is_refused(timeline: Timeline, catalog: Catalog) -> None:
    with pytest.raises(InvalidInput, match="nothing to evaluate on"):
        build_cases(timeline, catalog, timeline.end)
