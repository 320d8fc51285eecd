"""The page solver against exhaustive enumeration on small instances, and its invariants on larger ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numba.core.dispatcher import Dispatcher

from benchmarks.guidance.instances import draw
from recsys.domain.types import F64, I32
from recsys.guidance.solver import feasibility as feasibility_module
from recsys.guidance.solver import kernels
from recsys.guidance.solver import solve as solver
from recsys.guidance.solver.feasibility import find_by_pricing
from recsys.guidance.solver.milp import solve_optimal
from recsys.guidance.solver.page_constraints import PageConstraints
from recsys.guidance.solver.presolve import presolve
from recsys.guidance.solver.relaxation_cache import RelaxationCache
from recsys.guidance.solver.solve import solve, warm

Instance = tuple[F64, F64, PageConstraints]
Make = Callable[[int, int, int], Instance]
Oracle = Callable[[Instance], tuple[tuple[int, ...], float]]
Count = Callable[[PageConstraints, tuple[int, ...]], tuple[int, ...]]

seeds = st.integers(0, 2**32)
sampled = settings(max_examples=60, deadline=None)


@pytest.mark.parametrize("block_of_seeds", range(20))
def test_feasibility_relaxation_and_optimum_match_enumeration(
    instance_of: Make, oracle: Oracle, count_broken: Count, block_of_seeds: int
) -> None:
    for seed in range(100 * block_of_seeds, 100 * block_of_seeds + 100):
        instance = instance_of(seed, 7 if seed % 4 else 8, 4 if seed % 20 else 5)
        value, attention, constraints = instance
        slack, best_value = oracle(instance)
        solution = solve(value, attention, constraints)
        assert tuple(solution.relaxed) == slack, seed
        assert count_broken(constraints, tuple(solution.chosen.tolist())) == slack, seed
        assert solution.value == pytest.approx(best_value, abs=1e-9), seed
        assert solution.value == pytest.approx(float(attention @ value[solution.chosen]), abs=1e-12), seed
        assert solution.bound >= best_value - 1e-9, seed
        assert not solution.proven or solution.gap <= 1e-8, seed
        assert solution.minimal_proven.all(), seed


def test_most_small_pages_are_proven_optimal(instance_of: Make) -> None:
    assert np.mean([solve(*instance_of(seed, 8, 5)).proven for seed in range(300)]) > 0.99


def test_exact_prices_equal_the_value_of_one_unit_of_slack(instance_of: Make, oracle: Oracle) -> None:
    for seed in range(40):
        value, attention, constraints = instance_of(seed, 6, 4)
        solution = solve(value, attention, constraints, effort="exact")
        for c in range(constraints.controls):
            slack = solution.relaxed.copy()
            slack[c] += 1
            violation, best_value = oracle((value, attention, constraints.with_slack(slack)))
            assert not any(violation)
            assert solution.resolved[c]
            assert solution.price[c] == pytest.approx(best_value - solution.value, abs=1e-8), seed


def test_medium_pages_agree_with_the_integer_program(instance_of: Make) -> None:
    for seed in range(24):
        value, attention, constraints = instance_of(seed, 40, 9)
        solution = solve(value, attention, constraints)
        exact = solve_optimal(presolve(value, attention, constraints.with_slack(solution.relaxed)))
        assert exact.proven
        assert solution.value <= exact.bound + 1e-6
        assert solution.bound >= exact.bound - 1e-6
        if solution.proven:
            assert solution.value == pytest.approx(exact.bound, abs=1e-6)


@sampled
@given(seeds)
def test_a_page_contains_distinct_candidates_only(instance_of: Make, seed: int) -> None:
    value, attention, constraints = instance_of(seed, 30, 10)
    chosen = solve(value, attention, constraints).chosen.tolist()
    assert len(chosen) == len(set(chosen)) == constraints.slots
    assert set(chosen) <= set(range(len(constraints)))


@sampled
@given(seeds)
def test_relaxed_lists_exactly_the_violated_controls(instance_of: Make, count_broken: Count, seed: int) -> None:
    value, attention, constraints = instance_of(seed, 30, 8)
    solution = solve(value, attention, constraints)
    slack = count_broken(constraints, tuple(solution.chosen.tolist()))
    assert slack == tuple(solution.relaxed)
    assert slack == tuple(constraints.violated_by(solution.chosen))


@sampled
@given(seeds)
def test_the_solution_is_deterministic(instance_of: Make, seed: int) -> None:
    instance = instance_of(seed, 30, 8)
    first, second = solve(*instance), solve(*instance)
    assert first.chosen.tolist() == second.chosen.tolist()
    assert (first.value, first.bound, first.price.tolist()) == (second.value, second.bound, second.price.tolist())


@sampled
@given(seeds, seeds)
@example(37498, 0)  # two pages of equal value; the numbering of spacing groups used to decide between them
def test_the_order_of_candidates_does_not_matter(instance_of: Make, seed: int, shuffle: int) -> None:
    value, attention, constraints = instance_of(seed, 30, 8)
    order = np.random.default_rng(shuffle).permutation(len(constraints)).astype(np.int32)
    position = np.argsort(order).astype(np.int32)
    pinned = np.where(constraints.pin_item >= 0, position[constraints.pin_item], -1).astype(np.int32)
    permuted = replace(
        constraints,
        tie=constraints.tie[order],
        member=constraints.member[:, order],
        code=constraints.code[:, order],
        pin_item=pinned,
    )
    shuffled = solve(value[order], attention, permuted)
    assert order[shuffled.chosen].tolist() == solve(value, attention, constraints).chosen.tolist()


@sampled
@given(st.lists(st.floats(-2, 2), min_size=1, max_size=40), st.integers(1, 12))
def test_without_controls_the_page_is_sorted_by_value(values: list[float], slots: int) -> None:
    value = np.array(values)
    constraints = PageConstraints.free(np.arange(len(value)), slots)
    solution = solve(value, 0.9 ** np.arange(slots), constraints)
    assert value[solution.chosen].tolist() == sorted(values, reverse=True)[:slots]
    assert solution.proven
    assert solution.gap == 0.0


def test_no_candidates_yield_an_empty_page() -> None:
    solution = solve(np.zeros(0), np.ones(5), PageConstraints.free(np.zeros(0, np.int64), 5))
    assert len(solution.chosen) == 0
    assert solution.proven


def test_slots_with_non_descending_attention_are_solved(instance_of: Make, oracle: Oracle) -> None:
    for seed in range(60):
        value, attention, constraints = instance_of(seed, 6, 4)
        attention = np.random.default_rng(seed).permutation(attention)
        assert solve(value, attention, constraints).value == pytest.approx(
            oracle((value, attention, constraints))[1], abs=1e-9
        )


def test_depth_first_search_returns_an_empty_page_for_zero_slots() -> None:
    """The compiled search assumes at least one slot."""
    state, page = feasibility_module.search_depth_first(
        presolve(np.ones(4), np.ones(0), PageConstraints.free(np.arange(4), 0))
    )
    assert (state, len(page) if page is not None else None) == (feasibility_module.DONE, 0)


def test_non_finite_values_and_wrong_lengths_are_rejected() -> None:
    with pytest.raises(ValueError, match="finite"):
        solve(np.array([1.0, np.nan]), np.ones(2), PageConstraints.free(np.arange(2), 2))
    with pytest.raises(ValueError, match="do not fit"):
        solve(np.ones(3), np.ones(2), PageConstraints.free(np.arange(2), 2))


@pytest.mark.parametrize("deadline_s", [0.0, 1.0])
def test_a_deadline_may_cost_proofs_and_reports_it(
    instance_of: Make, count_broken: Count, deadline_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock does not advance: a deadline of 0 is expired from the start, a deadline of 1 never expires."""
    differing_pages, relaxed_pages = 0, 0
    gaps = []
    for seed in range(200):
        value, attention, constraints = instance_of(seed, 30, 8)
        unlimited = solve(value, attention, constraints)
        with monkeypatch.context() as patch:
            patch.setattr(feasibility_module, "any_page", None)  # HiGHS must not run
            limited = solve(value, attention, constraints, deadline_s=deadline_s, clock=lambda: 0.0)
        assert count_broken(constraints, tuple(limited.chosen.tolist())) == tuple(limited.relaxed), seed
        value_bound = float(np.sort(attention[: constraints.slots]) @ np.sort(value)[len(value) - constraints.slots :])
        assert limited.bound <= value_bound + 1e-9, seed
        differs = np.flatnonzero(limited.relaxed != unlimited.relaxed)
        if len(differs):
            differing_pages += 1
            assert limited.relaxed[differs[0]] > unlimited.relaxed[differs[0]], seed
            assert not limited.minimal_proven[differs[0]], f"{seed}: a larger relaxation is reported as proven minimal"
        else:
            gaps.append(limited.bound - unlimited.value)
        relaxed_pages += bool(unlimited.relaxed.any())
    assert min(gaps) >= -1e-9
    assert relaxed_pages > 60
    assert differing_pages <= (3 if deadline_s else 60)


def test_no_round_starts_that_is_likely_to_exceed_the_deadline() -> None:
    """Each clock reading advances one second, so a round takes one second and the next is expected to take two."""
    proven = []
    for seed in (20, 74, 92):  # proven optimal by the fifth round
        instance = draw("typical", seed)
        unlimited = solve(*instance)
        for seconds in (8.5, 7.5, 3.5):  # after four rounds 2.5, 1.5 and 0 seconds remain
            clock = count(0.0, 1.0).__next__
            limited = solve(*instance, deadline_s=seconds, clock=clock)
            assert limited.value - 1e-9 <= unlimited.bound <= limited.bound + 1e-9
            assert not limited.relaxed.any()
            proven.append(limited.proven)
        assert unlimited.proven
    assert proven == 3 * [True, False, False]


def test_no_search_runs_after_the_extended_deadline(instance_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = [0]

    def no_page(*_: object, **__: object) -> tuple[None, bool]:
        calls[0] += 1
        return None, True

    monkeypatch.setattr(feasibility_module, "find_by_pricing", no_page)
    monkeypatch.setattr(feasibility_module, "search_depth_first", None)
    relaxed = 0
    for seed in range(40):
        value, attention, constraints = instance_of(seed, 30, 8)
        calls[0] = 0
        solution = solve(value, attention, constraints, deadline_s=0.0, clock=lambda: 0.0)
        assert tuple(constraints.violated_by(solution.chosen)) == tuple(solution.relaxed)
        assert calls[0] <= 1, seed
        relaxed += bool(solution.relaxed.any())
    assert relaxed > 10


def test_a_cached_relaxation_of_another_supply_is_only_a_warm_start(instance_of: Make) -> None:
    """The relaxation of a page with less supply does not relax controls that this page can satisfy."""
    differences, clock = 0, {"deadline_s": 1.0, "clock": lambda: 0.0}
    for seed in range(150):
        value, attention, constraints = instance_of(seed, 24, 7)
        available = np.random.default_rng(seed).random(constraints.member.shape) < 0.6
        reduced = replace(constraints, member=constraints.member & available)
        cache = RelaxationCache()
        reduced_solution = solve(value, attention, reduced, cache=cache, **clock)  # type: ignore[arg-type]
        uncached = solve(value, attention, constraints, **clock)  # type: ignore[arg-type]
        warm_started = solve(value, attention, constraints, cache=cache, **clock)  # type: ignore[arg-type]
        assert tuple(warm_started.relaxed) <= tuple(uncached.relaxed), seed
        assert tuple(constraints.violated_by(warm_started.chosen)) == tuple(warm_started.relaxed), seed
        differences += tuple(reduced_solution.relaxed) > tuple(uncached.relaxed)
    assert differences > 30


def test_the_last_relaxation_under_the_same_limits_is_a_warm_start(
    instance_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an expired deadline, a page is relaxed no more than the last one."""
    improved, clock = 0, lambda: 0.0
    for seed in range(120):
        value, attention, constraints = instance_of(seed, 30, 8)
        cache = RelaxationCache()
        first = solve(value, attention, constraints, cache=cache, deadline_s=1.0, clock=clock)
        if not first.relaxed.any():
            continue
        monkeypatch.setattr(cache, "get", lambda _: None)
        expired = solve(value, attention, constraints, cache=cache, deadline_s=0.0, clock=clock)
        assert tuple(expired.relaxed) <= tuple(first.relaxed), seed
        improved += tuple(expired.relaxed) < tuple(
            solve(value, attention, constraints, deadline_s=0.0, clock=clock).relaxed
        )
    assert improved > 5


def test_the_reported_relaxation_equals_the_violation_under_a_deadline(instance_of: Make) -> None:
    for seed in range(200):
        value, attention, constraints = instance_of(seed, 8, 4)
        now = iter(np.arange(0.0, 10.0, 0.02))
        solution = solve(value, attention, constraints, deadline_s=0.01, clock=lambda now=now: float(next(now)))
        assert tuple(constraints.violated_by(solution.chosen)) == tuple(solution.relaxed), seed


def test_a_minimum_beyond_supply_is_relaxed_by_its_shortage_only() -> None:
    member = np.zeros((2, 30), np.bool_)
    member[0, :2], member[1, 10:] = True, True
    slots: I32 = np.arange(1, 11, dtype=np.int32)
    constraints = replace(
        PageConstraints.free(np.arange(30), 10),
        active=np.ones(2, np.bool_),
        member=member,
        lower=np.array([np.floor(0.4 * slots), np.floor(0.5 * slots)], np.int32),
        upper=np.array([slots, slots]),
        row_control=np.array([0, 1], np.int32),
    )
    solution = solve(np.linspace(0, 1, 30), np.ones(10), constraints)
    assert solution.relaxed.tolist() == [2, 0]
    assert member[0, solution.chosen].sum() == 2


def test_equal_values_are_ordered_by_tie() -> None:
    tie = np.array([3, 1, 2, 0])
    solution = solve(np.ones(4), np.ones(3), PageConstraints.free(tie, 3))
    assert tie[solution.chosen].tolist() == [0, 1, 2]


def test_relaxations_are_cached_by_limits_and_supply(instance_of: Make) -> None:
    cache, relaxed = RelaxationCache(), 0
    for seed in range(200):
        value, attention, constraints = instance_of(seed, 12, 5)
        uncached = solve(value, attention, constraints)
        solve(value, attention, constraints, cache=cache)
        entries = len(cache)
        order = np.random.default_rng(seed).permutation(len(constraints)).astype(np.int32)
        position = np.argsort(order).astype(np.int32)
        permuted = replace(
            constraints,
            tie=constraints.tie[order],
            member=constraints.member[:, order],
            code=constraints.code[:, order],
            pin_item=np.where(constraints.pin_item >= 0, position[constraints.pin_item], -1).astype(np.int32),
        )
        cached = solve(value[order], attention, permuted, cache=cache)
        assert len(cache) == entries, "permuted candidates must hit the same cache entry"
        assert cached.relaxed.tolist() == uncached.relaxed.tolist()
        assert cached.minimal_proven.tolist() == uncached.minimal_proven.tolist()
        assert cached.value == pytest.approx(uncached.value, abs=1e-9)
        relaxed += bool(uncached.relaxed.any())
    assert relaxed > 50
    assert 0 < len(cache) <= relaxed


def test_a_full_cache_is_cleared(instance_of: Make) -> None:
    cache = RelaxationCache(max_entries=3)
    for seed in range(60):
        solve(*instance_of(seed, 10, 5), cache=cache)
        assert len(cache) <= 3


def compiled_kernels() -> list[Dispatcher]:
    """The kernels that the solver modules call directly."""
    values = [value for module in (solver, feasibility_module) for value in vars(module).values()]
    return [value for value in values if isinstance(value, Dispatcher)]


def test_warm_compiles_every_kernel() -> None:
    warm()
    compiled = compiled_kernels()
    assert len(compiled) >= 9
    assert not [kernel.__name__ for kernel in compiled if not kernel.signatures]


def test_a_cache_index_with_renamed_classes_is_ignored() -> None:
    """numba unpickles the index of a cached kernel, with the classes in its signatures, before it checks the stamp."""

    def load() -> dict[object, str]:
        raise AttributeError("Can't get attribute 'OldName'")

    assert kernels._load_index(load) == {}
    assert kernels._load_index(lambda: {"signature": "file"}) == {"signature": "file"}


def test_the_memory_layout_of_arrays_does_not_matter_and_compiles_nothing(instance_of: Make) -> None:
    warm()
    compiled = compiled_kernels()
    before = [len(kernel.signatures) for kernel in compiled]
    value, attention, constraints = instance_of(4, 30, 8)
    strided = {}
    for name, array in vars(constraints).items():
        if isinstance(array, np.ndarray):
            strided[name] = np.repeat(array, 2, axis=-1)[..., ::2]
            strided[name].flags.writeable = False
    strided_solution = solve(value[::-1].copy()[::-1], np.repeat(attention, 2)[::2], replace(constraints, **strided))
    assert strided_solution.chosen.tolist() == solve(value, attention, constraints).chosen.tolist()
    assert [len(kernel.signatures) for kernel in compiled] == before


def test_beam_search_finds_pages_where_the_assignment_is_infeasible(instance_of: Make) -> None:
    """Pricing alone may yield pages that violate limits; beam search still finds a feasible page."""
    not_found = 0
    for seed in range(200):
        value, attention, constraints = instance_of(seed, 30, 8)
        constraints = constraints.with_slack(solve(value, attention, constraints).relaxed)
        if constraints.slots and (np.diff(attention) <= 0).all():
            order = np.lexsort((constraints.tie, -value))
            page, possible = find_by_pricing(value, attention, constraints, order, rounds=((3, 8), (6, 32)))
            assert possible
            not_found += page is None
            assert page is None or not constraints.violated_by(page).any()
    assert not_found <= 2
