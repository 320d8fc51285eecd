"""The page solve against every page there is, and the laws it must keep where there are too many to look at."""

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
from recsys.guidance.solver import feasibility as existence
from recsys.guidance.solver import solve as solver
from recsys.guidance.solver.feasibility import by_prices
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
few = settings(max_examples=60, deadline=None)


@pytest.mark.parametrize("hundred", range(20))
def test_feasibility_relaxation_and_optimum_are_those_of_all_pages(
    instance_of: Make, oracle: Oracle, count_broken: Count, hundred: int
) -> None:
    for seed in range(100 * hundred, 100 * hundred + 100):
        instance = instance_of(seed, 7 if seed % 4 else 8, 4 if seed % 20 else 5)
        value, attention, bounds = instance
        by, best = oracle(instance)
        solution = solve(value, attention, bounds)
        assert tuple(solution.relaxed) == by, seed
        assert count_broken(bounds, tuple(solution.chosen.tolist())) == by, seed
        assert solution.value == pytest.approx(best, abs=1e-9), seed
        assert solution.value == pytest.approx(float(attention @ value[solution.chosen]), abs=1e-12), seed
        assert solution.bound >= best - 1e-9, seed
        assert not solution.proven or solution.gap <= 1e-8, seed
        assert solution.minimal_proven.all(), seed


def test_most_small_pages_are_proven(instance_of: Make) -> None:
    assert np.mean([solve(*instance_of(seed, 8, 5)).proven for seed in range(300)]) > 0.99


def test_exact_prices_are_what_one_unit_costs(instance_of: Make, oracle: Oracle) -> None:
    for seed in range(40):
        value, attention, bounds = instance_of(seed, 6, 4)
        solution = solve(value, attention, bounds, effort="exact")
        for c in range(bounds.controls):
            looser = solution.relaxed.copy()
            looser[c] += 1
            by, best = oracle((value, attention, bounds.with_slack(looser)))
            assert not any(by)
            assert solution.resolved[c]
            assert solution.price[c] == pytest.approx(best - solution.value, abs=1e-8), seed


def test_middling_pages_agree_with_the_integer_programme(instance_of: Make) -> None:
    for seed in range(24):
        value, attention, bounds = instance_of(seed, 40, 9)
        solution = solve(value, attention, bounds)
        exact = solve_optimal(presolve(value, attention, bounds.with_slack(solution.relaxed)))
        assert exact.minimal_proven
        assert solution.value <= exact.bound + 1e-6
        assert solution.bound >= exact.bound - 1e-6
        if solution.proven:
            assert solution.value == pytest.approx(exact.bound, abs=1e-6)


@few
@given(seeds)
def test_a_page_neither_repeats_nor_invents(instance_of: Make, seed: int) -> None:
    value, attention, bounds = instance_of(seed, 30, 10)
    chosen = solve(value, attention, bounds).chosen.tolist()
    assert len(chosen) == len(set(chosen)) == bounds.slots
    assert set(chosen) <= set(range(len(bounds)))


@few
@given(seeds)
def test_nothing_gives_way_but_what_is_named(instance_of: Make, count_broken: Count, seed: int) -> None:
    value, attention, bounds = instance_of(seed, 30, 8)
    solution = solve(value, attention, bounds)
    by = count_broken(bounds, tuple(solution.chosen.tolist()))
    assert by == tuple(solution.relaxed)
    assert by == tuple(bounds.violated_by(solution.chosen))


@few
@given(seeds)
def test_the_answer_is_a_function_of_its_inputs(instance_of: Make, seed: int) -> None:
    instance = instance_of(seed, 30, 8)
    one, two = solve(*instance), solve(*instance)
    assert one.chosen.tolist() == two.chosen.tolist()
    assert (one.value, one.bound, one.price.tolist()) == (two.value, two.bound, two.price.tolist())


@few
@given(seeds, seeds)
@example(37498, 0)  # two pages of one worth, between which the numbers of the spacings' groups decided
def test_the_order_of_candidates_is_nothing(instance_of: Make, seed: int, shuffle: int) -> None:
    value, attention, bounds = instance_of(seed, 30, 8)
    order = np.random.default_rng(shuffle).permutation(len(bounds)).astype(np.int32)
    place = np.argsort(order).astype(np.int32)
    pinned = np.where(bounds.pin_item >= 0, place[bounds.pin_item], -1).astype(np.int32)
    other = replace(
        bounds,
        tie=bounds.tie[order],
        member=bounds.member[:, order],
        code=bounds.code[:, order],
        pin_item=pinned,
    )
    shuffled = solve(value[order], attention, other)
    assert order[shuffled.chosen].tolist() == solve(value, attention, bounds).chosen.tolist()


@few
@given(st.lists(st.floats(-2, 2), min_size=1, max_size=40), st.integers(1, 12))
def test_without_controls_the_page_is_the_order_of_value(values: list[float], slots: int) -> None:
    value = np.array(values)
    bounds = PageConstraints.free(np.arange(len(value)), slots)
    solution = solve(value, 0.9 ** np.arange(slots), bounds)
    assert value[solution.chosen].tolist() == sorted(values, reverse=True)[:slots]
    assert solution.proven
    assert solution.gap == 0.0


def test_no_candidates_give_an_empty_page() -> None:
    solution = solve(np.zeros(0), np.ones(5), PageConstraints.free(np.zeros(0, np.int64), 5))
    assert len(solution.chosen) == 0
    assert solution.proven


def test_slots_whose_attention_does_not_fall_are_solved_too(instance_of: Make, oracle: Oracle) -> None:
    for seed in range(60):
        value, attention, bounds = instance_of(seed, 6, 4)
        attention = np.random.default_rng(seed).permutation(attention)
        assert solve(value, attention, bounds).value == pytest.approx(oracle((value, attention, bounds))[1], abs=1e-9)


def test_a_page_without_slots_is_found_at_once() -> None:
    """The compiled search counts on a first slot."""
    state, page = existence.search_depth_first(presolve(np.ones(4), np.ones(0), PageConstraints.free(np.arange(4), 0)))
    assert (state, len(page) if page is not None else None) == (existence.DONE, 0)


def test_values_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        solve(np.array([1.0, np.nan]), np.ones(2), PageConstraints.free(np.arange(2), 2))
    with pytest.raises(ValueError, match="do not fit"):
        solve(np.ones(3), np.ones(2), PageConstraints.free(np.arange(2), 2))


@pytest.mark.parametrize("deadline_s", [0.0, 1.0])
def test_haste_costs_proofs_and_says_so(
    instance_of: Make, count_broken: Count, deadline_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock stands still: at 0 all is late from the start, at 1 nothing ever is."""
    later, gave_way = 0, 0
    hurried = []
    for seed in range(200):
        value, attention, bounds = instance_of(seed, 30, 8)
        calm = solve(value, attention, bounds)
        with monkeypatch.context() as patch:
            patch.setattr(existence, "any_page", None)  # HiGHS is never asked
            hasty = solve(value, attention, bounds, deadline_s=deadline_s, clock=lambda: 0.0)
        assert count_broken(bounds, tuple(hasty.chosen.tolist())) == tuple(hasty.relaxed), seed
        most = float(np.sort(attention[: bounds.slots]) @ np.sort(value)[len(value) - bounds.slots :])
        assert hasty.bound <= most + 1e-9, seed
        differs = np.flatnonzero(hasty.relaxed != calm.relaxed)
        if len(differs):
            later += 1
            assert hasty.relaxed[differs[0]] > calm.relaxed[differs[0]], seed
            assert not hasty.minimal_proven[differs[0]], f"{seed}: it claims that there is no better"
        else:
            hurried.append(hasty.bound - calm.value)
        gave_way += bool(calm.relaxed.any())
    assert min(hurried) >= -1e-9
    assert gave_way > 60
    assert later <= (3 if deadline_s else 60)


def test_no_turn_is_begun_that_is_likely_to_end_too_late() -> None:
    """A second of the clock for each look at it: a turn takes one, and the next one is taken for twice as long."""
    proven = []
    for seed in (20, 74, 92):  # proven by the fifth turn
        instance = draw("typical", seed)
        calm = solve(*instance)
        for seconds in (8.5, 7.5, 3.5):  # left after four turns: 2.5, 1.5, and none
            clock = count(0.0, 1.0).__next__
            hasty = solve(*instance, deadline_s=seconds, clock=clock)
            assert hasty.value - 1e-9 <= calm.bound <= hasty.bound + 1e-9
            assert not hasty.relaxed.any()
            proven.append(hasty.proven)
        assert calm.proven
    assert proven == 3 * [True, False, False]


def test_when_patience_is_at_an_end_nothing_is_looked_for_any_more(
    instance_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [0]

    def by_prices_alone(*_: object, **__: object) -> tuple[None, bool]:
        asked[0] += 1
        return None, True

    monkeypatch.setattr(existence, "by_prices", by_prices_alone)
    monkeypatch.setattr(existence, "search_depth_first", None)
    relaxed = 0
    for seed in range(40):
        value, attention, bounds = instance_of(seed, 30, 8)
        asked[0] = 0
        solution = solve(value, attention, bounds, deadline_s=0.0, clock=lambda: 0.0)
        assert tuple(bounds.violated_by(solution.chosen)) == tuple(solution.relaxed)
        assert asked[0] <= 1, seed
        relaxed += bool(solution.relaxed.any())
    assert relaxed > 10


def test_what_gave_way_elsewhere_is_a_beginning_and_no_answer(instance_of: Make) -> None:
    """A page of poorer supply under the same limits lets nothing give way on a page that can keep it."""
    differ, clock = 0, {"deadline_s": 1.0, "clock": lambda: 0.0}
    for seed in range(150):
        value, attention, bounds = instance_of(seed, 24, 7)
        thin = np.random.default_rng(seed).random(bounds.member.shape) < 0.6
        poorer = replace(bounds, member=bounds.member & thin)
        memory = RelaxationCache()
        other = solve(value, attention, poorer, memory=memory, **clock)  # type: ignore[arg-type]
        fresh = solve(value, attention, bounds, **clock)  # type: ignore[arg-type]
        again = solve(value, attention, bounds, memory=memory, **clock)  # type: ignore[arg-type]
        assert tuple(again.relaxed) <= tuple(fresh.relaxed), seed
        assert tuple(bounds.violated_by(again.chosen)) == tuple(again.relaxed), seed
        differ += tuple(other.relaxed) > tuple(fresh.relaxed)
    assert differ > 30


def test_the_last_page_under_the_same_limits_is_where_the_next_begins(
    instance_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it is late at once, a page gives way no more than the last one did."""
    begun, clock = 0, lambda: 0.0
    for seed in range(120):
        value, attention, bounds = instance_of(seed, 30, 8)
        memory = RelaxationCache()
        first = solve(value, attention, bounds, memory=memory, deadline_s=1.0, clock=clock)
        if not first.relaxed.any():
            continue
        monkeypatch.setattr(memory, "get", lambda _: None)
        late = solve(value, attention, bounds, memory=memory, deadline_s=0.0, clock=clock)
        assert tuple(late.relaxed) <= tuple(first.relaxed), seed
        begun += tuple(late.relaxed) < tuple(solve(value, attention, bounds, deadline_s=0.0, clock=clock).relaxed)
    assert begun > 5


def test_no_more_is_said_to_give_way_than_does(instance_of: Make) -> None:
    for seed in range(200):
        value, attention, bounds = instance_of(seed, 8, 4)
        now = iter(np.arange(0.0, 10.0, 0.02))
        solution = solve(value, attention, bounds, deadline_s=0.01, clock=lambda now=now: float(next(now)))
        assert tuple(bounds.violated_by(solution.chosen)) == tuple(solution.relaxed), seed


def test_a_floor_that_cannot_be_met_names_its_shortage_and_nothing_else_gives_way() -> None:
    member = np.zeros((2, 30), np.bool_)
    member[0, :2], member[1, 10:] = True, True
    slots: I32 = np.arange(1, 11, dtype=np.int32)
    bounds = replace(
        PageConstraints.free(np.arange(30), 10),
        active=np.ones(2, np.bool_),
        member=member,
        lower=np.array([np.floor(0.4 * slots), np.floor(0.5 * slots)], np.int32),
        upper=np.array([slots, slots]),
        row_control=np.array([0, 1], np.int32),
    )
    solution = solve(np.linspace(0, 1, 30), np.ones(10), bounds)
    assert solution.relaxed.tolist() == [2, 0]
    assert member[0, solution.chosen].sum() == 2


def test_equals_stand_in_the_order_of_tie() -> None:
    tie = np.array([3, 1, 2, 0])
    solution = solve(np.ones(4), np.ones(3), PageConstraints.free(tie, 3))
    assert tie[solution.chosen].tolist() == [0, 1, 2]


def test_what_gave_way_is_remembered_wherever_the_same_is_missing(instance_of: Make) -> None:
    memory, relaxed = RelaxationCache(), 0
    for seed in range(200):
        value, attention, bounds = instance_of(seed, 12, 5)
        fresh = solve(value, attention, bounds)
        solve(value, attention, bounds, memory=memory)
        known = len(memory)
        order = np.random.default_rng(seed).permutation(len(bounds)).astype(np.int32)
        place = np.argsort(order).astype(np.int32)
        other = replace(
            bounds,
            tie=bounds.tie[order],
            member=bounds.member[:, order],
            code=bounds.code[:, order],
            pin_item=np.where(bounds.pin_item >= 0, place[bounds.pin_item], -1).astype(np.int32),
        )
        again = solve(value[order], attention, other, memory=memory)
        assert len(memory) == known, "the same want, in another order, is the same want"
        assert again.relaxed.tolist() == fresh.relaxed.tolist()
        assert again.minimal_proven.tolist() == fresh.minimal_proven.tolist()
        assert again.value == pytest.approx(fresh.value, abs=1e-9)
        relaxed += bool(fresh.relaxed.any())
    assert relaxed > 50
    assert 0 < len(memory) <= relaxed


def test_a_full_memory_begins_anew(instance_of: Make) -> None:
    memory = RelaxationCache(most=3)
    for seed in range(60):
        solve(*instance_of(seed, 10, 5), memory=memory)
        assert len(memory) <= 3


def test_warming_up_leaves_no_kernel_to_compile() -> None:
    warm()
    called = [one for module in (solver, existence) for one in vars(module).values() if isinstance(one, Dispatcher)]
    assert len(called) >= 9
    assert not [kernel.__name__ for kernel in called if not kernel.signatures]


def test_how_arrays_lie_in_memory_is_nothing_and_compiles_nothing(instance_of: Make) -> None:
    warm()
    called = [one for module in (solver, existence) for one in vars(module).values() if isinstance(one, Dispatcher)]
    before = [len(kernel.signatures) for kernel in called]
    value, attention, bounds = instance_of(4, 30, 8)
    strided = {}
    for name, part in vars(bounds).items():
        if isinstance(part, np.ndarray):
            strided[name] = np.repeat(part, 2, axis=-1)[..., ::2]
            strided[name].flags.writeable = False
    other = solve(value[::-1].copy()[::-1], np.repeat(attention, 2)[::2], replace(bounds, **strided))
    assert other.chosen.tolist() == solve(value, attention, bounds).chosen.tolist()
    assert [len(kernel.signatures) for kernel in called] == before


def test_partial_pages_find_what_no_assignment_shows(instance_of: Make) -> None:
    """Where the prices' own pages break limits, the search behind them still finds a page that keeps them."""
    none = 0
    for seed in range(200):
        value, attention, bounds = instance_of(seed, 30, 8)
        bounds = bounds.with_slack(solve(value, attention, bounds).relaxed)
        if bounds.slots and (np.diff(attention) <= 0).all():
            order = np.lexsort((bounds.tie, -value))
            page, possible = by_prices(value, attention, bounds, order, turns=((3, 8), (6, 32)))
            assert possible
            none += page is None
            assert page is None or not bounds.violated_by(page).any()
    assert none <= 2
