"""The ranker: what it must recover from data whose truth is known."""

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
    """[R, 4] the chance of each action; the last one never happens."""
    logits = np.column_stack([
        features[:, 0] - 2.0,
        features[:, 0] + features[:, 1] - 3.0,
        np.abs(features[:, 1]) - 2.5,
        np.full(len(features), -np.inf),
    ])  # fmt: skip
    return np.asarray(1.0 / (1.0 + np.exp(-logits)))


def planted(moments: int = 400, per_moment: int = 40, seed: int = 1) -> Rows:
    chance = np.random.default_rng(seed)
    features = chance.normal(size=(moments * per_moment, 3)).astype(np.float32) * [1.0, 1.0, 50.0] + [0.0, 0.0, 900.0]
    features = features.astype(np.float32)
    label = (chance.random((len(features), 4)) < truth(features)).astype(np.float32)
    moment = np.repeat(np.arange(moments), per_moment).astype(np.int32)
    return Rows(features, label, np.ones(len(features), np.float32), moment)


def thinned(rows: Rows, negatives: int) -> Rows:
    """The rows as if they had been sampled by `build_rows`."""
    parts = []
    for moment in range(int(rows.point[-1]) + 1):
        whole = rows.take(rows.point == moment)
        kept, weight = _sample(whole.label.any(axis=1), negatives, np.random.default_rng(moment))
        parts.append(Rows(whole.features[kept], whole.label[kept], weight, whole.point[kept]))
    return Rows(*(np.concatenate([getattr(part, name) for part in parts]) for name in Rows.__annotations__))


@pytest.mark.parametrize("negatives", [1000, 8])
def test_probabilities_are_those_of_all_candidates_even_when_few_were_sampled(negatives: int) -> None:
    trained = train(thinned(planted(), negatives), NETWORK, seed=1)
    fresh = planted(seed=9)
    p = Predictor(trained.network).p(fresh.features)
    expected = truth(fresh.features)
    assert np.abs(p.mean(axis=0) - expected.mean(axis=0)).max() < 0.012
    for action in range(3):
        assert np.corrcoef(p[:, action], expected[:, action])[0, 1] > 0.9
    figures = quality(trained.network, fresh)
    assert all(figures[f"calibration_error_{name}"] < 0.03 for name in ("play", "complete", "like"))
    assert all(figures[f"normalised_entropy_{name}"] < 0.97 for name in ("play", "complete", "like"))
    assert "calibration_error_dislike" not in figures  # it never happened: there is nothing to measure


def test_the_weights_of_a_moment_add_up_to_its_candidates() -> None:
    whole = planted(moments=30)
    sample = thinned(whole, 5)
    assert np.bincount(sample.point, sample.weight) == pytest.approx(np.bincount(whole.point))
    acted = sample.label.any(axis=1)
    assert acted.sum() == whole.label.any(axis=1).sum()
    assert (sample.weight[acted] == 1.0).all()


def test_the_same_rows_and_seed_give_the_same_network() -> None:
    rows = planted(moments=60)
    first, other = (tensors(train(rows, NETWORK, seed).network) for seed in (1, 2))
    torch.rand(7)  # whatever else in the process draws from torch's own chance
    second = tensors(train(rows, NETWORK, 1).network)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert not np.array_equal(first["body.0.weight"], other["body.0.weight"])


def test_the_newest_moments_change_calibration_and_nothing_else() -> None:
    rows = planted(moments=100)
    newest = rows.point >= 85
    flipped = Rows(rows.features, np.where(newest[:, None], 1 - rows.label, rows.label), rows.weight, rows.point)
    one, other = (tensors(train(data, NETWORK, seed=1).network) for data in (rows, flipped))
    assert {name for name in one if not np.array_equal(one[name], other[name])} == {"scale", "shift"}


def test_too_few_moments_are_refused() -> None:
    with pytest.raises(InvalidInput, match="2 moments are too few"):
        train(planted(moments=2), NETWORK, seed=1)


@pytest.mark.parametrize("seed", range(5))
def test_platt_finds_the_minimum(seed: int) -> None:
    """Oracle: a general minimiser on the same loss, pull to the identity included."""
    chance = np.random.default_rng(seed)
    logit = chance.normal(-2.0, 2.0, 500)
    happened = (chance.random(500) < 1 / (1 + np.exp(-(0.6 * logit + 0.8)))).astype(np.float32)
    weight = chance.integers(1, 9, 500).astype(np.float32)

    def loss(point: F64) -> float:
        z = point[0] * logit + point[1]
        pull = 0.5 * ((point[0] - 1) ** 2 + point[1] ** 2)
        return float(weight @ (np.logaddexp(0, z) - happened * z) + pull)

    expected = minimize(loss, [1.0, 0.0], tol=1e-10).x
    assert platt(logit, happened, weight) == pytest.approx(expected, abs=1e-3)


def test_platt_never_turns_the_order_round_and_leaves_what_never_happened() -> None:
    logit = np.linspace(-3, 3, 100)
    against = (logit < 0).astype(np.float32)
    scale, shift = platt(logit, against, np.ones(100, np.float32))
    assert (scale, shift) == pytest.approx((0.0, 0.0))
    assert platt(logit, np.zeros(100, np.float32), np.ones(100, np.float32)) == (1.0, 0.0)


def test_a_silent_feature_is_not_heard_and_an_unknown_one_is_named_by_the_configuration() -> None:
    chance = np.random.default_rng(0)
    rows = Rows(
        chance.normal(size=(50, len(FEATURES))).astype(np.float32),
        np.ones((50, len(ACTIONS)), np.float32),
        np.ones(50, np.float32),
        np.arange(50, dtype=np.int32),
    )
    network = Ranker(len(FEATURES), len(ACTIONS))
    _standardise(network, rows, ["trend"])
    loud = rows.features.copy()
    loud[:, FEATURES.index("trend")] += 3.0
    p = Predictor(network)
    np.testing.assert_allclose(p.p(loud), p.p(rows.features), atol=1e-6)
    with pytest.raises(ValidationError, match="no feature nothing"):
        Network(excluded_features=("nothing",))


def test_rounding_is_not_heard_and_what_varies_a_little_is() -> None:
    """Rates of single precision that are always one differ in their last digits."""
    rows = planted(moments=50)
    chance = np.random.default_rng(3)
    wobble = chance.normal(size=len(rows.features)).astype(np.float32)
    rows.features[:, 0], rows.features[:, 1] = 1.0 + 5e-5 * wobble, 4.6 + 2e-2 * wobble
    network = Ranker(3, len(ACTIONS))
    _standardise(network, rows, ())
    assert (network.std.numpy() == np.float32(EXCLUDED_VALUE)).tolist() == [True, False, False]
