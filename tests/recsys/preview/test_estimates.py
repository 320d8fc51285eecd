"""Intervals against a random bootstrap, off-policy estimates against simulated true values, and scaled policies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.domain.catalog import Catalog
from recsys.domain.placement import Placement
from recsys.domain.query import Query
from recsys.preview.ablations import STRENGTHS, at_strength, without
from recsys.preview.bootstrap import mean, ratio, weights
from recsys.preview.offpolicy import off_policy
from recsys.preview.page_summary import PageSummary
from recsys.preview.study import LoggedPage, ReplayRequest, Study


def drawn(difference: np.ndarray, rounds: int = 4000) -> np.ndarray:
    """Return the interval of the ordinary bootstrap with a random generator."""
    rng = np.random.default_rng(1)
    picks = rng.integers(len(difference), size=(rounds, len(difference)))
    return np.quantile(difference[picks].mean(axis=1), [0.025, 0.975])


@pytest.mark.parametrize("seed", range(5))
def test_interval_equals_that_of_a_random_bootstrap(seed: int) -> None:
    difference = np.random.default_rng(seed).exponential(1.0, 400) - 0.9
    figure = mean(difference, weights(range(400), rounds=2000, seed=seed))
    low, high = drawn(difference)
    assert figure.mean == pytest.approx(difference.mean())
    assert abs(figure.low - low) < 0.12 * (high - low)
    assert abs(figure.high - high) < 0.12 * (high - low)


def test_repeated_requests_of_a_viewer_do_not_narrow_the_interval() -> None:
    """Ten viewers with forty equal requests each carry as much information as ten requests."""
    per_viewer = np.random.default_rng(2).normal(size=10)
    per_viewer_estimate = mean(per_viewer, weights(range(10), rounds=4000))
    repeated_estimate = mean(np.repeat(per_viewer, 40), weights(np.repeat(np.arange(10), 40).tolist(), rounds=4000))
    assert repeated_estimate.high - repeated_estimate.low == pytest.approx(
        per_viewer_estimate.high - per_viewer_estimate.low, rel=1e-9
    )


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=60), st.integers(0, 2**31 - 1))
@settings(max_examples=30)
def test_weights_depend_only_on_seed_viewer_and_round(units: list[int], seed: int) -> None:
    w = weights(units, rounds=20, seed=seed)
    assert np.array_equal(w[:, :1], weights(units[:1], rounds=20, seed=seed))
    assert np.array_equal(w, weights(units, rounds=20, seed=seed))
    assert ratio(np.ones(len(units)), np.ones(len(units)), w).mean == 1.0


def test_weights_are_poisson_distributed() -> None:
    w = weights(range(300), rounds=1000)
    share = np.bincount(w.astype(int).ravel(), minlength=4)[:4] / w.size
    assert share == pytest.approx([0.3679, 0.3679, 0.1839, 0.0613], abs=0.003)


def test_strength_leaves_hard_controls_unchanged(study: Study) -> None:
    policy = study.after["cn.zj"]
    assert at_strength(policy, 1.0).controls == policy.controls
    for strength in STRENGTHS:
        scaled = {o.control.id: o.control for o in at_strength(policy, strength).controls}
        assert scaled["public"] == next(o.control for o in policy.controls if o.control.id == "public")
        assert ("music" in scaled) == (strength > 0)
        assert at_strength(policy, strength).effective.weights["public_value"] == pytest.approx(0.3 * strength)
        assert np.allclose(at_strength(policy, strength).weight_bonus, strength * policy.weight_bonus)
    assert "music" not in {o.control.id for o in without(policy, "music").controls}
    assert len(without(policy, "music").controls) == len(policy.controls) - 1


def _logged_world(random: bool, n: int = 4000) -> tuple[list[ReplayRequest], list[PageSummary], float]:
    """Return logged requests, draft pages and the true plays per page.

    The logging policy shows item 0 or 1 in the only slot, item 1 is played more often, and the draft shows item 1.
    """
    rng = np.random.default_rng(4)
    played = {0: 0.2, 1: 0.5}
    requests, after = [], []
    for i in range(n):
        item = int(rng.random() < 0.25) if random else 0
        plays = float(rng.random() < played[item])
        q = (0.25 if item else 0.75) if random else 1.0
        query = Query(f"r{i}", f"v{i}", Placement.parse("cn.zj-tv-home"), "cn.zj", 0.0, 1)
        requests.append(ReplayRequest(query, None, LoggedPage((f"i{item}",), (1.0,), (q,), (plays,))))
        weights = np.ones(1)
        after.append(PageSummary(np.array([1], np.int32), weights, weights, np.zeros(4), 1.0, ()))
    return requests, after, played[1]


def test_off_policy_estimate_covers_the_true_value_for_a_random_log(catalog: Catalog) -> None:
    requests, after, truth = _logged_world(random=True)
    estimate = off_policy(requests, after, catalog, weights(range(len(requests)), seed=2))
    assert estimate is not None
    assert estimate.plays is not None
    assert estimate.plays.low < truth < estimate.plays.high
    assert estimate.plays.high - estimate.plays.low < 0.15


def test_deterministic_log_gives_no_estimate_with_a_reason(catalog: Catalog) -> None:
    requests, after, _ = _logged_world(random=False)
    estimate = off_policy(requests, after, catalog, weights(range(len(requests))))
    assert estimate is not None
    assert estimate.plays is None
    assert estimate.support == 0
    assert "deterministic" in str(estimate.reason)
    assert off_policy([ReplayRequest(requests[0].query, None)], after[:1], catalog, weights([0])) is None


def test_unchanged_deterministic_pages_are_estimated_as_observed(catalog: Catalog) -> None:
    requests, after, _ = _logged_world(random=False, n=200)
    unchanged = [replace(page, row=np.array([0], np.int32)) for page in after]
    estimate = off_policy(requests, unchanged, catalog, weights(range(200)))
    assert estimate is not None
    assert estimate.plays is not None
    assert estimate.support == pytest.approx(1)
    assert estimate.plays.mean == pytest.approx(estimate.observed)


def test_randomness_in_few_slots_does_not_support_the_rest(catalog: Catalog) -> None:
    """One of a thousand slots is random, and the log could not have shown the pages of the draft: no estimate."""
    requests, after, _ = _logged_world(random=False, n=1000)
    assert requests[0].page is not None
    requests[0] = replace(requests[0], page=replace(requests[0].page, propensity=(0.5,)))
    estimate = off_policy(requests, after, catalog, weights(range(1000)))
    assert estimate is not None
    assert estimate.plays is None
    assert "no estimate" in str(estimate.reason)
