"""Metrics against scipy and brute force, and the invariants of their values."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import jaccard, jensenshannon
from scipy.stats import entropy

from recsys.domain.catalog import Catalog
from recsys.metrics.calibration import profile, steck_kl
from recsys.metrics.concentration import concentration_index, effective_number
from recsys.metrics.divergence import jensen_shannon, kullback_leibler, reciprocal_log, smoothed
from recsys.metrics.diversity import intra_list_diversity
from recsys.metrics.exposure import coverage, exposure, gini
from recsys.metrics.radio import alternative_voices, fragmentation
from recsys.metrics.report_card import ControlOutcome, PageView, compute_metrics, control_metrics, report_table

masses = arrays(np.float64, 6, elements=st.floats(0, 100)).filter(lambda x: x.sum() > 1e-6)
labels = arrays(np.bool_, (5, 4))


@given(masses, masses)
def test_jensen_shannon_equals_scipy_and_is_symmetric(p: np.ndarray, q: np.ndarray) -> None:
    divergence = jensen_shannon(p, q)
    with np.errstate(invalid="ignore"):  # for equal inputs, scipy may take the root of -1e-17
        expected = np.nan_to_num(jensenshannon(p, q, base=2)) ** 2
    assert divergence == pytest.approx(expected, abs=1e-9)
    assert divergence == pytest.approx(jensen_shannon(q, p), abs=1e-12)
    assert 0 <= divergence <= 1
    assert jensen_shannon(p, 3 * p) == pytest.approx(0, abs=1e-9)


@given(masses, masses)
def test_kullback_leibler_equals_scipy(p: np.ndarray, q: np.ndarray) -> None:
    p, q = p / p.sum(), q / q.sum()
    assert kullback_leibler(p, smoothed(q, p)) == pytest.approx(entropy(p, smoothed(q, p), base=2), abs=1e-9)
    assert steck_kl(p, q) >= -1e-9


@given(arrays(np.float64, st.integers(1, 12), elements=st.floats(0, 50)).filter(lambda x: x.sum() > 1e-6))
def test_gini_is_half_the_relative_mean_difference(x: np.ndarray) -> None:
    """The oracle is half the mean absolute difference of all pairs, divided by the mean."""
    brute = np.abs(x[:, None] - x[None, :]).mean() / (2 * x.mean())
    assert gini(x) == pytest.approx(brute, abs=1e-9)
    assert gini(7 * x) == pytest.approx(gini(x), abs=1e-9)
    assert 0 <= coverage(x) <= 1


@given(labels)
def test_diversity_is_the_mean_jaccard_distance(label: np.ndarray) -> None:
    brute = np.mean([jaccard(a, b) if (a | b).any() else 0.0 for a, b in combinations(label, 2)])
    assert intra_list_diversity(label) == pytest.approx(brute)


@given(masses)
def test_the_effective_number_lies_between_one_and_the_number_of_kinds(mass: np.ndarray) -> None:
    assert 1 - 1e-9 <= effective_number(mass) <= 6 + 1e-9
    assert 0 <= concentration_index(mass, np.ones(6)) <= 1
    merged = np.append(mass[:-2], mass[-2:].sum())
    assert effective_number(merged) <= effective_number(mass) + 1e-9, (
        "merging kinds must not raise the effective number"
    )


def test_exposure_preserves_total_attention() -> None:
    rng = np.random.default_rng(3)
    code, attention = rng.integers(0, 5, 40).astype(np.int32), rng.random(40)
    assert exposure(code, attention, 5).sum() == pytest.approx(attention.sum())


def test_radio_metrics_discount_by_rank() -> None:
    assert reciprocal_log(5).sum() == pytest.approx(1)
    offer = np.array([True] * 3 + [False] * 7)
    first, last = np.array([True, False, False, False]), np.array([False, False, False, True])
    assert (
        alternative_voices(first, offer)
        < alternative_voices(last, offer)
        < alternative_voices(np.zeros(4, bool), offer)
    )
    pages = [profile(np.eye(4, dtype=bool)[[i]], np.ones(1)) for i in (0, 0, 1, 2)]
    brute = np.mean([jensen_shannon(a, b) for a, b in combinations(pages, 2)])
    assert fragmentation(pages) == pytest.approx(brute)


def test_fragmentation_skips_pages_without_labels_and_limits_its_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, empty = np.array([1.0, 0.0]), np.array([0.0, 1.0]), np.zeros(2)
    assert fragmentation([a, empty, b]) == 1.0
    assert np.isnan(fragmentation([a, empty]))
    calls = []
    monkeypatch.setattr("recsys.metrics.radio.jensen_shannon", lambda p, q: calls.append(1) or 0.5)
    assert fragmentation([a] * 40, pairs_max=500) == 0.5
    assert len(calls) <= 500, "of 780 pairs"


def page_view(catalog: Catalog, rows: list[int], **fields: object) -> PageView:
    attention = 0.9 ** np.arange(len(rows))
    base = PageView("v1", "cn.zj", "cn.zj-tv-home", "cn.zj.hz", np.array(rows, np.int32), attention)
    return replace(base, **fields)  # type: ignore[arg-type]


def test_a_page_like_the_history_is_calibrated_and_a_page_of_one_kind_is_concentrated(catalog: Catalog) -> None:
    film = np.flatnonzero(catalog.label_subtree("film"))[:6].tolist()
    wide = list(range(12))
    mirrored = compute_metrics([page_view(catalog, film, history=np.array(film, np.int32))], catalog)
    unlike = compute_metrics([page_view(catalog, film, history=np.flatnonzero(catalog.label_subtree("news")))], catalog)
    assert mirrored["miscalibration_history"] < 0.05 < 0.3 < unlike["miscalibration_history"]
    assert (
        compute_metrics([page_view(catalog, film)], catalog)["concentration_index"]
        > compute_metrics([page_view(catalog, wide)], catalog)["concentration_index"]
    )
    assert np.isnan(compute_metrics([page_view(catalog, wide)], catalog)["miscalibration_history"])


def test_value_against_unguided_is_a_ratio_of_sums(catalog: Catalog) -> None:
    pages = [page_view(catalog, [1, 2], engagement=e, unguided=u) for e, u in ((1.0, 2.0), (3.0, 3.0), (np.nan, 1.0))]
    assert compute_metrics(pages, catalog)["value_against_unguided"] == pytest.approx(4 / 5)


def test_controls_are_counted_on_the_pages_where_they_were_in_force(catalog: Catalog) -> None:
    outcomes = [
        ControlOutcome("a", "met"),
        ControlOutcome("a", "relaxed", 2, 0.5),
        ControlOutcome("a", "infeasible", 1),
        ControlOutcome("b", "active", 0, 0.1),
    ]
    metrics = control_metrics([page_view(catalog, [1], outcomes=(outcome,)) for outcome in outcomes])
    assert metrics["a"] == pytest.approx(
        {"pages": 3, "satisfied": 1 / 3, "relaxed": 1 / 3, "infeasible": 1 / 3, "price": 1 / 6}
    )
    assert metrics["b"]["satisfied"] == 1


def test_the_report_table_has_a_row_per_group(catalog: Catalog) -> None:
    pages = [
        page_view(catalog, [1, 2, 3]),
        page_view(catalog, [4], placement="cn.zj-mobile-home"),
        page_view(catalog, [5, 6]),
    ]
    columns = report_table(pages, catalog)
    assert columns["group"] == ["cn.zj-mobile-home", "cn.zj-tv-home"]
    assert columns["pages"] == [1, 2]
    assert {len(column) for column in columns.values()} == {2}
    assert report_table([], catalog) == {"group": []}
