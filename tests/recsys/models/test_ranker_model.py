"""The ranker: clipping, calibration, coherent probabilities; and the action weights of utility."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.domain.errors import BundleError
from recsys.domain.types import ACTIONS
from recsys.models.probabilities import COMPLETE, PLAY, coherent
from recsys.models.ranker import EXCLUDED_VALUE, MAX_DEVIATIONS, Predictor, Ranker, tensors
from recsys.utility import DEFAULT_WEIGHTS, utility, weight_faults, weight_vector

F, A = 3, 4


@pytest.fixture(scope="module")
def network() -> dict[str, np.ndarray]:
    torch.manual_seed(2)
    ranker = Ranker(F, A, hidden=6)
    with torch.no_grad():
        ranker.mean.copy_(torch.tensor([1.0, -2.0, 5.0]))
        ranker.std.copy_(torch.tensor([2.0, 0.5, EXCLUDED_VALUE]))
    return tensors(ranker)


@given(st.lists(st.tuples(*[st.floats(-1e6, 1e6, width=32)] * F), min_size=1, max_size=5))
def test_features_outside_the_training_range_are_clipped(
    network: dict[str, np.ndarray], rows: list[tuple[float]]
) -> None:
    features = np.array(rows, np.float32)
    mean, std = network["mean"], network["std"]
    clipped = np.clip(features, mean - MAX_DEVIATIONS * std, mean + MAX_DEVIATIONS * std).astype(np.float32)
    predictor = Predictor.load(network)
    np.testing.assert_allclose(predictor.p(features), predictor.p(clipped), atol=1e-5)


def test_a_feature_that_was_constant_in_training_has_no_effect(network: dict[str, np.ndarray]) -> None:
    predictor = Predictor.load(network)
    features = np.array([[1.0, -2.0, 5.0], [1.0, -2.0, 900.0]], np.float32)
    np.testing.assert_allclose(*predictor.p(features), atol=1e-5)


def test_calibration_scales_and_shifts_logits(network: dict[str, np.ndarray]) -> None:
    features = np.zeros((1, F), np.float32)
    p = Predictor.load({**network, "shift": network["shift"] + 1, "scale": network["scale"] * 2}).p(features)
    logit = raw_logits(network, features)
    np.testing.assert_allclose(p, coherent(1 / (1 + np.exp(-(2 * logit + 1)))), rtol=1e-4)


def raw_logits(network: dict[str, np.ndarray], features: np.ndarray) -> np.ndarray:
    """Return [N, A] the network's logits before calibration."""
    ranker = Ranker(F, A, hidden=6)
    ranker.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in network.items()})
    with torch.inference_mode():
        logits: np.ndarray = ranker.raw(torch.from_numpy(features)).numpy()
    return logits


calibration = st.lists(st.floats(-20, 20, width=32), min_size=A, max_size=A).map(lambda x: np.array(x, np.float32))


@given(st.lists(st.tuples(*[st.floats(-9, 9, width=32)] * F), min_size=1, max_size=5), calibration, calibration)
def test_p_complete_never_exceeds_p_play(
    network: dict[str, np.ndarray], rows: list[tuple[float]], scale: np.ndarray, shift: np.ndarray
) -> None:
    features = np.array(rows, np.float32)
    p = Predictor.load({**network, "scale": np.abs(scale), "shift": shift}).p(features)
    assert ((p >= 0) & (p <= 1)).all()
    assert (p[:, COMPLETE] <= p[:, PLAY]).all()
    independent = 1 / (1 + np.exp(-(raw_logits(network, features).astype(np.float64) * np.abs(scale) + shift)))
    expected = independent.copy()
    expected[:, COMPLETE] = np.minimum(independent[:, COMPLETE], independent[:, PLAY])
    np.testing.assert_allclose(p, expected, atol=1e-5)  # nothing else is changed


def test_an_estimate_that_is_not_a_number_is_refused(network: dict[str, np.ndarray]) -> None:
    with pytest.raises(FloatingPointError, match="not a number"):
        Predictor.load(network).p(np.full((1, F), np.nan, np.float32))


def test_a_ranker_with_other_actions_is_refused() -> None:
    with pytest.raises(BundleError, match="predicts 2 actions, expected 4: play, complete"):
        Predictor.load(tensors(Ranker(F, 2, hidden=6)))


def test_tensors_of_another_shape_are_refused(network: dict[str, np.ndarray]) -> None:
    with pytest.raises(BundleError, match="not a ranker"):
        Predictor.load({**network, "mean": np.zeros(F + 1, np.float32)})


def test_the_utility_of_a_certain_action_is_its_weight() -> None:
    weight = weight_vector({"dislike": -5.0, "like": 0.25, "complete": 3.0, "play": 1.0})
    assert weight.tolist() == [1.0, 3.0, 0.25, -5.0]
    np.testing.assert_array_equal(utility(np.eye(A, dtype=np.float32), weight), weight)


vectors = st.lists(st.floats(-100, 100), min_size=A, max_size=A).map(np.array)


@given(
    st.lists(st.lists(st.floats(0, 1, width=32), min_size=A, max_size=A), min_size=1, max_size=5),
    vectors,
    vectors,
    st.floats(-10, 10),
)
def test_utility_is_linear_in_the_weights(rows: list[list[float]], a: np.ndarray, b: np.ndarray, factor: float) -> None:
    p = np.array(rows, np.float32)
    expected = utility(p, a) + factor * utility(p, b)
    np.testing.assert_allclose(utility(p, a + factor * b), expected, atol=1e-9)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"like": float("nan")}, "the weight of like is nan"),
        ({"like": float("inf")}, "the weight of like is inf"),
        ({"like": 10**400}, "the weight of like is 1000"),
        ({"like": "2"}, "the weight of like is '2'"),
        ({"like": True}, "the weight of like is True"),
        ({"share": 1.0}, "a weight for share, which is not an action"),
        ({"play": 0.0}, "the weight of play is 0, expected 1"),
        ({"play": -1.0}, "the weight of play is -1, expected 1"),
        ({"play": 4.0}, "divide all weights by 4"),
    ],
)
def test_invalid_weights_are_reported(change: dict[str, object], fault: str) -> None:
    assert weight_faults(DEFAULT_WEIGHTS) == []
    [message] = weight_faults({**DEFAULT_WEIGHTS, **change})
    assert fault in message


@pytest.mark.parametrize("action", ACTIONS)
def test_an_action_without_a_weight_is_reported(action: str) -> None:
    weights = {name: weight for name, weight in DEFAULT_WEIGHTS.items() if name != action}
    assert weight_faults(weights) == [f"no weight for {action}"]
