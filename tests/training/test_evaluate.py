"""The evaluation: what a case may know, what it must find, and what a list may hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from features.columns import FEATURES
from features.events.decode import ViewerEvent
from features.state.fold import LoggedEvent, fold_viewer
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
def found(timeline: Timeline, catalog: Catalog, split: float) -> list[Case]:
    return build_cases(timeline, catalog, split)


def test_a_case_knows_the_older_half_and_seeks_what_was_wanted_in_the_newer(
    timeline: Timeline, catalog: Catalog, split: float, found: list[Case]
) -> None:
    assert {case.event.viewer_id for case in found} == {event.viewer_id for event in timeline.since(split)}
    for case in found:
        viewer_id = case.event.viewer_id
        before = [event for event in timeline.before(split) if event.viewer_id == viewer_id]
        after = [event for event in timeline.since(split) if event.viewer_id == viewer_id]
        known, sought = before + after[: len(after) // 2], after[len(after) // 2 :]
        placed = [LoggedEvent("any", n, event) for n, event in enumerate(known)]
        expected = fold_viewer(ViewerState(viewer_id), placed) if placed else None
        assert (case.viewer and case.viewer.recent) == (expected and expected.recent)
        assert case.acted_rows.tolist() == sorted({catalog.row_of[str(event.item_id)] for event in known})
        wanted = {catalog.row_of[str(event.item_id)] for event in sought if event.kind != "dislike"}
        assert case.relevant == wanted - set(case.acted_rows.tolist())
        assert case.event is sought[0]


def test_item_counts_stay_as_they_were_at_the_split(
    timeline: Timeline, catalog: Catalog, split: float, found: list[Case]
) -> None:
    played = Counter(event.item_id for event in timeline.before(split) if event.kind != "dislike")
    for case in found:
        assert {catalog.ids[row] for row in np.flatnonzero(case.stats.count[:, 0])} == set(played)


def test_no_list_repeats_an_item_or_holds_one_the_viewer_acted_on(
    timeline: Timeline, catalog: Catalog, split: float, found: list[Case]
) -> None:
    retriever = fit(interactions(timeline.before(split), catalog), Als(factors=8, iterations=3), seed=1)
    predictor = Predictor(Ranker(len(FEATURES), len(ACTIONS)))
    for lister in (
        by_popularity,
        by_retrieval(catalog, retriever),
        by_ranker(catalog, retriever, predictor, weight_vector()),
    ):
        for case in found:
            listed = lister(case, 50).tolist()
            assert len(set(listed)) == len(listed) == 50
            assert not set(listed) & set(case.acted_rows.tolist())


def test_retrieval_gives_who_is_unknown_what_is_popular(
    timeline: Timeline, catalog: Catalog, split: float, found: list[Case]
) -> None:
    retriever = fit(interactions(timeline.before(split), catalog), Als(factors=8, iterations=3), seed=1)
    stranger = Case(found[0].event, None, found[0].stats, np.zeros(0, np.int32), frozenset({1}))
    listed = by_retrieval(catalog, retriever)(stranger, 10)
    assert listed.tolist() == by_popularity(stranger, 10).tolist()
    popularity = stranger.stats.popularity()
    assert popularity[listed].tolist() == sorted(popularity.tolist(), reverse=True)[:10]


def test_best_leaves_out_what_has_no_worth(found: list[Case]) -> None:
    worth = np.array([1.0, -np.inf, 3.0, 2.0], np.float32)
    assert top_k(worth, np.array([2], np.int32), k=10).tolist() == [3, 0]
    assert worth[2] == 3.0  # the caller's column is left alone


def test_knowing_the_answer_gives_full_marks_and_the_gain_is_paired(found: list[Case]) -> None:
    config = Evaluation(ndcg_at=5, recall_at=10, rounds=100)
    oracle = evaluate("oracle", lambda case, k: np.array(sorted(case.relevant)[:k], np.int32), found, 160, config)
    assert oracle.ndcg.tolist() == pytest.approx([1.0] * len(found))
    assert oracle.recall.tolist() == pytest.approx([1.0] * len(found))
    popularity = evaluate("popularity", by_popularity, found, 160, config)
    over = compare(oracle, popularity, config, seed=1)
    assert over.mean == pytest.approx(1.0 - popularity.ndcg.mean())
    assert over.low <= over.mean <= over.high


def test_a_split_after_which_nobody_came_is_refused(timeline: Timeline, catalog: Catalog) -> None:
    with pytest.raises(InvalidInput, match="nothing to evaluate on"):
        build_cases(timeline, catalog, timeline.end)
