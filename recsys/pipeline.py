"""The pipeline that makes one page.

    retrieve -> filter -> truncate -> rank -> constrain -> solve -> explain

Every stage records in the trace how many candidates entered, how many it passed on, and why it dropped the rest. If a
control would be relaxed for lack of candidates, supply is expanded once and the later stages run again.

Relevance fails open: if a source or the ranker fails, the trace records the error and the page comes from a lower
fallback level. Guidance and eligibility fail closed: no page leaves without them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from recsys.batch import Candidates
from recsys.candidates.content_based import content_profile, content_similarity
from recsys.candidates.context import RequestContext
from recsys.candidates.sources import SOURCES
from recsys.distribution.eligibility import first_match
from recsys.domain.query import Query
from recsys.domain.trace import DropReason, FallbackLevel, StageTrace
from recsys.domain.types import F32, U32
from recsys.domain.viewer import ViewerState
from recsys.guidance.compilation.compile import CompiledPolicy
from recsys.guidance.solver.infeasibility import ConflictCache
from recsys.guidance.solver.page_budget import FIRST_STAGE, RELAXATION_SHARE, PageBudget
from recsys.guidance.solver.relaxation import violations
from recsys.guidance.solver.relaxation_cache import RelaxationCache
from recsys.guidance.solver.solve import DEADLINE_FACTOR
from recsys.models.fallback import fallback_level, without_ranker
from recsys.page import Page
from recsys.page_solver import PageSolver, SolvedPage, stopwatch
from recsys.snapshot import ServingSnapshot
from recsys.supply.expand import expand_supply, needs_expansion
from recsys.utility import utility

Columns = Callable[..., F32]
"""The type of `features.columns.columns`, which is passed in because this layer imports none of the layers above."""

UNGUIDED_ERROR = "the policy could not be applied"
"""Prefix of the trace error of a page that was served without the controls of its policy because of an engine fault."""

EXPANDED_SUPPLY = "expanded supply"
"""Name of the stage that searches the whole catalog before a control is relaxed."""

SUPPLY_BIT = np.uint32(1 << list(SOURCES).index("supply"))
"""Bit of `Candidates.source` for candidates that the policy needs."""

CONTENT_HINT = 0.5
"""Weight of content similarity before ranking, relative to a retrieval affinity of 1."""


@dataclass(frozen=True)
class Engine:
    """The engine that makes pages.

    Its only state is two caches of solver results, so all threads can share one engine.

    columns     `features.columns.columns`
    candidates  maximum number of candidates that are ranked for one page. Pinned items and supply for quotas are kept
                first. If a control would be relaxed, up to `recsys.supply.expand.EXPANDED_MAX` more are ranked
    solve_s     seconds after which the page solver improves its page no further, measured by `clock`
    budget_s    seconds that solve, relaxation, causes and receipt of one page may take together, measured by `clock`
    clock       returns seconds of processor time of the calling thread; without a clock, time limits do not apply
    """

    columns: Columns
    candidates: int = 500
    solve_s: float = 0.010
    budget_s: float = 0.050
    clock: Callable[[], float] | None = None
    relaxation_cache: RelaxationCache = field(default_factory=RelaxationCache)
    conflict_cache: ConflictCache = field(default_factory=ConflictCache)

    def run(self, query: Query, viewer: ViewerState | None, snapshot: ServingSnapshot) -> Page:
        """Return the best page for the query that meets the policy of the snapshot.

        A query without personalisation ignores the viewer's state, so opposite histories give the same page.
        """
        if not query.personalised:
            viewer = None
        trace: list[StageTrace] = []
        context = self._context(query, viewer, snapshot, trace)
        level = fallback_level(context)
        batch = self._retrieve(context, trace)
        batch = self._filter(context, batch, trace)
        batch = self._truncate(context, batch, trace)
        expanded = self._lacks_supply(context, batch, trace)
        if expanded:
            batch = self._expand_supply(context, batch, trace)
        batch = self._rank(context, batch, level, trace)
        return self._constrain_and_solve(context, batch, level, trace, expanded)

    def _solver(self) -> PageSolver:
        """Return a solver for one page; its budget starts now."""
        budget = PageBudget(1e6 * self.budget_s, self.clock) if self.clock else PageBudget()
        return PageSolver(self.solve_s, self.clock, budget, self.relaxation_cache, self.conflict_cache)

    def _context(
        self, query: Query, viewer: ViewerState | None, snapshot: ServingSnapshot, trace: list[StageTrace]
    ) -> RequestContext:
        """Fold the viewer into the retrieval model and collect everything that the stages read."""
        vector = None
        if snapshot.model is not None and viewer is not None:
            try:
                vector = snapshot.model.retriever.viewer_vector(viewer)
            except (ArithmeticError, ValueError, np.linalg.LinAlgError) as error:
                trace.append(StageTrace("viewer", 1, 1, error=_describe(error)))
        return RequestContext(
            query,
            viewer,
            snapshot.catalog,
            snapshot.stats,
            snapshot.model,
            snapshot.policy,
            snapshot.index,
            vector,
            snapshot.prices,
            content_profile(viewer, snapshot.catalog, query.now),
        )

    def _retrieve(self, context: RequestContext, trace: list[StageTrace]) -> Candidates:
        """Return the union of all sources in order of catalog row. Each candidate records the sources that found it."""
        bits = np.zeros(len(context.catalog), np.uint32)
        for bit, (name, source) in enumerate(SOURCES.items()):
            try:
                rows = source(context)
            except Exception as error:  # a failing source must not stop the others
                trace.append(StageTrace(name, 0, 0, error=_describe(error)))
                continue
            bits[rows[rows >= 0]] |= np.uint32(1 << bit)
            trace.append(StageTrace(name, len(rows), len(rows)))
        return _union(bits)

    def _filter(self, context: RequestContext, batch: Candidates, trace: list[StageTrace]) -> Candidates:
        """Drop ineligible candidates, then those that the policy blocks."""
        masks = {reason: mask[batch.row] for reason, mask in context.ineligible.items()}
        if context.query.guided:
            capped = context.frequency_capped[batch.row]
            showable, _ = first_match({**masks, DropReason.FREQUENCY_CAPPED: capped})
            masks[DropReason.BLOCKED] = context.policy.blocked(
                batch.row,
                context.query,
                showable,
                catalog_showable=lambda: context.eligible & ~context.frequency_capped,
            )
            masks[DropReason.FREQUENCY_CAPPED] = capped
        keep, dropped = first_match(masks)
        trace.append(StageTrace("eligibility", len(batch), int(keep.sum()), dropped))
        return _with_affinity(context, batch.take(keep))

    def _truncate(self, context: RequestContext, batch: Candidates, trace: list[StageTrace]) -> Candidates:
        """Keep at most `candidates`: supply for the policy first, then by affinity, similarity and popularity."""
        surplus = len(batch) - self.candidates
        if surplus > 0:
            required = (batch.source & SUPPLY_BIT) > 0
            similarity = CONTENT_HINT * content_similarity(batch.row, context.content_profile, context.catalog)
            hint = np.maximum(batch.affinity, similarity) + 0.1 * np.log1p(context.index.popularity[batch.row])
            order = np.lexsort((batch.row, -hint, ~required))
            keep = np.sort(order[: self.candidates]).astype(np.int32)
            trace.append(StageTrace("surplus", len(batch), len(keep), {DropReason.SURPLUS: surplus}))
            return batch.take(keep)
        trace.append(StageTrace("surplus", len(batch), len(batch)))
        return batch

    def _lacks_supply(self, context: RequestContext, batch: Candidates, trace: list[StageTrace]) -> bool:
        """Return whether a cap or spacing evidently lacks candidates, before the solver runs."""
        try:
            return needs_expansion(context, batch.row)
        except Exception as error:  # the solver will meet the same fault, and the page falls back there
            trace.append(StageTrace(EXPANDED_SUPPLY, 0, 0, error=_describe(error)))
            return False

    def _expand_supply(self, context: RequestContext, batch: Candidates, trace: list[StageTrace]) -> Candidates:
        """Return the batch plus the best items of every stratum of the catalog, not ranked yet."""
        bits = np.zeros(len(context.catalog), np.uint32)
        bits[batch.row] = batch.source
        try:
            rows = expand_supply(context)
        except Exception as error:
            trace.append(StageTrace(EXPANDED_SUPPLY, 0, 0, error=_describe(error)))
            return batch
        rows = rows[(rows >= 0) & (bits[rows] == 0)]
        trace.append(StageTrace(EXPANDED_SUPPLY, len(rows), len(rows)))
        if not len(rows):
            return batch
        bits[rows] = SUPPLY_BIT
        return self._filter(context, _union(bits), trace)

    def _rank(
        self, context: RequestContext, batch: Candidates, level: FallbackLevel, trace: list[StageTrace]
    ) -> Candidates:
        """Compute features, probabilities and utility. Without a ranker, popularity replaces p(play)."""
        error = None
        if context.model is not None and level is not FallbackLevel.EDITORIAL:
            try:
                query = context.query
                features = self.columns(
                    batch.row,
                    batch.affinity,
                    context.viewer,
                    context.catalog,
                    context.stats,
                    query.now,
                    query.region,
                    query.placement.screen,
                )
                p = context.model.p(features)
                trace.append(StageTrace("rank", len(batch), len(batch)))
                return batch.with_columns(features=features, p=p, utility=utility(p, context.model.weight))
            except Exception as failure:  # a failing ranker must not cost the page
                error = _describe(failure)
        trace.append(StageTrace("rank", len(batch), len(batch), error=error))
        return without_ranker(context, batch, level)

    def _constrain_and_solve(
        self,
        context: RequestContext,
        batch: Candidates,
        level: FallbackLevel,
        trace: list[StageTrace],
        expanded: bool,
    ) -> Page:
        """Solve for the page under the policy, and record why it is this page.

        If no page meets the legal controls, the editorial page is served: it violates them as little as the inventory
        allows, and the trace reports it to the operator. The editorial page also answers if the policy cannot be
        applied at all; blocks hold in any case, since `_filter` has applied them.
        """
        solver = self._solver()
        policy = context.policy if context.query.guided else CompiledPolicy.none(context.catalog)
        editorial, error = without_ranker(context, batch, FallbackLevel.EDITORIAL), None
        try:
            if expanded:
                solved = solver.solve(context, policy, batch)
            else:
                solved = self._solve_or_expand(solver, context, policy, batch, level, trace)
            page = solver.page(context, policy, solved, level)
            if solved.batch.row is not batch.row:
                batch = solved.batch
                editorial = without_ranker(context, batch, FallbackLevel.EDITORIAL)
            if not page.receipt.legal_met:
                violated = [line.id for line in page.receipt.controls if line.enforcement == "legal" and line.slack]
                error = f"no page meets the legal controls {', '.join(violated)}; serving the editorial page"
                solved = solver.solve(context, policy, editorial, reuse=solved.solution)
                page = solver.page(context, policy, solved, FallbackLevel.EDITORIAL)
        except Exception as failure:  # a fault of the engine or the model: serve a page and report the fault
            reason = _describe(failure)
            try:
                solved = solver.solve(context, policy, editorial)
                page = solver.page(context, policy, solved, FallbackLevel.EDITORIAL)
                error = f"{reason}; serving the editorial page"
            except Exception:
                error = f"{UNGUIDED_ERROR} ({reason}); serving an editorial page without its controls"
                unguided = CompiledPolicy.none(context.catalog)
                solved = solver.solve(context, unguided, editorial)
                page = solver.page(context, unguided, solved, FallbackLevel.EDITORIAL)
        n_out = len(page.items)
        trace.append(StageTrace("solve", len(batch), n_out, {DropReason.UNSELECTED: len(batch) - n_out}, error))
        return replace(page, trace=tuple(trace))

    def _solve_or_expand(
        self,
        solver: PageSolver,
        context: RequestContext,
        policy: CompiledPolicy,
        batch: Candidates,
        level: FallbackLevel,
        trace: list[StageTrace],
    ) -> SolvedPage:
        """Solve; if a control would be relaxed, expand supply and solve again in the time that is left.

        The second run has a minimum time, so that it finds a feasible page if there is one.
        """
        elapsed = stopwatch(self.clock)
        budget = solver.budget
        budget.stage = FIRST_STAGE
        first = solver.solve(context, policy, batch)
        budget.stage = 1.0
        if not first.relaxes_hard_control(policy) or not budget.allows("relaxation", RELAXATION_SHARE):
            return first
        batch = self._expand_supply(context, batch, trace)
        relaxed = first.solution.relaxed
        constraints = solver.constraints(context, policy, batch)
        if len(batch) == len(first.batch) or (violations(constraints, relaxed) >= relaxed).all():
            return first  # the catalog lacks items, so more candidates do not help
        batch = self._rank(context, batch, level, trace)
        left_s = max(DEADLINE_FACTOR * self.solve_s - elapsed(), self.solve_s) / DEADLINE_FACTOR
        cut_of_first = budget.cut.copy()
        budget.cut.clear()
        second = solver.solve(context, policy, batch, min(left_s, self.solve_s))
        rank = (tuple(second.solution.relaxed), not second.solution.minimal_proven.all())
        if rank <= (tuple(relaxed), False):
            return second
        budget.cut |= cut_of_first
        return first


def _union(bits: U32) -> Candidates:
    """Return the candidates of the rows that a source found, in order of row.

    bits  [catalog]  bit s set: source s found the row
    """
    row = np.flatnonzero(bits).astype(np.int32)
    return Candidates.of(row, bits[row])


def _with_affinity(context: RequestContext, batch: Candidates) -> Candidates:
    """Return the batch with the retriever's score of the viewer and each item."""
    if context.model is None or context.vector is None:
        return batch
    position = context.index.position_of_row[batch.row]
    scores = context.model.retriever.scores(context.vector, position)
    return batch.with_columns(affinity=np.where(position >= 0, scores, np.float32(0.0)))


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
