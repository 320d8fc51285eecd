"""The input of a preview and its tasks. Each task solves one or three pages, independently of all other tasks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from recsys.domain.query import Query
from recsys.domain.viewer import ViewerState
from recsys.guidance.compilation.compile import CompiledPolicy
from recsys.guidance.policy.controls import ExposureTarget
from recsys.guidance.policy.inheritance import SourcedControl
from recsys.pacing.on_page import ActivePrices, target_key
from recsys.pipeline import Engine
from recsys.preview.ablations import STRENGTHS, at_strength, without
from recsys.preview.page_summary import PageSummary, summarise
from recsys.snapshot import ServingSnapshot

DROPPED_PAGES = 240
"""Number of pages solved without one control, over all controls; every control is tried on at least ten requests."""

FRONTIER_REQUESTS = 40
"""Number of requests replayed at each strength other than 1."""


@dataclass(frozen=True)
class LoggedPage:
    """The logged page of a request.

    item_ids    K items in slot order
    attention   K probabilities that a slot is viewed
    propensity  K probabilities with which the logging policy chose the item for its slot; 1 for deterministic pages
    plays       K values, 1 if the item was played from this page, else 0
    """

    item_ids: tuple[str, ...]
    attention: tuple[float, ...]
    propensity: tuple[float, ...]
    plays: tuple[float, ...]


@dataclass(frozen=True)
class ReplayRequest:
    """A request to replay: the query, the viewer state at that time, and the logged page, if any."""

    query: Query
    viewer: ViewerState | None
    page: LoggedPage | None = None


@dataclass(frozen=True)
class Task:
    """A unit of work.

    kind  pair      the unguided page, and those of the active policy and of the draft
          drop      the page of the draft without control `name`
          limit     the page of the draft with the exposure target `name` at its maximum price
          strength  the page of the draft at `strength`
    """

    kind: Literal["pair", "drop", "limit", "strength"]
    request: int
    name: str = ""
    strength: float = 1.0


@dataclass(frozen=True)
class ReplayResult:
    """The result of a task: one page, or for a pair the unguided page and those of the active policy and the draft."""

    task: Task
    pages: tuple[PageSummary, ...]


@dataclass(frozen=True)
class Study:
    """The complete input of a preview.

    world          snapshot of catalog, statistics and model; its policy is not used
    before, after  outlet of a placement -> active policy, and draft policy
    requests       requests in replay order; every prefix must be a representative sample
    """

    engine: Engine
    world: ServingSnapshot
    before: Mapping[str, CompiledPolicy]
    after: Mapping[str, CompiledPolicy]
    requests: tuple[ReplayRequest, ...]
    _variants: dict[tuple[str, str, str, float], ServingSnapshot] = field(
        default_factory=dict, repr=False, compare=False
    )

    def tasks(self) -> Iterator[Task]:
        """Yield all pairs, then on samples of requests the strengths of the frontier and the drops of each control."""
        yield from (Task("pair", n) for n in range(len(self.requests)))
        sample = range(min(FRONTIER_REQUESTS, len(self.requests)))
        yield from (Task("strength", n, strength=s) for n in sample for s in STRENGTHS if s != 1.0)
        controls = max((len(policy.controls) for policy in self.after.values()), default=0)
        sample = range(min(len(self.requests), max(10, DROPPED_PAGES // max(controls, 1))))
        new = self.unpriced()
        for n in sample:
            query = self.requests[n].query
            for origin in self.after[query.placement.outlet].controls:
                if not origin.control.holds(query):
                    continue
                if target_key(origin) not in new:
                    yield Task("drop", n, name=origin.control.id)
                if _is_target(origin):
                    yield Task("limit", n, name=origin.control.id)

    def unpriced(self) -> dict[str, SourcedControl]:
        """Return the exposure targets of the draft that have no price yet, by `outlet/control`.

        A target without a price has no effect on pages, so its cost cannot be determined.
        """
        priced = {
            target_key(origin) for policy in self.before.values() for origin in policy.controls if _is_target(origin)
        }
        priced |= self.world.prices.price.keys() | self.world.prices.last_resorts | self.world.prices.stopped
        targets = {target_key(o): o for policy in self.after.values() for o in policy.controls if _is_target(o)}
        return {key: origin for key, origin in targets.items() if key not in priced}

    def run(self, task: Task) -> ReplayResult:
        """Run one task."""
        request = self.requests[task.request]
        outlet = request.query.placement.outlet
        if task.kind == "pair":
            worlds = [replace(self.world, policy=policies[outlet]) for policies in (self.before, self.after)]
            free = self._page(replace(request.query, guided=False), request.viewer, worlds[0])
            return ReplayResult(task, (free, *(self._page(request.query, request.viewer, world) for world in worlds)))
        return ReplayResult(task, (self._page(request.query, request.viewer, self._variant(outlet, task)),))

    def run_all(self, tasks: Iterable[Task]) -> Iterator[ReplayResult]:
        """Run tasks sequentially in this process."""
        return map(self.run, tasks)

    def _page(self, query: Query, viewer: ViewerState | None, world: ServingSnapshot) -> PageSummary:
        return summarise(query, self.engine.run(query, viewer, world))

    def _variant(self, outlet: str, task: Task) -> ServingSnapshot:
        """Return the snapshot with the changed draft policy, built once per outlet and change."""
        key = (outlet, task.kind, task.name, task.strength)
        if key not in self._variants:
            draft = self.after[outlet]
            if task.kind == "limit":
                self._variants[key] = replace(self.world, policy=draft, prices=self._at_limit(draft, task.name))
                return self._variants[key]
            policy = without(draft, task.name) if task.kind == "drop" else at_strength(draft, task.strength)
            self._variants[key] = replace(self.world, policy=policy)
        return self._variants[key]

    def _at_limit(self, draft: CompiledPolicy, name: str) -> ActivePrices:
        """Return the prices with that of one target at its maximum."""
        origin = next(origin for origin in draft.controls if origin.control.id == name)
        assert isinstance(origin.control, ExposureTarget)
        prices = self.world.prices
        return replace(prices, price={**prices.price, target_key(origin): origin.control.price_limit})


def _is_target(origin: SourcedControl) -> bool:
    return isinstance(origin.control, ExposureTarget)
