"""One page, from question to answer. This is the whole story; every stage says what it took, kept and dropped.

    sources -> union -> eligibility -> surplus -> columns -> rank -> utility -> bonus -> bounds -> solve -> receipt

Before a control gives way for want of candidates, supply is widened once, and what follows is done again.
Relevance fails open: a dead source or ranker is a line in the trace and the page comes from a lower rung. Guidance and
eligibility fail closed: no page leaves without them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from recsys.batch import Candidates
from recsys.candidates.content_based import content_profile, content_similarity
from recsys.candidates.context import RequestContext
from recsys.candidates.index import CandidateIndex
from recsys.candidates.sources import SOURCES, local_plays
from recsys.distribution.eligibility import first_match, ineligible
from recsys.distribution.layouts import screen_layout
from recsys.domain.catalog import Catalog
from recsys.domain.types import ACTIONS, F32, F64, U32, Bool, DropReason, FallbackLevel, Query, StageTrace
from recsys.domain.viewer import ItemStats, ViewerState
from recsys.explanations import explain
from recsys.guidance.compilation.compile import CompiledPolicy
from recsys.guidance.receipt.receipt import write_receipt
from recsys.guidance.solver.infeasibility import ConflictCache
from recsys.guidance.solver.page_constraints import PageConstraints, Solution
from recsys.guidance.solver.relaxation import violations
from recsys.guidance.solver.relaxation_cache import RelaxationCache
from recsys.guidance.solver.solve import DEADLINE_FACTOR, is_late_after, solve
from recsys.models.fallback import without_ranker
from recsys.models.served_model import ServedModel
from recsys.pacing.on_page import NO_PRICES, ActivePrices, deliveries, frequency_capped, price_bonus, with_targets
from recsys.page import Page, PageItem
from recsys.supply.expand import expand_supply, needs_expansion
from recsys.utility import utility

Columns = Callable[..., F32]
"""`features.columns.columns`: handed in, since this floor imports none of the floors above."""

UNGUIDED_ERROR = "the policy could not be applied"
"""How the trace of a page begins that left without the controls of its policy, by a fault of ours."""

EXPANDED_SUPPLY = "wider supply"
"""The stage of the trace that asks the whole catalogue, before a control gives way."""

SUPPLY_BIT = np.uint32(1 << list(SOURCES).index("supply"))
"""In `Candidates.source`: proposed because the policy needs it."""

CONTENT_HINT = 0.5
"""What a text like those the viewer liked is worth, before ranking, against a sure match of retrieval."""


@dataclass(frozen=True)
class ServingSnapshot:
    """All that a page is made from besides its query and viewer; read once, so one request sees one world."""

    catalog: Catalog
    stats: ItemStats
    model: ServedModel | None
    policy: CompiledPolicy
    index: CandidateIndex
    prices: ActivePrices = NO_PRICES

    def __repr__(self) -> str:
        model = self.model.bundle.version if self.model else "none"
        return f"World({self.catalog}, model {model}, policy {self.policy.version})"

    @classmethod
    def of(
        cls, catalog: Catalog, stats: ItemStats, model: ServedModel | None, policy: CompiledPolicy
    ) -> ServingSnapshot:
        """A world with its index derived; `replace(world, policy=p)` is the same world, steered otherwise."""
        stats = stats.resized(len(catalog))
        return cls(catalog, stats, model, policy, CandidateIndex.of(catalog, stats, model))


@dataclass(frozen=True)
class _SolvedPage:
    """Candidates with their bonus, attention [K], what the page must keep, and the solver's answer."""

    batch: Candidates
    attention: F64
    bounds: PageConstraints
    solution: Solution

    def relaxes_hard_control(self, policy: CompiledPolicy) -> bool:
        """Whether a control gives way that is more than a wish."""
        return any(
            policy.controls[c].control.enforcement != "preferred" for c in np.flatnonzero(self.solution.relaxed).tolist()
        )


@dataclass(frozen=True)
class Engine:
    """Makes pages; holds nothing but a memory of what gave way before, so one engine serves all threads.

    columns     `features.columns.columns`
    candidates  how many are ranked for one page; pins and supply for floors are kept first. Where a control would give
                way, up to `recsys.supply.expand.EXPANDED_MAX` more are ranked
    solve_s     time the page solver may take by `clock`, a function to seconds
    """

    columns: Columns
    candidates: int = 500
    solve_s: float = 0.010
    clock: Callable[[], float] | None = None
    memory: RelaxationCache = field(default_factory=RelaxationCache)
    causes: ConflictCache = field(default_factory=ConflictCache)

    def run(self, query: Query, viewer: ViewerState | None, world: ServingSnapshot) -> Page:
        """The best page that keeps the policy, for this query in this world."""
        if not query.personalised:
            viewer = None  # as if nothing were known: opposite histories give the same page
        ask, rung, trace = self._context(query, viewer, world)
        batch = self._retrieve(ask, trace)
        batch = self._filter(ask, batch, trace)
        batch = self._truncate(ask, batch, trace)
        wide = self._lacks_supply(ask, batch, trace)
        if wide:
            batch = self._expand_supply(ask, batch, trace)
        batch = self._rank(ask, batch, rung, trace)
        return self._constrain_and_solve(ask, batch, rung, trace, wide)

    def _context(
        self, query: Query, viewer: ViewerState | None, world: ServingSnapshot
    ) -> tuple[RequestContext, FallbackLevel, list[StageTrace]]:
        """Fold the viewer into the model and see how much of the engine can answer."""
        trace: list[StageTrace] = []
        vector = None
        if world.model is not None and viewer is not None:
            try:
                vector = world.model.retriever.viewer_vector(viewer)
            except (ArithmeticError, ValueError, np.linalg.LinAlgError) as error:
                trace.append(StageTrace("viewer", 1, 1, error=f"{type(error).__name__}: {error}"))
        if vector is not None:
            rung = FallbackLevel.PERSONAL
        elif local_plays(world.stats, query.region) is not None:
            rung = FallbackLevel.SEGMENT
        elif world.index.popularity.any():
            rung = FallbackLevel.POPULAR
        else:
            rung = FallbackLevel.EDITORIAL
        w = world
        ask = RequestContext(
            query,
            viewer,
            w.catalog,
            w.stats,
            w.model,
            w.policy,
            w.index,
            vector,
            w.prices,
            content_profile(viewer, w.catalog, query.now),
        )
        return ask, rung, trace

    def _retrieve(self, ask: RequestContext, trace: list[StageTrace]) -> Candidates:
        """The union of all sources, each candidate knowing who proposed it. Order: catalogue row."""
        bits = np.zeros(len(ask.catalog), np.uint32)
        for bit, (name, source) in enumerate(SOURCES.items()):
            try:
                rows = source(ask)
            except Exception as error:  # whatever is wrong with one source, the others still answer
                trace.append(StageTrace(name, 0, 0, error=f"{type(error).__name__}: {error}"))
                continue
            bits[rows[rows >= 0]] |= np.uint32(1 << bit)
            trace.append(StageTrace(name, len(rows), len(rows)))
        return _union(ask, bits)

    def _filter(self, ask: RequestContext, batch: Candidates, trace: list[StageTrace]) -> Candidates:
        """Eligibility, then the policy's blocks."""
        gone = ineligible(ask.catalog, batch.row, ask.query, ask.viewer)
        if ask.query.guided:
            enough = frequency_capped(ask.policy, batch.row, ask.query, ask.viewer, ask.prices)
            showable, _ = first_match({**gone, DropReason.FREQUENCY_CAPPED: enough})
            gone[DropReason.BLOCKED] = ask.policy.blocked(
                batch.row, ask.query, showable, elsewhere=partial(_showable, ask)
            )
            gone[DropReason.FREQUENCY_CAPPED] = enough
        keep, dropped = first_match(gone)
        trace.append(StageTrace("eligibility", len(batch), int(keep.sum()), dropped))
        return batch.take(keep)

    def _truncate(self, ask: RequestContext, batch: Candidates, trace: list[StageTrace]) -> Candidates:
        """At most `candidates` go on: supply for guidance first, then by affinity or likeness, and popularity."""
        surplus = len(batch) - self.candidates
        if surplus > 0:
            owed = (batch.source & SUPPLY_BIT) > 0
            alike = CONTENT_HINT * content_similarity(batch.row, ask.content_profile, ask.catalog)
            hint = np.maximum(batch.affinity, alike) + 0.1 * np.log1p(ask.index.popularity[batch.row])
            order = np.lexsort((batch.row, -hint, ~owed))
            keep = np.sort(order[: self.candidates]).astype(np.int32)
            trace.append(StageTrace("surplus", len(batch), len(keep), {DropReason.SURPLUS: surplus}))
            return batch.take(keep)
        trace.append(StageTrace("surplus", len(batch), len(batch)))
        return batch

    def _lacks_supply(self, ask: RequestContext, batch: Candidates, trace: list[StageTrace]) -> bool:
        """Whether a cap or spacing can be seen to lack candidates before a page is looked for."""
        try:
            return needs_expansion(ask, batch.row)
        except Exception as error:  # the same fault will meet the solver, and there the page falls back
            trace.append(StageTrace(EXPANDED_SUPPLY, 0, 0, error=f"{type(error).__name__}: {error}"))
            return False

    def _expand_supply(self, ask: RequestContext, batch: Candidates, trace: list[StageTrace]) -> Candidates:
        """The batch with the best of every kind of item that the catalogue holds; nothing computed of it yet."""
        bits = np.zeros(len(ask.catalog), np.uint32)
        bits[batch.row] = batch.source
        try:
            rows = expand_supply(ask)
        except Exception as error:
            trace.append(StageTrace(EXPANDED_SUPPLY, 0, 0, error=f"{type(error).__name__}: {error}"))
            return batch
        rows = rows[(rows >= 0) & (bits[rows] == 0)]
        trace.append(StageTrace(EXPANDED_SUPPLY, len(rows), len(rows)))
        if not len(rows):
            return batch
        bits[rows] = SUPPLY_BIT
        return self._filter(ask, _union(ask, bits), trace)

    def _rank(self, ask: RequestContext, batch: Candidates, rung: FallbackLevel, trace: list[StageTrace]) -> Candidates:
        """Features, probabilities, utility; without a ranker, popularity stands in for the probability of a play."""
        error = None
        if ask.model is not None and rung is not FallbackLevel.EDITORIAL:
            try:
                query = ask.query
                features = self.columns(
                    batch.row,
                    batch.affinity,
                    ask.viewer,
                    ask.catalog,
                    ask.stats,
                    query.now,
                    query.region,
                    query.placement.screen,
                )
                p = ask.model.p(features)
                trace.append(StageTrace("rank", len(batch), len(batch)))
                return batch.with_columns(features=features, p=p, utility=utility(p, ask.model.weight))
            except Exception as failure:  # a ranker that cannot answer must not cost the page
                error = f"{type(failure).__name__}: {failure}"
        trace.append(StageTrace("rank", len(batch), len(batch), error=error))
        return without_ranker(ask, batch, rung)

    def _constrain_and_solve(
        self, ask: RequestContext, batch: Candidates, rung: FallbackLevel, trace: list[StageTrace], wide: bool
    ) -> Page:
        """Solve for the page under the policy and write down why it is this one.

        Where not even the legal controls can be kept, personalisation has no say any more: the editorial page answers,
        as near to the law as the inventory allows, and the trace says so to the operator. So it does where the policy
        cannot be applied at all; blocks have been kept by then (`_admit`).
        """
        policy = ask.policy if ask.query.guided else CompiledPolicy.none(ask.catalog)
        last, error = without_ranker(ask, batch, FallbackLevel.EDITORIAL), None
        try:
            solved = self._solve(ask, policy, batch) if wide else self._solve_or_expand(ask, policy, batch, rung, trace)
            page = self._page(ask, policy, solved, rung)
            if solved.batch.row is not batch.row:
                batch = solved.batch
                last = without_ranker(ask, batch, FallbackLevel.EDITORIAL)
            if not page.receipt.legal_kept:
                broken = [line.id for line in page.receipt.controls if line.enforcement == "legal" and line.by]
                error = f"no page keeps the legal controls {', '.join(broken)}: the editorial page answers"
                page = self._page(ask, policy, self._solve(ask, policy, last), FallbackLevel.EDITORIAL)
        except Exception as failure:  # a fault of ours or of the model: the page must come, and the operator must know
            why = f"{type(failure).__name__}: {failure}"
            try:
                page = self._page(ask, policy, self._solve(ask, policy, last), FallbackLevel.EDITORIAL)
                error = f"the editorial page answers ({why})"
            except Exception:
                error = f"{UNGUIDED_ERROR}: an editorial page without its controls answers ({why})"
                none = CompiledPolicy.none(ask.catalog)
                page = self._page(ask, none, self._solve(ask, none, last), FallbackLevel.EDITORIAL)
        left = len(page.items)
        trace.append(StageTrace("solve", len(batch), left, {DropReason.UNSELECTED: len(batch) - left}, error))
        return replace(page, trace=tuple(trace))

    def _solve_or_expand(
        self,
        ask: RequestContext,
        policy: CompiledPolicy,
        batch: Candidates,
        rung: FallbackLevel,
        trace: list[StageTrace],
    ) -> _SolvedPage:
        """Where a control would give way, the same once more with wider supply, in the time that the first left.

        The second has a short while at least, so that a page that is there is found.
        """
        spent = _deadline_clock(self.clock)
        first = self._solve(ask, policy, batch)
        if not first.relaxes_hard_control(policy):
            return first
        batch = self._expand_supply(ask, batch, trace)
        relaxed = first.solution.relaxed
        if len(batch) == len(first.batch) or (violations(self._bounds(ask, policy, batch), relaxed) >= relaxed).all():
            return first  # items are missing, not candidates
        batch = self._rank(ask, batch, rung, trace)
        left_s = max(DEADLINE_FACTOR * self.solve_s - spent(), self.solve_s) / DEADLINE_FACTOR
        second = self._solve(ask, policy, batch, min(left_s, self.solve_s))
        better = (tuple(second.solution.relaxed), not second.solution.minimal_proven.all())
        return second if better <= (tuple(relaxed), False) else first

    def _bounds(self, ask: RequestContext, policy: CompiledPolicy, batch: Candidates) -> PageConstraints:
        """What a page of these candidates must keep."""
        query = ask.query
        bounds = policy.bounds(query, batch.row, query.slots, ask.catalog.rows(query.shown))
        return with_targets(bounds, policy, batch.row, query, ask.viewer, ask.prices)

    def _solve(
        self, ask: RequestContext, policy: CompiledPolicy, batch: Candidates, deadline_s: float | None = None
    ) -> _SolvedPage:
        """The best slots for these utilities."""
        query = ask.query
        attention = screen_layout(query.placement.screen).attention(query.slots)
        prices = price_bonus(policy, batch.row, query, ask.prices)
        batch = batch.with_columns(bonus=policy.bonus(batch.row, query) + prices)
        bounds, value = self._bounds(ask, policy, batch), batch.utility + batch.bonus
        deadline_s = self.solve_s if deadline_s is None else deadline_s
        solution = solve(value, attention, bounds, deadline_s=deadline_s, clock=self.clock, cache=self.memory)
        return _SolvedPage(batch, attention, bounds, solution)

    def _page(self, ask: RequestContext, policy: CompiledPolicy, solved: _SolvedPage, rung: FallbackLevel) -> Page:
        """The page and why it is this one; its trace is still empty."""
        query, batch, attention = ask.query, solved.batch, solved.attention
        bounds, solution = solved.bounds, solved.solution
        late = is_late_after(2.0 * self.solve_s, self.clock)
        causes = self.causes.of(bounds, solution.relaxed, solution.minimal_proven, late)
        page = batch.take(solution.chosen)
        why = explain(ask, page)
        items = tuple(
            PageItem(
                slot=k + 1,
                row=int(page.row[k]),
                item_id=ask.catalog.ids[page.row[k]],
                utility=float(page.utility[k]),
                bonus=float(page.bonus[k]),
                p=dict(zip(ACTIONS, page.p[k].tolist(), strict=True)),
                sources=tuple(name for bit, name in enumerate(SOURCES) if page.source[k] >> bit & 1),
                reasons=why[k],
                control_ids=policy.serving(bounds, solution.chosen, k),
            )
            for k in range(len(page))
        )
        return Page(
            items=items,
            fallback_level=rung,
            receipt=write_receipt(policy, bounds, solution, batch, attention, ask.catalog, causes),
            trace=(),
            features=page.features,
            model_version=ask.model.bundle.version if ask.model else "none",
            policy_version=policy.version,
            delivered=deliveries(policy, page.row, attention, query, ask.prices),
            engagement=float(attention[: len(page)] @ page.utility),
            unguided=float(attention[: len(page)] @ np.sort(batch.utility)[::-1][: len(page)]),
        )


def _union(ask: RequestContext, bits: U32) -> Candidates:
    """Candidates of the catalogue rows that a source proposed ([catalogue] bits), in order of row."""
    row = np.flatnonzero(bits).astype(np.int32)
    affinity = np.zeros(len(row), np.float32)
    if ask.model is not None and ask.vector is not None:
        position = ask.index.position_of_row[row]
        affinity = np.where(position >= 0, ask.model.retriever.scores(ask.vector, position), np.float32(0.0))
    return Candidates.of(row, bits[row], affinity)


def _deadline_clock(clock: Callable[[], float] | None) -> Callable[[], float]:
    """Seconds from now on; none pass without a clock."""
    if clock is None:
        return lambda: 0.0
    began = clock()
    return lambda: clock() - began


def _showable(ask: RequestContext) -> Bool:
    """[catalogue] whether anything but a block keeps an item off this page."""
    rows = np.arange(len(ask.catalog), dtype=np.int32)
    enough = frequency_capped(ask.policy, rows, ask.query, ask.viewer, ask.prices)
    showable, _ = first_match(
        {**ineligible(ask.catalog, rows, ask.query, ask.viewer), DropReason.FREQUENCY_CAPPED: enough}
    )
    return showable


def is_conserved(trace: tuple[StageTrace, ...]) -> Mapping[str, int]:
    """Stages that break the law `entered == left + dropped`, by how much; empty when all is well."""
    off = {stage.name: stage.entered - stage.left - sum(stage.dropped.values()) for stage in trace}
    return {name: missing for name, missing in off.items() if missing}
