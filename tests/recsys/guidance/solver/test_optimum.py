"""The value of solver pages against the integer program (HiGHS), on instances too large to enumerate.

Feasibility alone would also hold for the worst page, so these tests compare values: a proven page is optimal, an
unproven one is within its reported gap, and nearly all pages are proven.
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

TOLERANCE = 1e-5  # HiGHS proves to 1e-6

seeds = st.integers(0, 2**32)
sampled = settings(max_examples=80)


def draw_instance(instance_of: Make, seed: int) -> Instance:
    """15 to 40 candidates for up to 10 slots."""
    return instance_of(seed, 40, 10, 15)


def max_shortfall(solution: Solution) -> float:
    """Play equivalents by which a page may fall short of the optimum: 0 if it is proven optimal."""
    return (0.0 if solution.proven else solution.gap * max(abs(solution.value), 1e-9)) + TOLERANCE


def optimal_value(value: F64, attention: F64, constraints: PageConstraints, solution: Solution) -> float:
    """Value of the best page under the relaxed constraints of a solution, by HiGHS."""
    problem = presolve(value, attention, constraints.with_slack(solution.relaxed))
    result = solve_optimal(problem)
    assert result.proven
    assert result.page is not None
    return float(attention @ value[problem.item[result.page]])


@sampled
@given(seeds)
def test_the_optimum_lies_between_value_and_bound(instance_of: Make, seed: int) -> None:
    value, attention, constraints = draw_instance(instance_of, seed)
    solution = solve(value, attention, constraints)
    best = optimal_value(value, attention, constraints, solution)
    assert abs(solution.value - attention @ value[solution.chosen]) <= 1e-9
    assert solution.value <= best + TOLERANCE
    assert solution.bound >= best - TOLERANCE
    assert solution.value >= best - max_shortfall(solution)


def test_nearly_every_page_is_optimal_and_proven(instance_of: Make) -> None:
    below, proven, relaxed = [], 0, 0
    for seed in range(200):
        value, attention, constraints = draw_instance(instance_of, seed)
        solution = solve(value, attention, constraints)
        below.append(optimal_value(value, attention, constraints, solution) - solution.value)
        proven += solution.proven
        relaxed += bool(solution.relaxed.any())
    assert np.mean(np.array(below) > TOLERANCE) <= 0.01
    assert proven >= 0.95 * len(below)
    assert 40 <= relaxed <= 160, "the sample needs both relaxed and unrelaxed pages"


@sampled
@given(seeds)
def test_removing_a_control_never_lowers_the_value(instance_of: Make, seed: int) -> None:
    value, attention, constraints = draw_instance(instance_of, seed)
    constrained = solve(value, attention, constraints)
    assume(constraints.controls and not constrained.relaxed.any())
    for c in range(constraints.controls):
        fewer = constraints.restricted_to(np.arange(constraints.controls) != c)
        assert_value_not_lower((value, attention, fewer), constrained)


@sampled
@given(seeds, st.floats(-1, 2))
def test_adding_a_candidate_never_lowers_the_value(instance_of: Make, seed: int, added_value: float) -> None:
    value, attention, constraints = draw_instance(instance_of, seed)
    constrained = solve(value, attention, constraints)
    assume(not constrained.relaxed.any())
    rng = np.random.default_rng(seed)
    extended = replace(
        constraints,
        tie=np.append(constraints.tie, 10**6),
        member=np.hstack([constraints.member, rng.random((len(constraints.member), 1)) < 0.5]),
        code=np.hstack([constraints.code, rng.integers(-1, 4, (len(constraints.code), 1), np.int32)]),
    )
    assert_value_not_lower((np.append(value, added_value), attention, extended), constrained)


def assert_value_not_lower(larger_instance: Instance, constrained: Solution) -> None:
    """Assert that a solution of a larger feasible set has no lower value: exactly if proven, else within its gap."""
    solution = solve(*larger_instance)
    assert not solution.relaxed.any()
    assert solution.value >= constrained.value - max_shortfall(solution)
    if not solution.proven:
        assert optimal_value(*larger_instance, solution) >= constrained.value - TOLERANCE
