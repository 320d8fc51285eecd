"""What a page is worth against the integer programme (HiGHS), where there are too many pages to look at each of them.

A law of bounds alone holds for the worst page too, so these are about values: the optimum where it is proven, no
further below it than the stated gap where it is not, and hardly ever not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from recsys.domain.types import F64
from recsys.guidance.solver.milp import solve_optimal
from recsys.guidance.solver.page_constraints import PageConstraints, Solution
from recsys.guidance.solver.presolve import presolve
from recsys.guidance.solver.solve import solve

Instance = tuple[F64, F64, PageConstraints]
Make = Callable[[int, int, int, int], Instance]

SLACK = 1e-5  # HiGHS proves to 1e-6

seeds = st.integers(0, 2**32)
few = settings(max_examples=80)


def drawn(instance_of: Make, seed: int) -> Instance:
    """15 to 40 candidates for up to 10 slots."""
    return instance_of(seed, 40, 10, 15)


def stated(solution: Solution) -> float:
    """Play equivalents that a page may be below the best one: nothing where it is proven."""
    return (0.0 if solution.proven else solution.gap * max(abs(solution.value), 1e-9)) + SLACK


def optimum(value: F64, attention: F64, bounds: PageConstraints, solution: Solution) -> float:
    """Worth of the best page under the bounds that a solution was left with, by HiGHS."""
    problem = presolve(value, attention, bounds.with_slack(solution.relaxed))
    answer = solve_optimal(problem)
    assert answer.minimal_proven
    assert answer.page is not None
    return float(attention @ value[problem.item[answer.page]])


@few
@given(seeds)
def test_the_optimum_lies_between_value_and_bound(instance_of: Make, seed: int) -> None:
    value, attention, bounds = drawn(instance_of, seed)
    solution = solve(value, attention, bounds)
    best = optimum(value, attention, bounds, solution)
    assert abs(solution.value - attention @ value[solution.chosen]) <= 1e-9
    assert solution.value <= best + SLACK
    assert solution.bound >= best - SLACK
    assert solution.value >= best - stated(solution)


def test_nearly_every_page_is_the_best_one_and_proven(instance_of: Make) -> None:
    below, proven, relaxed = [], 0, 0
    for seed in range(200):
        value, attention, bounds = drawn(instance_of, seed)
        solution = solve(value, attention, bounds)
        below.append(optimum(value, attention, bounds, solution) - solution.value)
        proven += solution.proven
        relaxed += bool(solution.relaxed.any())
    assert np.mean(np.array(below) > SLACK) <= 0.01
    assert proven >= 0.95 * len(below)
    assert 40 <= relaxed <= 160, "of both kinds there are many"


@few
@given(seeds)
def test_without_one_of_its_controls_a_page_is_worth_no_less(instance_of: Make, seed: int) -> None:
    value, attention, bounds = drawn(instance_of, seed)
    kept = solve(value, attention, bounds)
    assume(bounds.controls and not kept.relaxed.any())
    for c in range(bounds.controls):
        freer = bounds.only(np.arange(bounds.controls) != c)
        assert_worth_no_less((value, attention, freer), kept)


@few
@given(seeds, st.floats(-1, 2))
def test_with_another_candidate_a_page_is_worth_no_less(instance_of: Make, seed: int, worth: float) -> None:
    value, attention, bounds = drawn(instance_of, seed)
    kept = solve(value, attention, bounds)
    assume(not kept.relaxed.any())
    rng = np.random.default_rng(seed)
    more = replace(
        bounds,
        tie=np.append(bounds.tie, 10**6),
        member=np.hstack([bounds.member, rng.random((len(bounds.member), 1)) < 0.5]),
        code=np.hstack([bounds.code, rng.integers(-1, 4, (len(bounds.code), 1), np.int32)]),
    )
    assert_worth_no_less((np.append(value, worth), attention, more), kept)


def assert_worth_no_less(freer: Instance, kept: Solution) -> None:
    """Where every page that was possible still is one: to the last digit if it is proven, else within its gap."""
    solution = solve(*freer)
    assert not solution.relaxed.any()
    assert solution.value >= kept.value - stated(solution)
    if not solution.proven:
        assert optimum(*freer, solution) >= kept.value - SLACK
