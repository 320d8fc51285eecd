"""The last stages of a page: constrain, solve and explain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from recsys.batch import Candidates
from recsys.candidates.context import RequestContext
from recsys.candidates.sources import SOURCES
from recsys.distribution.layouts import screen_layout
from recsys.domain.trace import FallbackLevel
from recsys.domain.types import ACTIONS, F64
from recsys.explanations import explain
from recsys.guidance.compilation.compile import CompiledPolicy
from recsys.guidance.receipt.receipt import write_receipt
from recsys.guidance.receipt.target_effects import TargetEffects, TargetPrice
from recsys.guidance.solver.infeasibility import Causes, ConflictCache, is_complete
from recsys.guidance.solver.page_budget import PageBudget, query_work
from recsys.guidance.solver.page_constraints import PageConstraints, Solution
from recsys.guidance.solver.relaxation_cache import RelaxationCache, cache_key
from recsys.guidance.solver.solve import is_late_after, solve
from recsys.pacing.on_page import deliveries, mean_utility, target_prices, with_targets
from recsys.page import Page, PageItem


@dataclass(frozen=True)
class SolvedPage:
    """The solver's result, with the candidates and constraints that it solved for.

    attention  [K]  chance that each slot is looked at
    targets    prices of the exposure targets in force
    """

    batch: Candidates
    attention: F64
    constraints: PageConstraints
    solution: Solution
    targets: tuple[TargetPrice, ...] = ()

    def relaxes_hard_control(self, policy: CompiledPolicy) -> bool:
        """Return whether a control is relaxed whose enforcement is stricter than `preferred`."""
        relaxed = np.flatnonzero(self.solution.relaxed).tolist()
        return any(policy.controls[c].control.enforcement != "preferred" for c in relaxed)


@dataclass(frozen=True)
class PageSolver:
    """Selects the items of a page and writes its receipt.

    solve_s  time limit of one call of the solver in seconds, measured by `clock`
    budget   limit on all work of the page, whatever `solve_s`
    """

    solve_s: float
    clock: Callable[[], float] | None = None
    budget: PageBudget = field(default_factory=PageBudget)
    relaxation_cache: RelaxationCache = field(default_factory=RelaxationCache)
    conflict_cache: ConflictCache = field(default_factory=ConflictCache)

    def constraints(self, context: RequestContext, policy: CompiledPolicy, batch: Candidates) -> PageConstraints:
        """Return the constraints on a page of these candidates."""
        query = context.query
        constraints = policy.bounds(query, batch.row, query.slots, query.shown_rows(context.catalog))
        return with_targets(constraints, policy, batch.row, query, context.viewer, context.prices)

    def solve(
        self,
        context: RequestContext,
        policy: CompiledPolicy,
        batch: Candidates,
        deadline_s: float | None = None,
        reuse: Solution | None = None,
    ) -> SolvedPage:
        """Select the candidates with the highest utility plus bonus that meet the constraints, slot by slot.

        reuse  solution for the same candidates and policy with other utilities, whose relaxation is used again
        """
        query = context.query
        attention = screen_layout(query.placement.screen).attention(query.slots)
        item_utility = mean_utility(batch.utility, attention)
        targets = target_prices(policy, batch.row, query, context.prices, item_utility)
        bonus = sum((target.bonus for target in targets), policy.bonus(batch.row, query))
        batch = batch.with_columns(bonus=bonus)
        constraints, value = self.constraints(context, policy, batch), batch.utility + batch.bonus
        self.budget.reserve(constraints)
        deadline_s = self.solve_s if deadline_s is None else deadline_s
        solution = solve(
            value, attention, constraints, deadline_s=deadline_s, clock=self.clock, cache=self.relaxation_cache,
            budget=self.budget, reuse=reuse,
        )  # fmt: skip
        return SolvedPage(batch, attention, constraints, solution, targets)

    def page(self, context: RequestContext, policy: CompiledPolicy, solved: SolvedPage, level: FallbackLevel) -> Page:
        """Return the page with its explanations and its receipt. Its trace is empty."""
        query, batch, attention = context.query, solved.batch, solved.attention
        constraints, solution = solved.constraints, solved.solution
        solution, causes = self._explained(constraints, solution)
        weight = attention[: constraints.slots]
        effects = TargetEffects.of(solved.targets, batch.utility, batch.bonus, constraints.tie, weight)
        page = batch.take(solution.chosen)
        reasons = explain(context, page)
        items = tuple(
            PageItem(
                slot=k + 1,
                row=int(page.row[k]),
                item_id=context.catalog.ids[page.row[k]],
                utility=float(page.utility[k]),
                bonus=float(page.bonus[k]),
                p=dict(zip(ACTIONS, page.p[k].tolist(), strict=True)),
                sources=tuple(name for bit, name in enumerate(SOURCES) if page.source[k] >> bit & 1),
                reasons=reasons[k],
                control_ids=_control_ids(policy, constraints, solution, effects, k),
            )
            for k in range(len(page))
        )
        return Page(
            items=items,
            fallback_level=level,
            receipt=write_receipt(
                policy, constraints, solution, batch, attention, context.catalog, causes, self.budget.cut_short, effects
            ),
            trace=(),
            features=page.features,
            model_version=context.model.bundle.version if context.model else "none",
            policy_version=policy.version,
            delivered=deliveries(policy, page.row, attention, query, context.prices),
            engagement=float(attention[: len(page)] @ page.utility),
            unguided=float(attention[: len(page)] @ np.sort(batch.utility)[::-1][: len(page)]),
        )

    def _explained(self, constraints: PageConstraints, solution: Solution) -> tuple[Solution, Causes]:
        """Return the causes of the relaxations that are found within twice the solver's time and the budget.

        A cause proves that the relaxation is minimal, so a relaxation with causes for all its controls is cached.
        """
        is_late, work = is_late_after(2.0 * self.solve_s, self.clock), query_work(constraints)

        def expired() -> bool:
            if is_late() or not self.budget.allows("causes", work=work):
                return True
            self.budget.charge(work)
            return False

        causes = self.conflict_cache.of(constraints, solution.relaxed, solution.minimal_proven, expired)
        if not is_complete(causes):
            self.budget.cut.add("causes")
        minimal_proven = solution.minimal_proven.copy()
        minimal_proven[[c for c, cause in causes.items() if cause.proven]] = True
        if minimal_proven.all() and not solution.minimal_proven.all():
            self.relaxation_cache.put(cache_key(constraints), solution.relaxed, minimal_proven)
        return replace(solution, minimal_proven=minimal_proven), causes


def _control_ids(
    policy: CompiledPolicy, constraints: PageConstraints, solution: Solution, effects: TargetEffects, k: int
) -> tuple[str, ...]:
    """Return the ids of the controls and exposure targets that the slot `k` serves."""
    ids = policy.serving(constraints, solution.chosen, k)
    targets = effects.serving(int(solution.chosen[k])) if effects.prices else ()
    return tuple(dict.fromkeys((*ids, *(policy.controls[c].control.id for c in targets))))


def stopwatch(clock: Callable[[], float] | None) -> Callable[[], float]:
    """Return a function that gives the seconds since this call; always 0 without a clock."""
    if clock is None:
        return lambda: 0.0
    start = clock()
    return lambda: clock() - start
