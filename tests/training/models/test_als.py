"""ALS: fitted factors agree with the way serving folds viewers in."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import threadpoolctl  # type: ignore[import-untyped]
from implicit.als import AlternatingLeastSquares
from msgspec.structs import replace

from features.events.schema import ViewerEvent
from features.state.fold import fold_viewer
from features.state.votes import LoggedEvent
from recsys.domain.catalog import Catalog
from recsys.domain.errors import InvalidInput
from recsys.domain.viewer import ViewerState
from recsys.models.history import history
from training.config import Als
from training.models.als import fit, interactions

MakeEvents = Callable[..., list[ViewerEvent]]
ALS = Als(factors=8, iterations=8, regularization=0.5, alpha=2.0)


def state(events: list[ViewerEvent], viewer_id: str) -> ViewerState:
    own = [event for event in events if event.viewer_id == viewer_id]
    return fold_viewer(ViewerState(viewer_id), [LoggedEvent("t/0", n, event) for n, event in enumerate(own)])


def test_interaction_weights_equal_those_of_the_viewers_state(make_events: MakeEvents, catalog: Catalog) -> None:
    events = make_events(viewers=20)
    data = interactions(events, catalog)
    for row, viewer_id in enumerate(dict.fromkeys(event.viewer_id for event in events)):
        line = data.weight[row]
        weights = {data.item_ids[column]: w for column, w in zip(line.indices, line.data, strict=True)}
        assert weights == pytest.approx(history(state(events, viewer_id)))


def test_serving_folds_viewers_in_as_the_fit_does(make_events: MakeEvents, catalog: Catalog) -> None:
    """Oracle: implicit's own exact solution for a viewer, given the item factors."""
    events = make_events(viewers=40)
    data = interactions(events, catalog)
    retriever = fit(data, ALS, seed=1)
    with threadpoolctl.threadpool_limits(1, "blas"):
        peer = AlternatingLeastSquares(ALS.factors, regularization=ALS.regularization, alpha=1.0, use_cg=False)
        peer.item_factors = retriever.vectors
        peer.user_factors = np.zeros((1, ALS.factors), np.float32)
        confidence = data.weight.copy()
        confidence.data = 1.0 + ALS.alpha * confidence.data
        for row, viewer_id in enumerate(dict.fromkeys(event.viewer_id for event in events)):
            vector = retriever.viewer_vector(state(events, viewer_id))
            assert vector == pytest.approx(peer.recalculate_user(0, confidence[row]), rel=2e-3, abs=2e-4)


def test_item_factors_are_a_fixed_point_for_viewers_folded_in_by_serving(
    make_events: MakeEvents, catalog: Catalog
) -> None:
    """After the fit, another solve for the items, with viewers as folded in by serving, hardly changes them."""
    events = make_events(viewers=40)
    data = interactions(events, catalog)
    config = ALS.model_copy(update={"iterations": 200, "factors": 4})
    retriever = fit(data, config, seed=1)
    ids = dict.fromkeys(event.viewer_id for event in events)
    viewers = np.array([retriever.viewer_vector(state(events, viewer_id)) for viewer_id in ids], np.float64)
    resolved = np.empty_like(retriever.vectors)
    for item, weight in enumerate(data.weight.toarray().T):
        confidence, positive = 1.0 + config.alpha * weight, weight > 0
        gram = (viewers.T * confidence) @ viewers + config.regularization * np.eye(config.factors)
        resolved[item] = np.linalg.solve(gram, viewers.T @ (confidence * positive))
    change = np.linalg.norm(resolved - retriever.vectors) / np.linalg.norm(retriever.vectors)
    assert change < 0.02


def test_the_same_data_and_seed_give_the_same_factors(make_events: MakeEvents, catalog: Catalog) -> None:
    data = interactions(make_events(viewers=40), catalog)
    assert np.array_equal(fit(data, ALS, seed=1).vectors, fit(data, ALS, seed=1).vectors)
    assert not np.array_equal(fit(data, ALS, seed=1).vectors, fit(data, ALS, seed=2).vectors)


def test_items_missing_from_the_catalog_are_left_out(make_events: MakeEvents, catalog: Catalog) -> None:
    events = make_events(viewers=5)
    unknown = [replace(event, item_id=f"gone-{event.id}") for event in events]
    assert set(interactions(events + unknown, catalog).item_ids) <= set(catalog.ids)
    with pytest.raises(InvalidInput, match="no action on an item of the catalog"):
        interactions(unknown, catalog)
