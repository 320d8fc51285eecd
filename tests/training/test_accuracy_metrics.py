"""Accuracy metrics against direct implementations of their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.metrics.accuracy import calibration_error, coverage, ndcg, normalised_entropy, recall
from training.confidence import bootstrap

ranked = st.lists(st.integers(0, 30), unique=True, max_size=25)
targets = st.sets(st.integers(0, 30), min_size=1, max_size=20)
cutoffs = st.integers(1, 20)


@given(ranked, targets, cutoffs)
def test_ndcg_is_the_discounted_gain_over_the_ideal_gain(rows: list[int], relevant: set[int], k: int) -> None:
    gain = sum(1 / math.log2(position + 1) for position, row in enumerate(rows[:k], start=1) if row in relevant)
    ideal = sum(1 / math.log2(position + 1) for position in range(1, min(k, len(relevant)) + 1))
    assert ndcg(rows, relevant, k) == pytest.approx(gain / ideal)


@given(ranked, targets, cutoffs)
def test_ndcg_of_an_ideal_list_is_one_and_moving_a_hit_up_never_lowers_it(
    rows: list[int], relevant: set[int], k: int
) -> None:
    assert ndcg(sorted(relevant), relevant, k) == pytest.approx(1.0)
    hits_first = sorted(rows, key=lambda row: row not in relevant)
    assert ndcg(hits_first, relevant, k) >= ndcg(rows, relevant, k) - 1e-12


@given(ranked, targets, cutoffs)
def test_recall_counts_relevant_items_among_the_first_k(rows: list[int], relevant: set[int], k: int) -> None:
    hits = sum(1 for target in relevant if target in rows[:k])
    assert recall(rows, relevant, k) == pytest.approx(hits / min(k, len(relevant)))


@pytest.mark.parametrize("metric", [ndcg, recall])
def test_an_empty_set_of_relevant_items_is_refused(metric: object) -> None:
    with pytest.raises(ValueError, match="target"):
        metric([1, 2], set(), 10)  # type: ignore[operator]


@given(st.lists(ranked, min_size=1, max_size=5))
def test_coverage_counts_each_item_once(lists: list[list[int]]) -> None:
    assert coverage(lists, 31) == pytest.approx(len({row for rows in lists for row in rows}) / 31)


outcomes = st.lists(st.tuples(st.floats(0.01, 0.99), st.booleans(), st.integers(1, 4)), min_size=2, max_size=40).filter(
    lambda cases: len({happened for _, happened, _ in cases}) == 2
)


@given(outcomes)
def test_an_integer_weight_equals_repeated_rows(cases: list[tuple[float, bool, int]]) -> None:
    p, happened, weight = (np.array(column, float) for column in zip(*cases, strict=True))
    times = weight.astype(int)
    repeated = p.repeat(times), happened.repeat(times), np.ones(times.sum())
    assert normalised_entropy(p, happened, weight) == pytest.approx(normalised_entropy(*repeated))
    assert calibration_error(p, happened, weight, bins=1) == pytest.approx(calibration_error(*repeated, bins=1))


def test_calibration_error_detects_global_and_local_miscalibration() -> None:
    rng = np.random.default_rng(3)
    p = rng.uniform(0.0, 1.0, 200_000)
    happened = (rng.random(len(p)) < p).astype(float)
    assert calibration_error(p, happened, np.ones(len(p))) < 0.01
    assert calibration_error(np.clip(p + 0.1, 0, 1), happened, np.ones(len(p))) == pytest.approx(0.1, abs=0.01)
    overconfident = np.where(p > 0.5, 1.0, 0.0)  # right on average, off by 0.25 in each half
    assert abs(float(np.mean(overconfident - happened))) < 0.01
    assert calibration_error(overconfident, happened, np.ones(len(p)), bins=2) == pytest.approx(0.25, abs=0.01)


def test_normalised_entropy_is_undefined_without_positives() -> None:
    assert math.isnan(normalised_entropy(np.array([0.2, 0.4]), np.zeros(2), np.ones(2)))


def test_the_bootstrap_interval_has_about_its_nominal_coverage() -> None:
    rng = np.random.default_rng(5)
    covered = 0
    for trial in range(300):
        interval = bootstrap(rng.normal(0.3, 1.0, 60), rounds=400, seed=trial)
        covered += interval.low <= 0.3 <= interval.high
    assert 0.89 <= covered / 300 <= 0.985


def test_the_bootstrap_is_reproducible_with_its_seed() -> None:
    difference = np.random.default_rng(1).normal(size=40)
    assert bootstrap(difference, 100, seed=2) == bootstrap(difference, 100, seed=2)
    with pytest.raises(ValueError, match="viewer"):
        bootstrap(np.zeros(0), 100, seed=2)
