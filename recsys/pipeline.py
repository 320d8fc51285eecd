"""One page, from question to answer. This is the whole story; every stage says what it took, kept and dropped.

    sources -> union -> eligibility -> surplus -> columns -> rank -> utility -> bonus -> bounds -> solve -> receipt

Relevance fails open: a dead source or ranker is a line in the trace and the page comes from a lower rung. Guidance and
eligibility fail closed: no page leaves without them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from recsys.batch import Candidates
from recsys.candidates.index import Index
from recsys.candidates.similar import match, taste
from recsys.candidates.sources import SOURCES, Ask, local_plays
from recsys.catalog import Catalog
from recsys.distribution.eligibility import barred, first_reasons
from recsys.distribution.screens import layout
from recsys.guidance.causes import Remembered
from recsys.guidance.compile import CompiledPolicy
from recsys.guidance.memory import Relaxations
from recsys.guidance.receipt import write_receipt
from recsys.guidance.solver import late_after, solve
from recsys.guidance.targets.onpage import NOT_STEERED, Steered, credits, had_enough, price_bonus, with_targets
from recsys.model import Model
from recsys.ranking.utility import utility
from recsys.reasons import reasons
from recsys.state import ItemStats, ViewerState
from recsys.types import ACTIONS, F32, U32, Bool, Drop, Page, PageItem, Query, Rung, Stage

Columns = Callable[..., F32]
"""`features.columns.columns`: handed in, since this floor imports none of the floors above."""

UNGUIDED = "the policy could not be applied"
"""How the trace of a page begins that left without the controls of its policy, by a fault of ours."""

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
class Engine:
    """Makes pages; holds nothing but a memory of what gave way before, so one engine serves all threads.

    columns     `features.columns.columns`
    candidates  how many are ranked for one page; pins and supply for floors are kept first
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
        batch = self._rank(ask, batch, rung, trace)
        return self._decide(ask, batch, rung, trace)

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
        row = np.flatnonzero(bits).astype(np.int32)
        affinity = np.zeros(len(row), np.float32)
        if ask.model is not None and ask.vector is not None:
            position = ask.index.position_of_row[row]
            affinity = np.where(position >= 0, ask.model.retriever.vectors[position] @ ask.vector, np.float32(0.0))
        source_bits: U32 = bits[row]
        return Candidates.of(row, source_bits, affinity)

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
            owed = (batch.source & np.uint32(1 << list(SOURCES).index("supply"))) > 0
            alike = CONTENT_HINT * match(batch.row, ask.taste, ask.catalog)
            hint = np.maximum(batch.affinity, alike) + 0.1 * np.log1p(ask.index.popularity[batch.row])
            order = np.lexsort((batch.row, -hint, ~owed))
            keep = np.sort(order[: self.candidates]).astype(np.int32)
            trace.append(Stage("surplus", len(batch), len(keep), {Drop.SURPLUS: surplus}))
            return batch.take(keep)
        trace.append(Stage("surplus", len(batch), len(batch)))
        return batch

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
                p = ask.model.predictor.p(features)
                trace.append(Stage("rank", len(batch), len(batch)))
                return batch.with_columns(features=features, p=p, utility=utility(p))
            except Exception as failure:  # a ranker that cannot answer must not cost the page
                error = f"{type(failure).__name__}: {failure}"
        p = np.zeros((len(batch), len(ACTIONS)), np.float32)
        p[:, 0] = _stand_in(ask, batch, rung)
        trace.append(Stage("rank", len(batch), len(batch), error=error))
        return batch.with_columns(p=p, utility=utility(p))

    def _decide(self, ask: Ask, batch: Candidates, rung: Rung, trace: list[Stage]) -> Page:
        """Solve for the page under the policy and write down why it is this one.

        Where not even the legal controls can be kept, personalisation has no say any more: the editorial page answers,
        as near to the law as the inventory allows, and the trace says so to the operator. So it does where the policy
        cannot be applied at all; blocks have been kept by then (`_admit`).
        """
        policy = ask.policy if ask.query.guided else CompiledPolicy.none(ask.catalog)
        last, error = _editorial(ask, batch), None
        try:
            page = self._solve(ask, policy, batch, rung)
            if not page.receipt.legal_kept:
                broken = [line.id for line in page.receipt.controls if line.hardness == "legal" and line.by]
                error = f"no page keeps the legal controls {', '.join(broken)}: the editorial page answers"
                page = self._solve(ask, policy, last, Rung.EDITORIAL)
        except Exception as failure:  # a fault of ours or of the model: the page must come, and the operator must know
            why = f"{type(failure).__name__}: {failure}"
            try:
                page, error = self._solve(ask, policy, last, Rung.EDITORIAL), f"the editorial page answers ({why})"
            except Exception:
                error = f"{UNGUIDED}: an editorial page without its controls answers ({why})"
                page = self._solve(ask, CompiledPolicy.none(ask.catalog), last, Rung.EDITORIAL)
        left = len(page.items)
        trace.append(Stage("solve", len(batch), left, {Drop.UNSELECTED: len(batch) - left}, error))
        return replace(page, trace=tuple(trace))

    def _solve(self, ask: Ask, policy: CompiledPolicy, batch: Candidates, rung: Rung) -> Page:
        """The page for these utilities; its trace is still empty."""
        query = ask.query
        attention = layout(query.placement.screen).attention(query.slots)
        prices = price_bonus(policy, batch.row, query, ask.steered)
        batch = batch.with_columns(bonus=policy.bonus(batch.row, query) + prices)
        bounds = policy.bounds(query, batch.row, query.slots, ask.catalog.rows(query.shown))
        bounds = with_targets(bounds, policy, batch.row, query, ask.viewer, ask.steered)
        value = batch.utility + batch.bonus
        solution = solve(value, attention, bounds, deadline_s=self.solve_s, clock=self.clock, memory=self.memory)
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


def _editorial(ask: Ask, batch: Candidates) -> Candidates:
    """The batch as the last rung sees it."""
    p = np.zeros_like(batch.p)
    p[:, 0] = _stand_in(ask, batch, Rung.EDITORIAL)
    return batch.with_columns(p=p, utility=utility(p))


def _showable(ask: Ask) -> Bool:
    """[catalogue] whether anything but a block keeps an item off this page."""
    rows = np.arange(len(ask.catalog), dtype=np.int32)
    enough = had_enough(ask.policy, rows, ask.query, ask.viewer, ask.steered)
    showable, _ = first_reasons({**barred(ask.catalog, rows, ask.query, ask.viewer), Drop.ENOUGH: enough})
    return showable


def _stand_in(ask: Ask, batch: Candidates, rung: Rung) -> F32:
    """[N] a rough probability of a play where no ranker answers: popularity, or on the last rung youth alone."""
    if rung is Rung.EDITORIAL:
        age_d = np.maximum(ask.query.now - ask.catalog.published_at[batch.row], 0.0) / 86_400.0
        return np.asarray(0.1 * np.exp2(-age_d / 7.0), np.float32)
    local = local_plays(ask.stats, ask.query.region)
    plays = ask.index.popularity if local is None else local
    return np.asarray(0.5 * plays[batch.row] / max(float(plays.max(initial=0.0)), 1e-9), np.float32)


def conserved(trace: tuple[Stage, ...]) -> Mapping[str, int]:
    """Stages that break the law `entered == left + dropped`, by how much; empty when all is well."""
    off = {stage.name: stage.entered - stage.left - sum(stage.dropped.values()) for stage in trace}
    return {name: missing for name, missing in off.items() if missing}
