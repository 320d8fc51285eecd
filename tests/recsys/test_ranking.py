"""The ranker answers in its own order, never extrapolates, and is deaf to what it has never seen vary."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import BundleError
from recsys.ranking.model import SILENT, WITHIN, Predictor, Ranker, tensors
from recsys.ranking.utility import WORTH, utility

F, A = 3, 4


@pytest.fixture(scope="module")
def network() -> dict[str, np.ndarray]:
    torch.manual_seed(2)
    ranker = Ranker(F, A, hidden=6)
    with torch.no_grad():
        ranker.mean.copy_(torch.tensor([1.0, -2.0, 5.0]))
        ranker.std.copy_(torch.tensor([2.0, 0.5, SILENT]))
    return tensors(ranker)


@given(st.lists(st.tuples(*[st.floats(-1e6, 1e6, width=32)] * F), min_size=1, max_size=5))
def test_beyond_what_was_learned_the_nearest_answers(network: dict[str, np.ndarray], rows: list[tuple[float]]) -> None:
    features = np.array(rows, np.float32)
    mean, std = network["mean"], network["std"]
    held = np.clip(features, mean - WITHIN * std, mean + WITHIN * std).astype(np.float32)
    predictor = Predictor.load(network)
    np.testing.assert_allclose(predictor.p(features), predictor.p(held), atol=1e-5)


def test_a_feature_that_never_varied_says_nothing(network: dict[str, np.ndarray]) -> None:
    predictor = Predictor.load(network)
    other = np.array([[1.0, -2.0, 5.0], [1.0, -2.0, 900.0]], np.float32)
    np.testing.assert_allclose(*predictor.p(other), atol=1e-5)


def test_calibration_scales_and_shifts_logits(network: dict[str, np.ndarray]) -> None:
    features = np.zeros((1, F), np.float32)
    plain = Predictor.load(network).p(features)
    moved = Predictor.load({**network, "shift": network["shift"] + 1, "scale": network["scale"] * 2}).p(features)
    logit = np.log(plain / (1 - plain))
    np.testing.assert_allclose(moved, 1 / (1 + np.exp(-(2 * logit + 1))), rtol=1e-4)


def test_tensors_of_another_shape_are_refused(network: dict[str, np.ndarray]) -> None:
    with pytest.raises(BundleError, match="not a ranker"):
        Predictor.load({**network, "mean": np.zeros(F + 1, np.float32)})


def test_utility_is_what_each_action_is_worth() -> None:
    np.testing.assert_array_equal(utility(np.eye(A, dtype=np.float32)), WORTH)
