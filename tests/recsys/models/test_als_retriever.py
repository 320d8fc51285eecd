"""Fold-in of viewers against its definition, and nearest items against sorting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from recsys.domain.viewer import Recent, ViewerState
from recsys.models.als import AlsRetriever, fold_in
from recsys.models.history import history
from recsys.supply.stratify import stratified_top


def test_fold_in_minimises_the_loss_of_implicit_als() -> None:
    """Hu, Koren & Volinsky's weighted loss over all items has the same minimum when minimised numerically."""
    rng = np.random.default_rng(3)
    y = rng.normal(size=(12, 3)).astype(np.float32)
    rows, weight = np.array([2, 5, 9], np.int32), np.array([1.0, 3.0, 0.5], np.float32)
    confidence, preference = np.ones(12), np.zeros(12)
    confidence[rows] += 4.0 * weight
    preference[rows] = 1.0

    def loss(x: np.ndarray) -> float:
        return float(confidence @ (preference - y @ x) ** 2 + 0.3 * x @ x)

    x = fold_in(y, y.T @ y, rows, weight, regularization=0.3, alpha=4.0)
    np.testing.assert_allclose(x, minimize(loss, np.zeros(3), tol=1e-12).x, atol=1e-4)


@given(st.integers(0, 2**32 - 1), st.integers(1, 20), st.booleans())
def test_nearest_equals_sorting_by_score(seed: int, count: int, limited: bool) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(30, 4)).astype(np.float32)
    allowed = rng.random(30) < 0.5 if limited else np.ones(30, np.bool_)
    query = rng.normal(size=4).astype(np.float32)
    nearest = AlsRetriever(tuple(map(str, range(30))), vectors, 0.1, 1.0).nearest(query, count, allowed)
    rows = np.flatnonzero(allowed)
    scores = vectors[rows] @ query
    assert len(nearest) == min(count, len(rows))
    np.testing.assert_allclose(vectors[nearest] @ query, np.sort(scores)[::-1][: len(nearest)], rtol=1e-5, atol=1e-6)
    assert allowed[nearest].all()


def viewer(*actions: tuple[str, str]) -> ViewerState:
    return ViewerState("v", tuple(Recent(item, kind, float(at)) for at, (item, kind) in enumerate(actions)))


def test_history_keeps_the_strongest_action_and_a_hide_resets_it() -> None:
    assert history(viewer(("a", "play"), ("a", "like"), ("b", "like"), ("b", "hide"), ("c", "open"))) == {
        "a": 3.0,
        "b": pytest.approx(0.1),
    }


def test_a_viewer_without_items_of_the_model_has_no_vector() -> None:
    retriever = AlsRetriever(("a",), np.ones((1, 2), np.float32), 0.1, 1.0)
    assert retriever.viewer_vector(viewer()) is None
    assert retriever.viewer_vector(viewer(("unknown", "like"))) is None
    assert retriever.viewer_vector(viewer(("a", "like"))) is not None


@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.integers(0, 4)), max_size=20), st.integers(0, 10))
def test_supply_comes_from_several_topics(items: list[tuple[float, int]], count: int) -> None:
    hint = np.array([h for h, _ in items], np.float32)
    topic = np.array([t for _, t in items], np.int32)
    rows = np.arange(len(items), dtype=np.int32)
    chosen = stratified_top(rows, hint, topic, count)
    assert len(chosen) == len(set(chosen.tolist())) == min(count, len(items))
    assert len(set(topic[chosen].tolist())) >= min(3, count, len(set(topic.tolist())))
