"""Metrics against their definitions, written out slowly."""

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
def test_ndcg_is_the_gain_over_the_best_gain(rows: list[int], wanted: set[int], k: int) -> None:
    gain = sum(1 / math.log2(place + 1) for place, row in enumerate(rows[:k], start=1) if row in wanted)
    ideal = sum(1 / math.log2(place + 1) for place in range(1, min(k, len(wanted)) + 1))
    assert ndcg(rows, wanted, k) == pytest.approx(gain / ideal)


@given(ranked, targets, cutoffs)
def test_ndcg_of_the_best_list_is_one_and_moving_a_hit_up_never_lowers_it(
    rows: list[int], wanted: set[int], k: int
) -> None:
    assert ndcg(sorted(wanted), wanted, k) == pytest.approx(1.0)
    hits_first = sorted(rows, key=lambda row: row not in wanted)
    assert ndcg(hits_first, wanted, k) >= ndcg(rows, wanted, k) - 1e-12


@given(ranked, targets, cutoffs)
def test_recall_counts_targets_among_the_first_k(rows: list[int], wanted: set[int], k: int) -> None:
    found = sum(1 for target in wanted if target in rows[:k])
    assert recall(rows, wanted, k) == pytest.approx(found / min(k, len(wanted)))


@pytest.mark.parametrize("metric", [ndcg, recall])
def test_a_viewer_without_targets_is_refused(metric: object) -> None:
    with pytest.raises(ValueError, match="target"):
        metric([1, 2], set(), 10)  # type: ignore[operator]


@given(st.lists(ranked, min_size=1, max_size=5))
def test_coverage_counts_each_item_once(lists: list[list[int]]) -> None:
    assert coverage(lists, 31) == pytest.approx(len({row for rows in lists for row in rows}) / 31)


outcomes = st.lists(st.tuples(st.floats(0.01, 0.99), st.booleans(), st.integers(1, 4)), min_size=2, max_size=40).filter(
    lambda cases: len({happened for _, happened, _ in cases}) == 2
)


@given(outcomes)
def test_a_weight_of_three_is_the_same_row_three_times(cases: list[tuple[float, bool, int]]) -> None:
    p, happened, weight = (np.array(column, float) for column in zip(*cases, strict=True))
    times = weight.astype(int)
    repeated = p.repeat(times), happened.repeat(times), np.ones(times.sum())
    assert normalised_entropy(p, happened, weight) == pytest.approx(normalised_entropy(*repeated))
    assert calibration_error(p, happened, weight, bins=1) == pytest.approx(calibration_error(*repeated, bins=1))


def test_calibration_error_sees_what_is_off_and_where() -> None:
    chance = np.random.default_rng(3)
    p = chance.uniform(0.0, 1.0, 200_000)
    happened = (chance.random(len(p)) < p).astype(float)
    assert calibration_error(p, happened, np.ones(len(p))) < 0.01
    assert calibration_error(np.clip(p + 0.1, 0, 1), happened, np.ones(len(p))) == pytest.approx(0.1, abs=0.01)
    overconfident = np.where(p > 0.5, 1.0, 0.0)  # right on the whole, off by a quarter in each half
    assert abs(float(np.mean(overconfident - happened))) < 0.01
    assert calibration_error(overconfident, happened, np.ones(len(p)), bins=2) == pytest.approx(0.25, abs=0.01)


def test_entropy_has_no_answer_without_a_base_rate() -> None:
    assert math.isnan(normalised_entropy(np.array([0.2, 0.4]), np.zeros(2), np.ones(2)))


def test_the_bootstrap_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    chance = np.random.default_rng(5)
    held = 0
    for trial in range(300):
        interval = bootstrap(chance.normal(0.3, 1.0, 60), rounds=400, seed=trial)
        held += interval.low <= 0.3 <= interval.high
    assert 0.89 <= held / 300 <= 0.985


def test_the_bootstrap_repeats_with_its_seed() -> None:
    difference = np.random.default_rng(1).normal(size=40)
    assert bootstrap(difference, 100, seed=2) == bootstrap(difference, 100, seed=2)
    with pytest.raises(ValueError, match="viewer"):
        bootstrap(np.zeros(0), 100, seed=2)
