"""Intervals against the drawn bootstrap, off-policy estimates against the truth of a simulation, scaled policies."""

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
    """The interval of the ordinary bootstrap, with numpy's generator."""
    rng = np.random.default_rng(1)
    picks = rng.integers(len(difference), size=(rounds, len(difference)))
    return np.quantile(difference[picks].mean(axis=1), [0.025, 0.975])


@pytest.mark.parametrize("seed", range(5))
def test_the_interval_is_that_of_the_drawn_bootstrap(seed: int) -> None:
    difference = np.random.default_rng(seed).exponential(1.0, 400) - 0.9
    figure = mean(difference, weights(range(400), rounds=2000, seed=seed))
    low, high = drawn(difference)
    assert figure.mean == pytest.approx(difference.mean())
    assert abs(figure.low - low) < 0.12 * (high - low)
    assert abs(figure.high - high) < 0.12 * (high - low)


def test_requests_of_one_viewer_are_not_so_many_viewers() -> None:
    """Ten viewers with forty equal requests each tell as much as ten requests."""
    per_viewer = np.random.default_rng(2).normal(size=10)
    few = mean(per_viewer, weights(range(10), rounds=4000))
    many = mean(np.repeat(per_viewer, 40), weights(np.repeat(np.arange(10), 40).tolist(), rounds=4000))
    assert many.high - many.low == pytest.approx(few.high - few.low, rel=1e-9)


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=60), st.integers(0, 2**31 - 1))
@settings(max_examples=30)
def test_weights_are_a_function_of_seed_viewer_and_round(units: list[int], seed: int) -> None:
    w = weights(units, rounds=20, seed=seed)
    assert np.array_equal(w[:, :1], weights(units[:1], rounds=20, seed=seed))
    assert np.array_equal(w, weights(units, rounds=20, seed=seed))
    assert ratio(np.ones(len(units)), np.ones(len(units)), w).mean == 1.0


def test_the_weights_are_poisson() -> None:
    w = weights(range(300), rounds=1000)
    share = np.bincount(w.astype(int).ravel(), minlength=4)[:4] / w.size
    assert share == pytest.approx([0.3679, 0.3679, 0.1839, 0.0613], abs=0.003)


def test_firm_controls_do_not_scale_and_strength_one_is_the_policy(study: Study) -> None:
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


def _logged_world(chance: bool, n: int = 4000) -> tuple[list[ReplayRequest], list[PageSummary], float]:
    """A logging policy that shows item a or b in the only slot; plays of b are likelier; the draft shows b."""
    rng = np.random.default_rng(4)
    played = {0: 0.2, 1: 0.5}
    asked, after = [], []
    for i in range(n):
        item = int(rng.random() < 0.25) if chance else 0
        plays = float(rng.random() < played[item])
        q = (0.25 if item else 0.75) if chance else 1.0
        query = Query(f"r{i}", f"v{i}", Placement.parse("cn.zj-tv-home"), "cn.zj", 0.0, 1)
        asked.append(ReplayRequest(query, None, LoggedPage((f"i{item}",), (1.0,), (q,), (plays,))))
        one = np.ones(1)
        after.append(PageSummary(np.array([1], np.int32), one, one, np.zeros(4), 1.0, ()))
    return asked, after, played[1]


def test_the_off_policy_estimate_finds_the_truth_where_chance_was_logged(catalog: Catalog) -> None:
    asked, after, truth = _logged_world(chance=True)
    said = off_policy(asked, after, catalog, weights(range(len(asked)), seed=2))
    assert said is not None
    assert said.plays is not None
    assert said.plays.low < truth < said.plays.high
    assert said.plays.high - said.plays.low < 0.15


def test_a_deterministic_log_gives_no_estimate_and_says_why(catalog: Catalog) -> None:
    asked, after, _ = _logged_world(chance=False)
    said = off_policy(asked, after, catalog, weights(range(len(asked))))
    assert said is not None
    assert said.plays is None
    assert said.support == 0
    assert "deterministic" in str(said.reason)
    assert off_policy([ReplayRequest(asked[0].query, None)], after[:1], catalog, weights([0])) is None


def test_an_unchanged_deterministic_page_is_its_own_estimate(catalog: Catalog) -> None:
    asked, after, _ = _logged_world(chance=False, n=200)
    same = [replace(page, row=np.array([0], np.int32)) for page in after]
    said = off_policy(asked, same, catalog, weights(range(200)))
    assert said is not None
    assert said.plays is not None
    assert said.support == pytest.approx(1)
    assert said.plays.mean == pytest.approx(said.observed)


def test_chance_in_a_few_slots_is_no_support_for_the_others(catalog: Catalog) -> None:
    """One slot in a thousand was left to chance, the draft shows what the log never could: no estimate."""
    asked, after, _ = _logged_world(chance=False, n=1000)
    assert asked[0].page is not None
    asked[0] = replace(asked[0], page=replace(asked[0].page, propensity=(0.5,)))
    said = off_policy(asked, after, catalog, weights(range(1000)))
    assert said is not None
    assert said.plays is None
    assert "no estimate" in str(said.reason)
