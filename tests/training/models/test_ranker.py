"""The ranker: what it must recover from synthetic data with known probabilities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.optimize import minimize  # type: ignore[import-untyped]

from features.columns import FEATURES
from recsys.domain.errors import InvalidInput
from recsys.domain.types import ACTIONS, F32, F64
from recsys.models.ranker import EXCLUDED_VALUE, Predictor, Ranker, tensors
from training.config import Network
from training.examples import Rows, _sample
from training.models.ranker import _standardise, platt, quality, train

NETWORK = Network(hidden=16, epochs=20, batch=512, learning_rate=3e-3)


def truth(features: F32) -> F64:
    """Return the probability of each action [R, 4]; the last action never happens."""
    logits = np.column_stack([
        features[:, 0] - 2.0,
        features[:, 0] + features[:, 1] - 3.0,
        np.abs(features[:, 1]) - 2.5,
        np.full(len(features), -np.inf),
    ])  # fmt: skip
    return np.asarray(1.0 / (1.0 + np.exp(-logits)))


def synthetic_rows(n_points: int = 400, per_point: int = 40, seed: int = 1) -> Rows:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n_points * per_point, 3)).astype(np.float32) * [1.0, 1.0, 50.0] + [0.0, 0.0, 900.0]
    features = features.astype(np.float32)
    label = (rng.random((len(features), 4)) < truth(features)).astype(np.float32)
    point = np.repeat(np.arange(n_points), per_point).astype(np.int32)
    return Rows(features, label, np.ones(len(features), np.float32), point)


def sample_negatives(rows: Rows, negatives: int) -> Rows:
    """Sample the rows as `build_rows` does."""
    parts = []
    for point in range(int(rows.point[-1]) + 1):
        whole = rows.take(rows.point == point)
        sampled, weight = _sample(whole.label.any(axis=1), negatives, np.random.default_rng(point))
        parts.append(Rows(whole.features[sampled], whole.label[sampled], weight, whole.point[sampled]))
    return Rows(*(np.concatenate([getattr(part, name) for part in parts]) for name in Rows.__annotations__))


@pytest.mark.parametrize("negatives", [1000, 8])
def test_probabilities_are_unbiased_when_negatives_are_sampled(negatives: int) -> None:
    trained = train(sample_negatives(synthetic_rows(), negatives), NETWORK, seed=1)
    unseen = synthetic_rows(seed=9)
    p = Predictor(trained.network).p(unseen.features)
    expected = truth(unseen.features)
    assert np.abs(p.mean(axis=0) - expected.mean(axis=0)).max() < 0.012
    for action in range(3):
        assert np.corrcoef(p[:, action], expected[:, action])[0, 1] > 0.9
    metrics = quality(trained.network, unseen)
    assert all(metrics[f"calibration_error_{name}"] < 0.03 for name in ("play", "complete", "like"))
    assert all(metrics[f"normalised_entropy_{name}"] < 0.97 for name in ("play", "complete", "like"))
    assert "calibration_error_dislike" not in metrics  # the action never happened: there is nothing to measure


def test_the_weights_of_a_decision_point_add_up_to_its_candidates() -> None:
    whole = synthetic_rows(n_points=30)
    sample = sample_negatives(whole, 5)
    assert np.bincount(sample.point, sample.weight) == pytest.approx(np.bincount(whole.point))
    acted = sample.label.any(axis=1)
    assert acted.sum() == whole.label.any(axis=1).sum()
    assert (sample.weight[acted] == 1.0).all()


def test_the_same_rows_and_seed_give_the_same_network() -> None:
    rows = synthetic_rows(n_points=60)
    first, different = (tensors(train(rows, NETWORK, seed).network) for seed in (1, 2))
    torch.rand(7)  # other code in the process may draw from torch's global generator
    second = tensors(train(rows, NETWORK, 1).network)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert not np.array_equal(first["body.0.weight"], different["body.0.weight"])


def test_the_newest_decision_points_change_only_the_calibration() -> None:
    rows = synthetic_rows(n_points=100)
    newest = rows.point >= 85
    flipped = Rows(rows.features, np.where(newest[:, None], 1 - rows.label, rows.label), rows.weight, rows.point)
    a, b = (tensors(train(data, NETWORK, seed=1).network) for data in (rows, flipped))
    assert {name for name in a if not np.array_equal(a[name], b[name])} == {"scale", "shift"}


def test_too_few_decision_points_are_refused() -> None:
    with pytest.raises(InvalidInput, match="2 decision points are too few"):
        train(synthetic_rows(n_points=2), NETWORK, seed=1)


@pytest.mark.parametrize("seed", range(5))
def test_platt_finds_the_minimum(seed: int) -> None:
    """Oracle: a general minimiser of the same loss, including the penalty towards the identity."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(-2.0, 2.0, 500)
    happened = (rng.random(500) < 1 / (1 + np.exp(-(0.6 * logit + 0.8)))).astype(np.float32)
    weight = rng.integers(1, 9, 500).astype(np.float32)

    def loss(point: F64) -> float:
        z = point[0] * logit + point[1]
        penalty = 0.5 * ((point[0] - 1) ** 2 + point[1] ** 2)
        return float(weight @ (np.logaddexp(0, z) - happened * z) + penalty)

    expected = minimize(loss, [1.0, 0.0], tol=1e-10).x
    assert platt(logit, happened, weight) == pytest.approx(expected, abs=1e-3)


def test_platt_never_reverses_an_order_and_keeps_the_identity_without_positives() -> None:
    logit = np.linspace(-3, 3, 100)
    inverted = (logit < 0).astype(np.float32)
    scale, shift = platt(logit, inverted, np.ones(100, np.float32))
    assert (scale, shift) == pytest.approx((0.0, 0.0))
    assert platt(logit, np.zeros(100, np.float32), np.ones(100, np.float32)) == (1.0, 0.0)


def test_excluded_features_have_no_effect_and_unknown_names_are_refused() -> None:
    rng = np.random.default_rng(0)
    rows = Rows(
        rng.normal(size=(50, len(FEATURES))).astype(np.float32),
        np.ones((50, len(ACTIONS)), np.float32),
        np.ones(50, np.float32),
        np.arange(50, dtype=np.int32),
    )
    network = Ranker(len(FEATURES), len(ACTIONS))
    _standardise(network, rows, ["trend"])
    shifted = rows.features.copy()
    shifted[:, FEATURES.index("trend")] += 3.0
    p = Predictor(network)
    np.testing.assert_allclose(p.p(shifted), p.p(rows.features), atol=1e-6)
    with pytest.raises(ValidationError, match="unknown feature nothing"):
        Network(excluded_features=("nothing",))


def test_rounding_noise_is_ignored_and_small_variation_is_used() -> None:
    """A constant rate of 1 in single precision still varies in its last digits."""
    rows = synthetic_rows(n_points=50)
    rng = np.random.default_rng(3)
    noise = rng.normal(size=len(rows.features)).astype(np.float32)
    rows.features[:, 0], rows.features[:, 1] = 1.0 + 5e-5 * noise, 4.6 + 2e-2 * noise
    network = Ranker(3, len(ACTIONS))
    _standardise(network, rows, ())
    assert (network.std.numpy() == np.float32(EXCLUDED_VALUE)).tolist() == [True, False, False]
