"""What is replayed, and the tasks it falls into: each one page or three, independent of all others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from recsys.domain.query import Query
from recsys.domain.viewer import ViewerState
from recsys.guidance.compilation.compile import CompiledPolicy
from recsys.guidance.policy.controls import ExposureTarget
from recsys.guidance.policy.inheritance import SourcedControl
from recsys.pacing.on_page import target_key
from recsys.pipeline import Engine
from recsys.preview.ablations import STRENGTHS, at_strength, without
from recsys.preview.page_summary import PageSummary, summarise
from recsys.snapshot import ServingSnapshot

DROPPED_PAGES = 240
"""Pages solved again with one control less, over all controls; so many that a control is tried on ten pages or more."""

FRONTIER_REQUESTS = 40
"""Requests replayed at every other strength."""


@dataclass(frozen=True)
class LoggedPage:
    """What the log says of a request: the page that was shown, its propensities, and what came of it.

    item_ids    K items in slot order
    attention   K, chance that each slot is looked at
    propensity  K, chance with which the logging policy put the item there; 1 where pages are deterministic
    plays       K, 1 where the item was played from this page, else 0
    """

    item_ids: tuple[str, ...]
    attention: tuple[float, ...]
    propensity: tuple[float, ...]
    plays: tuple[float, ...]


@dataclass(frozen=True)
class ReplayRequest:
    """One request to replay: the query, the viewer as remembered then, and what the log knows of it, if anything."""

    query: Query
    viewer: ViewerState | None
    page: LoggedPage | None = None


@dataclass(frozen=True)
class Task:
    """One piece of work. `pair`: unguided, before, after. `drop`: the draft without control `name`. `strength`: the
    draft at `strength`."""

    kind: Literal["pair", "drop", "strength"]
    request: int
    name: str = ""
    strength: float = 1.0


@dataclass(frozen=True)
class ReplayResult:
    """What came of a task: one page, or for a pair the unguided, the active policy's and the draft's."""

    task: Task
    pages: tuple[PageSummary, ...]


@dataclass(frozen=True)
class Study:
    """A preview's whole input; a function of nothing else.

    world          catalogue, statistics and model of the moment; its own policy is not used
    before, after  outlet of a placement -> what is in force there, and what would be
    requests       in the order in which they are replayed; any beginning is a fair sample of all
    """

    engine: Engine
    world: ServingSnapshot
    before: Mapping[str, CompiledPolicy]
    after: Mapping[str, CompiledPolicy]
    requests: tuple[ReplayRequest, ...]
    _variants: dict[tuple[str, str, float], ServingSnapshot] = field(default_factory=dict, repr=False, compare=False)

    def tasks(self) -> Iterator[Task]:
        """All pairs, then for a sample of the requests what each control costs, and the frontier."""
        yield from (Task("pair", n) for n in range(len(self.requests)))
        sample = range(min(FRONTIER_REQUESTS, len(self.requests)))
        yield from (Task("strength", n, strength=s) for n in sample for s in STRENGTHS if s != 1.0)
        controls = max((len(policy.controls) for policy in self.after.values()), default=0)
        sample = range(min(len(self.requests), max(10, DROPPED_PAGES // max(controls, 1))))
        new = self.unpriced()
        for n in sample:
            query = self.requests[n].query
            for origin in self.after[query.placement.outlet].controls:
                if origin.control.holds(query) and target_key(origin) not in new:
                    yield Task("drop", n, name=origin.control.id)

    def unpriced(self) -> dict[str, SourcedControl]:
        """Exposure targets of the draft, by `outlet/control`, that nobody has steered yet: their cost is not known.

        Without a price a target moves nothing, so pages with it and without it are the same.
        """
        known = {
            target_key(origin) for policy in self.before.values() for origin in policy.controls if _is_target(origin)
        }
        known |= self.world.prices.price.keys() | self.world.prices.last_resorts | self.world.prices.stopped
        aims = {target_key(o): o for policy in self.after.values() for o in policy.controls if _is_target(o)}
        return {key: origin for key, origin in aims.items() if key not in known}

    def run(self, task: Task) -> ReplayResult:
        """The pages of one task."""
        asked = self.requests[task.request]
        outlet = asked.query.placement.outlet
        if task.kind == "pair":
            worlds = [replace(self.world, policy=policies[outlet]) for policies in (self.before, self.after)]
            free = self._page(replace(asked.query, guided=False), asked.viewer, worlds[0])
            return ReplayResult(task, (free, *(self._page(asked.query, asked.viewer, world) for world in worlds)))
        return ReplayResult(task, (self._page(asked.query, asked.viewer, self._variant(outlet, task)),))

    def run_all(self, tasks: Iterable[Task]) -> Iterator[ReplayResult]:
        """All tasks, one after another, here."""
        return map(self.run, tasks)

    def _page(self, query: Query, viewer: ViewerState | None, world: ServingSnapshot) -> PageSummary:
        return summarise(query, self.engine.run(query, viewer, world))

    def _variant(self, outlet: str, task: Task) -> ServingSnapshot:
        """The draft's world with its policy changed; made once per outlet and change."""
        key = (outlet, task.name, task.strength)
        if key not in self._variants:
            draft = self.after[outlet]
            policy = without(draft, task.name) if task.kind == "drop" else at_strength(draft, task.strength)
            self._variants[key] = replace(self.world, policy=policy)
        return self._variants[key]


def _is_target(origin: SourcedControl) -> bool:
    return isinstance(origin.control, ExposureTarget)
