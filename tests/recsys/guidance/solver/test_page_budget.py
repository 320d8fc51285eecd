"""The budget of a page: bounded work whatever the controls, a complete page, and a receipt that says what was cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.guidance.receipt.receipt import write_receipt
from recsys.guidance.receipt.verify import verify
from recsys.guidance.solver import feasibility, infeasibility
from recsys.guidance.solver import solve as solve_module
from recsys.guidance.solver.infeasibility import ConflictCache, ConflictSet, explain, is_complete
from recsys.guidance.solver.page_budget import PageBudget, pricing_work, proof_work, query_work, search_work
from recsys.guidance.solver.solve import SEARCH_NODES, solve

Make = Callable[..., Any]

CONFLICT = """
outlet: cn
controls:
  - {id: no-ads, action: block, where: {label: commercial}, enforcement: legal, legal_ref: law}
  - {id: one-provider, action: cap, attribute: provider, at_most: 2, enforcement: legal, legal_ref: law}
  - {id: sport, action: quota, where: {label: sport}, at_least: 0.5, prefixes: every}
  - {id: one-topic, action: spacing, attribute: topic, at_most: 1, within: 5}
  - {id: culture, action: quota, where: {label: culture}, at_least: 0.4}
  - {id: news, action: quota, where: {label: news}, at_least: 0.3, at_most: 0.4}
  - {id: one-region, action: cap, attribute: region, at_most: 1, enforcement: preferred}
"""


@given(seed=st.integers(0, 199), limit=st.integers(0, 40_000))
def test_counted_work_is_bounded_and_the_page_complete(
    seed: int, limit: int, instance_of: Make, count_broken: Make
) -> None:
    """Beyond its limit, a page takes only the work of a page without any budget and one step of a search."""
    value, attention, constraints = instance_of(seed, 30, 8)
    least, budget, repeated_budget = PageBudget(0.0), PageBudget(float(limit)), PageBudget(float(limit))
    solve(value, attention, constraints, budget=least)
    solution = solve(value, attention, constraints, budget=budget)
    step = max(
        pricing_work(constraints) + search_work(constraints, SEARCH_NODES),
        search_work(constraints, 0) + proof_work(constraints),
    )
    assert budget.spent <= limit + least.spent + step
    assert len(set(solution.chosen.tolist())) == constraints.slots
    assert count_broken(constraints, tuple(solution.chosen.tolist())) == tuple(solution.relaxed)
    repeated = solve(value, attention, constraints, budget=repeated_budget)
    assert (repeated.chosen.tolist(), repeated_budget.cut_short) == (solution.chosen.tolist(), budget.cut_short)
    if not solution.minimal_proven.all() and "relaxation" not in budget.cut:
        generous = solve(value, attention, constraints, budget=PageBudget(1e9))
        assert tuple(generous.relaxed) == tuple(solution.relaxed), "a relaxation was cut short, but not reported"


def test_no_wide_round_runs_for_a_page_that_is_proven_infeasible(
    instance_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wide beams took most of the time of a page that no beam can find."""
    widths, refine = [], solve_module.refine

    def counted(instance: Any, state: Any, *arguments: Any) -> None:
        if state.incumbent[0] < 0:
            widths.append(arguments[3])
        refine(instance, state, *arguments)

    monkeypatch.setattr(solve_module, "refine", counted)
    proven = 0
    for seed in range(60):
        value, attention, constraints = instance_of(seed, 30, 8)
        widths.clear()
        solution = solve(value, attention, constraints, deadline_s=1.0, clock=lambda: 0.0)
        if solution.relaxed.any() and infeasibility.exists(constraints) is False:
            proven += 1
            assert max(widths, default=0) <= 150, seed
    assert proven > 10


def test_no_round_starts_that_would_exceed_the_budget(instance_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every clock reading advances by a fifth of the budget, whatever is done in between."""
    rounds, refine = [0], solve_module.refine

    def counted(*arguments: Any) -> None:
        rounds[0] += 1
        refine(*arguments)

    monkeypatch.setattr(solve_module, "refine", counted)
    searches, find = [0], feasibility.find_by_pricing

    def searched(*arguments: Any, **options: Any) -> Any:
        searches[0] += 1
        return find(*arguments, **options)

    monkeypatch.setattr(feasibility, "find_by_pricing", searched)
    for seed in range(60):
        value, attention, constraints = instance_of(seed, 30, 8)
        rounds[0] = searches[0] = 0
        budget = PageBudget(50_000.0, count(0.0, 0.010).__next__)
        solution = solve(value, attention, constraints, budget=budget)
        assert tuple(constraints.violated_by(solution.chosen)) == tuple(solution.relaxed), seed
        assert rounds[0] <= 3, seed
        assert searches[0] <= 3, seed


@pytest.fixture(scope="module")
def conflicts(make: Make) -> list[Any]:
    """Return two solved pages whose controls contradict each other."""
    return [make(CONFLICT, seed=seed) for seed in range(2)]


@given(number=st.integers(0, 1), limit=st.integers(0, 60_000))
def test_a_receipt_of_a_cut_page_is_correct_and_verified_without_time(
    number: int, limit: int, conflicts: list[Any]
) -> None:
    case, budget = conflicts[number], PageBudget(float(limit))
    value = case.batch.utility + case.batch.bonus
    solution = solve(value, case.attention, case.bounds, budget=budget)
    work = query_work(case.bounds)

    def expired() -> bool:
        budget.charge(work)
        return not budget.allows("causes")

    causes = ConflictCache().of(case.bounds, solution.relaxed, solution.minimal_proven, expired)
    parts = (case.policy, case.bounds, solution, case.batch, case.attention, case.catalog)
    receipt = write_receipt(*parts, causes, budget.cut_short)
    assert is_complete(causes) or "causes" in receipt.cut_short
    assert verify(
        receipt, solution.chosen, case.policy, case.bounds, case.batch, case.attention, case.catalog, exact=False
    ) == ()  # fmt: skip
    commercial = {item.id for item in case.catalog.items if "commercial" in item.labels}
    assert not commercial & {case.catalog.ids[row] for row in case.batch.row[solution.chosen]}, (
        "a legal block is broken"
    )


def test_a_receipt_may_omit_causes_only_if_it_says_so(conflicts: list[Any]) -> None:
    case = conflicts[0]
    solution = replace(case.solution, minimal_proven=np.ones_like(case.solution.minimal_proven))
    unknown = {c: ConflictSet(complete=False) for c in explain(case.bounds, solution.relaxed, solution.minimal_proven)}
    parts = (case.policy, case.bounds, solution, case.batch, case.attention, case.catalog)
    page = (case.policy, case.bounds, case.batch, case.attention, case.catalog)
    silent, stated = write_receipt(*parts, unknown), write_receipt(*parts, unknown, ("causes",))
    assert any(
        "cause is required" in finding.message for finding in verify(silent, solution.chosen, *page, exact=False)
    )
    assert verify(stated, solution.chosen, *page, exact=False) == ()


def test_hundreds_of_infeasible_minimums_are_explained_without_a_search(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each minimum lacks items whatever else is in force; the effort used to run out after a few of them."""
    monkeypatch.setattr(infeasibility, "exists", None)
    controls = "".join(f"  - {{id: m{n}, action: quota, where: {{label: none{n}}}, at_least: 3}}\n" for n in range(300))
    case = make(f"outlet: cn\ncontrols:\n{controls}")
    assert {line.cause.kind for line in case.receipt.controls} == {"supply"}
    assert case.receipt.cut_short == ()


def test_a_relaxation_is_used_again_for_other_values(conflicts: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The editorial page has the constraints of the page that it replaces."""
    case = conflicts[0]
    monkeypatch.setattr(solve_module, "cached_relaxation", None)
    second = solve(-case.batch.utility, case.attention, case.bounds, reuse=case.solution)
    assert tuple(second.relaxed) == tuple(case.solution.relaxed)
    assert tuple(case.bounds.violated_by(second.chosen)) == tuple(second.relaxed)
