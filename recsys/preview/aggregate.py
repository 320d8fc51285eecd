"""Aggregation of replay results as they arrive. The report depends on the results, not on their order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from recsys.domain.types import ACTIONS, F64
from recsys.preview.bootstrap import ratio, weights
from recsys.preview.breakdown import VIEWERS_MIN, control_reports, examples, shares, slices, worst_hit
from recsys.preview.frontier import frontier
from recsys.preview.groups import Groups
from recsys.preview.offpolicy import off_policy
from recsys.preview.page_summary import PageSummary, changes_of
from recsys.preview.pairs import AFTER, BEFORE, Pairs
from recsys.preview.report import Report, UtilityChange
from recsys.preview.study import ReplayResult, Study, Task

TaskRunner = Callable[[Iterable[Task]], Iterator[ReplayResult]]
"""A function that runs tasks and yields their results in any order: `Study.run_all`, or a pool of processes."""


def replay(study: Study, seed: int = 0, work: TaskRunner | None = None) -> Iterator[Aggregate]:
    """Replay a study: yield the same aggregate after each task; call `report()` on it at any time."""
    aggregate = Aggregate(study, seed)
    for result in (work or study.run_all)(study.tasks()):
        aggregate.add(result)
        yield aggregate


class Aggregate:
    """The results of one study so far. `seed` is the seed of the bootstrap."""

    def __init__(self, study: Study, seed: int = 0) -> None:
        self._study, self._seed = study, seed
        self._groups = Groups.of(study.world.catalog)
        self._pairs: dict[int, tuple[PageSummary, ...]] = {}
        self._drops: dict[str, dict[int, PageSummary]] = {}
        self._limits: dict[str, dict[int, PageSummary]] = {}
        self._strengths: dict[float, dict[int, PageSummary]] = {}
        self._expected = sum(1 for _ in study.tasks())
        self.tasks = 0
        viewers: dict[str, int] = {}
        self._unit = [viewers.setdefault(request.query.viewer_id, len(viewers)) for request in study.requests]

    @property
    def requests(self) -> int:
        """Number of requests with all three pages."""
        return len(self._pairs)

    @property
    def complete(self) -> bool:
        """Whether the results of all tasks have been added."""
        return self.tasks == self._expected

    def add(self, result: ReplayResult) -> None:
        """Add the result of one task."""
        task = result.task
        self.tasks += 1
        if task.kind == "pair":
            self._pairs[task.request] = result.pages
        elif task.kind == "drop":
            self._drops.setdefault(task.name, {})[task.request] = result.pages[0]
        elif task.kind == "limit":
            self._limits.setdefault(task.name, {})[task.request] = result.pages[0]
        else:
            self._strengths.setdefault(task.strength, {})[task.request] = result.pages[0]

    def report(self) -> Report:
        """Return the report so far. Raises ValueError before the first pair is complete."""
        if not self._pairs:
            raise ValueError("nothing has been replayed yet")
        pairs = self._paired()
        outlets = dict.fromkeys(request.query.placement.outlet for request in pairs.requests)
        changes = [changes_of(pairs.pages[BEFORE][i], pairs.pages[AFTER][i]) for i in range(len(pairs))]
        slots = max(sum(len(page.row) for page in pairs.pages[AFTER]), 1)
        w = pairs.w
        free, before, after = pairs.utility
        relaxed = [float(np.mean([page.has_relaxed for page in pairs.pages[side]])) for side in (BEFORE, AFTER)]
        return Report(
            requests=len(pairs),
            of=len(self._study.requests),
            viewers=len(set(pairs.unit)),
            complete=self.complete,
            policy_before=tuple(dict.fromkeys(self._study.before[outlet].version for outlet in outlets)),
            policy_after=tuple(dict.fromkeys(self._study.after[outlet].version for outlet in outlets)),
            changed_pages=float(np.mean([any(change) for change in changes])),
            replaced_slots=sum(change.replaced for change in changes) / slots,
            moved_slots=sum(change.moved for change in changes) / slots,
            utility=_utility_change(pairs.utility, w),
            expected_plays=_utility_change(pairs.expected_plays, w),
            page_value=_utility_change(pairs.column(lambda page: page.value), w),
            guidance_cost_before=ratio(free - before, free, w),
            guidance_cost_after=ratio(free - after, free, w),
            actions={name: _utility_change(pairs.column(_expected(a)), w) for a, name in enumerate(ACTIONS)},
            labels=shares(self._groups, "labels", pairs),
            outlets=shares(self._groups, "outlets", pairs),
            regions=shares(self._groups, "regions", pairs),
            axes=shares(self._groups, "axes", pairs),
            exposure=pairs.exposure_of_outlets(self._groups),
            by_screen=slices(pairs, lambda request: request.query.placement.screen.value),
            by_region=slices(pairs, lambda request: request.query.region, VIEWERS_MIN),
            by_outlet=slices(pairs, lambda request: request.query.placement.outlet),
            relaxed_before=relaxed[0],
            relaxed_after=relaxed[1],
            controls=control_reports(self._study, pairs, self._drops, self._limits),
            frontier=frontier(self._study, pairs, self._strengths),
            worst_hit=worst_hit(pairs),
            off_policy=off_policy(pairs.requests, pairs.pages[AFTER], self._study.world.catalog, w),
            examples=examples(pairs, self._study.world.catalog),
        )

    def _paired(self) -> Pairs:
        numbers = sorted(self._pairs)
        unit = [self._unit[n] for n in numbers]
        return Pairs(
            numbers=tuple(numbers),
            requests=tuple(self._study.requests[n] for n in numbers),
            pages=tuple(tuple(self._pairs[n][side] for n in numbers) for side in range(3)),
            unit=tuple(unit),
            w=weights(unit, seed=self._seed),
        )


def _utility_change(side: F64, w: F64) -> UtilityChange:
    """Return the averages of a figure and its change. side [3, n]: unguided, before, after."""
    free, before, after = side
    count = np.ones(len(before))
    return UtilityChange(
        unguided=float(free.mean()),
        before=float(before.mean()),
        after=float(after.mean()),
        difference=ratio(after - before, count, w),
        relative=ratio(after - before, before, w),
    )


def _expected(action: int) -> Callable[[PageSummary], float]:
    return lambda page: float(page.p[action])
