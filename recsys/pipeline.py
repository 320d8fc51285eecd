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
from recsys.candidates.context import Ask
from recsys.candidates.index import Index
from recsys.candidates.similar import match, taste
from recsys.candidates.sources import SOURCES, local_plays
from recsys.catalog import Catalog
from recsys.distribution.eligibility import barred, first_reasons
from recsys.distribution.screens import layout
from recsys.guidance.bounds import Bounds, Solution
from recsys.guidance.causes import Remembered
from recsys.guidance.compile import CompiledPolicy
from recsys.guidance.memory import Relaxations
from recsys.guidance.receipt import write_receipt
from recsys.guidance.relaxation import shortages
from recsys.guidance.solver import PATIENCE, late_after, solve
from recsys.guidance.targets.onpage import NOT_STEERED, Steered, credits, had_enough, price_bonus, with_targets
from recsys.model import Model
from recsys.page import Page, PageItem
from recsys.ranking.fallback import without_ranker
from recsys.ranking.utility import utility
from recsys.reasons import reasons
from recsys.state import ItemStats, ViewerState
from recsys.supply.expand import expand_supply, lacks_supply
from recsys.types import ACTIONS, F32, F64, U32, Bool, Drop, Query, Rung, Stage

Columns = Callable[..., F32]
"""`features.columns.columns`: handed in, since this floor imports none of the floors above."""

UNGUIDED = "the policy could not be applied"
"""How the trace of a page begins that left without the controls of its policy, by a fault of ours."""

WIDER = "wider supply"
"""The stage of the trace that asks the whole catalogue, before a control gives way."""

SUPPLY_BIT = np.uint32(1 << list(SOURCES).index("supply"))
"""In `Candidates.source`: proposed because the policy needs it."""

CONTENT_HINT = 0.5
"""What a text like those the viewer liked is worth, before ranking, against a sure match of retrieval."""


@dataclass(frozen=True)
class World:
    """All that a page is made from besides its query and viewer; read once, so one request sees one world."""

    catalog: Catalog
    stats: ItemStats
    model: Model | None
    policy: CompiledPolicy
    index: Index
    steered: Steered = NOT_STEERED

    def __repr__(self) -> str:
        model = self.model.bundle.version if self.model else "none"
        return f"World({self.catalog}, model {model}, policy {self.policy.version})"

    @classmethod
    def of(cls, catalog: Catalog, stats: ItemStats, model: Model | None, policy: CompiledPolicy) -> World:
        """A world with its index derived; `replace(world, policy=p)` is the same world, steered otherwise."""
        stats = stats.resized(len(catalog))
        return cls(catalog, stats, model, policy, Index.of(catalog, stats, model))


@dataclass(frozen=True)
class _Solved:
    """Candidates with their bonus, attention [K], what the page must keep, and the solver's answer."""

    batch: Candidates
    attention: F64
    bounds: Bounds
    solution: Solution

    def yields(self, policy: CompiledPolicy) -> bool:
        """Whether a control gives way that is more than a wish."""
        return any(
            policy.controls[c].control.hardness != "soft" for c in np.flatnonzero(self.solution.relaxed).tolist()
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
    memory: Relaxations = field(default_factory=Relaxations)
    causes: Remembered = field(default_factory=Remembered)

    def run(self, query: Query, viewer: ViewerState | None, world: World) -> Page:
        """The best page that keeps the policy, for this query in this world."""
        if not query.personalised:
            viewer = None  # as if nothing were known: opposite histories give the same page
        ask, rung, trace = self._ask(query, viewer, world)
        batch = self._propose(ask, trace)
        batch = self._admit(ask, batch, trace)
        batch = self._shorten(ask, batch, trace)
        wide = self._alike(ask, batch, trace)
        if wide:
            batch = self._widen(ask, batch, trace)
        batch = self._rank(ask, batch, rung, trace)
        return self._decide(ask, batch, rung, trace, wide)

    def _ask(self, query: Query, viewer: ViewerState | None, world: World) -> tuple[Ask, Rung, list[Stage]]:
        """Fold the viewer into the model and see how much of the engine can answer."""
        trace: list[Stage] = []
        vector = None
        if world.model is not None and viewer is not None:
            try:
                vector = world.model.retriever.viewer_vector(viewer)
            except (ArithmeticError, ValueError, np.linalg.LinAlgError) as error:
                trace.append(Stage("viewer", 1, 1, error=f"{type(error).__name__}: {error}"))
        if vector is not None:
            rung = Rung.PERSONAL
        elif local_plays(world.stats, query.region) is not None:
            rung = Rung.SEGMENT
        elif world.index.popularity.any():
            rung = Rung.POPULAR
        else:
            rung = Rung.EDITORIAL
        w = world
        ask = Ask(
            query,
            viewer,
            w.catalog,
            w.stats,
            w.model,
            w.policy,
            w.index,
            vector,
            w.steered,
            taste(viewer, w.catalog, query.now),
        )
        return ask, rung, trace

    def _propose(self, ask: Ask, trace: list[Stage]) -> Candidates:
        """The union of all sources, each candidate knowing who proposed it. Order: catalogue row."""
        bits = np.zeros(len(ask.catalog), np.uint32)
        for bit, (name, source) in enumerate(SOURCES.items()):
            try:
                rows = source(ask)
            except Exception as error:  # whatever is wrong with one source, the others still answer
                trace.append(Stage(name, 0, 0, error=f"{type(error).__name__}: {error}"))
                continue
            bits[rows[rows >= 0]] |= np.uint32(1 << bit)
            trace.append(Stage(name, len(rows), len(rows)))
        return _joined(ask, bits)

    def _admit(self, ask: Ask, batch: Candidates, trace: list[Stage]) -> Candidates:
        """Eligibility, then the policy's blocks."""
        gone = barred(ask.catalog, batch.row, ask.query, ask.viewer)
        if ask.query.guided:
            enough = had_enough(ask.policy, batch.row, ask.query, ask.viewer, ask.steered)
            showable, _ = first_reasons({**gone, Drop.ENOUGH: enough})
            gone[Drop.BLOCKED] = ask.policy.blocked(batch.row, ask.query, showable, elsewhere=partial(_showable, ask))
            gone[Drop.ENOUGH] = enough
        keep, dropped = first_reasons(gone)
        trace.append(Stage("eligibility", len(batch), int(keep.sum()), dropped))
        return batch.take(keep)

    def _shorten(self, ask: Ask, batch: Candidates, trace: list[Stage]) -> Candidates:
        """At most `candidates` go on: supply for guidance first, then by affinity or likeness, and popularity."""
        surplus = len(batch) - self.candidates
        if surplus > 0:
            owed = (batch.source & SUPPLY_BIT) > 0
            alike = CONTENT_HINT * match(batch.row, ask.taste, ask.catalog)
            hint = np.maximum(batch.affinity, alike) + 0.1 * np.log1p(ask.index.popularity[batch.row])
            order = np.lexsort((batch.row, -hint, ~owed))
            keep = np.sort(order[: self.candidates]).astype(np.int32)
            trace.append(Stage("surplus", len(batch), len(keep), {Drop.SURPLUS: surplus}))
            return batch.take(keep)
        trace.append(Stage("surplus", len(batch), len(batch)))
        return batch

    def _alike(self, ask: Ask, batch: Candidates, trace: list[Stage]) -> bool:
        """Whether a cap or spacing can be seen to lack candidates before a page is looked for."""
        try:
            return lacks_supply(ask, batch.row)
        except Exception as error:  # the same fault will meet the solver, and there the page falls back
            trace.append(Stage(WIDER, 0, 0, error=f"{type(error).__name__}: {error}"))
            return False

    def _widen(self, ask: Ask, batch: Candidates, trace: list[Stage]) -> Candidates:
        """The batch with the best of every kind of item that the catalogue holds; nothing computed of it yet."""
        bits = np.zeros(len(ask.catalog), np.uint32)
        bits[batch.row] = batch.source
        try:
            rows = expand_supply(ask)
        except Exception as error:
            trace.append(Stage(WIDER, 0, 0, error=f"{type(error).__name__}: {error}"))
            return batch
        rows = rows[(rows >= 0) & (bits[rows] == 0)]
        trace.append(Stage(WIDER, len(rows), len(rows)))
        if not len(rows):
            return batch
        bits[rows] = SUPPLY_BIT
        return self._admit(ask, _joined(ask, bits), trace)

    def _rank(self, ask: Ask, batch: Candidates, rung: Rung, trace: list[Stage]) -> Candidates:
        """Features, probabilities, utility; without a ranker, popularity stands in for the probability of a play."""
        error = None
        if ask.model is not None and rung is not Rung.EDITORIAL:
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
                trace.append(Stage("rank", len(batch), len(batch)))
                return batch.with_columns(features=features, p=p, utility=utility(p, ask.model.weight))
            except Exception as failure:  # a ranker that cannot answer must not cost the page
                error = f"{type(failure).__name__}: {failure}"
        trace.append(Stage("rank", len(batch), len(batch), error=error))
        return without_ranker(ask, batch, rung)

    def _decide(self, ask: Ask, batch: Candidates, rung: Rung, trace: list[Stage], wide: bool) -> Page:
        """Solve for the page under the policy and write down why it is this one.

        Where not even the legal controls can be kept, personalisation has no say any more: the editorial page answers,
        as near to the law as the inventory allows, and the trace says so to the operator. So it does where the policy
        cannot be applied at all; blocks have been kept by then (`_admit`).
        """
        policy = ask.policy if ask.query.guided else CompiledPolicy.none(ask.catalog)
        last, error = without_ranker(ask, batch, Rung.EDITORIAL), None
        try:
            solved = self._solve(ask, policy, batch) if wide else self._solve_or_widen(ask, policy, batch, rung, trace)
            page = self._page(ask, policy, solved, rung)
            if solved.batch.row is not batch.row:
                batch = solved.batch
                last = without_ranker(ask, batch, Rung.EDITORIAL)
            if not page.receipt.legal_kept:
                broken = [line.id for line in page.receipt.controls if line.hardness == "legal" and line.by]
                error = f"no page keeps the legal controls {', '.join(broken)}: the editorial page answers"
                page = self._page(ask, policy, self._solve(ask, policy, last), Rung.EDITORIAL)
        except Exception as failure:  # a fault of ours or of the model: the page must come, and the operator must know
            why = f"{type(failure).__name__}: {failure}"
            try:
                page = self._page(ask, policy, self._solve(ask, policy, last), Rung.EDITORIAL)
                error = f"the editorial page answers ({why})"
            except Exception:
                error = f"{UNGUIDED}: an editorial page without its controls answers ({why})"
                none = CompiledPolicy.none(ask.catalog)
                page = self._page(ask, none, self._solve(ask, none, last), Rung.EDITORIAL)
        left = len(page.items)
        trace.append(Stage("solve", len(batch), left, {Drop.UNSELECTED: len(batch) - left}, error))
        return replace(page, trace=tuple(trace))

    def _solve_or_widen(
        self, ask: Ask, policy: CompiledPolicy, batch: Candidates, rung: Rung, trace: list[Stage]
    ) -> _Solved:
        """Where a control would give way, the same once more with wider supply, in the time that the first left.

        The second has a short while at least, so that a page that is there is found.
        """
        spent = _stopwatch(self.clock)
        first = self._solve(ask, policy, batch)
        if not first.yields(policy):
            return first
        batch = self._widen(ask, batch, trace)
        relaxed = first.solution.relaxed
        if len(batch) == len(first.batch) or (shortages(self._bounds(ask, policy, batch), relaxed) >= relaxed).all():
            return first  # items are missing, not candidates
        batch = self._rank(ask, batch, rung, trace)
        left_s = max(PATIENCE * self.solve_s - spent(), self.solve_s) / PATIENCE
        second = self._solve(ask, policy, batch, min(left_s, self.solve_s))
        better = (tuple(second.solution.relaxed), not second.solution.settled.all())
        return second if better <= (tuple(relaxed), False) else first

    def _bounds(self, ask: Ask, policy: CompiledPolicy, batch: Candidates) -> Bounds:
        """What a page of these candidates must keep."""
        query = ask.query
        bounds = policy.bounds(query, batch.row, query.slots, ask.catalog.rows(query.shown))
        return with_targets(bounds, policy, batch.row, query, ask.viewer, ask.steered)

    def _solve(self, ask: Ask, policy: CompiledPolicy, batch: Candidates, deadline_s: float | None = None) -> _Solved:
        """The best slots for these utilities."""
        query = ask.query
        attention = layout(query.placement.screen).attention(query.slots)
        prices = price_bonus(policy, batch.row, query, ask.steered)
        batch = batch.with_columns(bonus=policy.bonus(batch.row, query) + prices)
        bounds, value = self._bounds(ask, policy, batch), batch.utility + batch.bonus
        deadline_s = self.solve_s if deadline_s is None else deadline_s
        solution = solve(value, attention, bounds, deadline_s=deadline_s, clock=self.clock, memory=self.memory)
        return _Solved(batch, attention, bounds, solution)

    def _page(self, ask: Ask, policy: CompiledPolicy, solved: _Solved, rung: Rung) -> Page:
        """The page and why it is this one; its trace is still empty."""
        query, batch, attention = ask.query, solved.batch, solved.attention
        bounds, solution = solved.bounds, solved.solution
        late = late_after(2.0 * self.solve_s, self.clock)
        causes = self.causes.of(bounds, solution.relaxed, solution.settled, late)
        page = batch.take(solution.chosen)
        why = reasons(ask, page)
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
            rung=rung,
            receipt=write_receipt(policy, bounds, solution, batch, attention, ask.catalog, causes),
            trace=(),
            features=page.features,
            model_version=ask.model.bundle.version if ask.model else "none",
            policy_version=policy.version,
            credits=credits(policy, page.row, attention, query, ask.steered),
            engagement=float(attention[: len(page)] @ page.utility),
            unguided=float(attention[: len(page)] @ np.sort(batch.utility)[::-1][: len(page)]),
        )


def _joined(ask: Ask, bits: U32) -> Candidates:
    """Candidates of the catalogue rows that a source proposed ([catalogue] bits), in order of row."""
    row = np.flatnonzero(bits).astype(np.int32)
    affinity = np.zeros(len(row), np.float32)
    if ask.model is not None and ask.vector is not None:
        position = ask.index.position_of_row[row]
        affinity = np.where(position >= 0, ask.model.retriever.scores(ask.vector, position), np.float32(0.0))
    return Candidates.of(row, bits[row], affinity)


def _stopwatch(clock: Callable[[], float] | None) -> Callable[[], float]:
    """Seconds from now on; none pass without a clock."""
    if clock is None:
        return lambda: 0.0
    began = clock()
    return lambda: clock() - began


def _showable(ask: Ask) -> Bool:
    """[catalogue] whether anything but a block keeps an item off this page."""
    rows = np.arange(len(ask.catalog), dtype=np.int32)
    enough = had_enough(ask.policy, rows, ask.query, ask.viewer, ask.steered)
    showable, _ = first_reasons({**barred(ask.catalog, rows, ask.query, ask.viewer), Drop.ENOUGH: enough})
    return showable


def conserved(trace: tuple[Stage, ...]) -> Mapping[str, int]:
    """Stages that break the law `entered == left + dropped`, by how much; empty when all is well."""
    off = {stage.name: stage.entered - stage.left - sum(stage.dropped.values()) for stage in trace}
    return {name: missing for name, missing in off.items() if missing}
