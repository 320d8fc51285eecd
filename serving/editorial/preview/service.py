"""One preview at a time in each serving process: gathers requests, replays them, tells the figures as they come."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from weakref import WeakSet

from recsys.domain.errors import InvalidInput
from recsys.domain.regions import ancestry, within
from recsys.guidance.compilation.compile import CompiledPolicy, compile_policy
from recsys.guidance.policy.policy import Policy
from recsys.messages import message
from recsys.pipeline import Engine
from recsys.preview.aggregate import Aggregate, replay
from recsys.preview.study import Study
from recsys.snapshot import ServingSnapshot
from serving.editorial.preview.payload import study_of
from serving.editorial.preview.requests import ReplaySample, RequestLog
from serving.editorial.preview.worker_pool import PreviewPool
from serving.schemas.previews import PreviewLine, PreviewRequest, Sources
from serving.schemas.problems import Busy
from serving.snapshot.holders import Snapshot, SnapshotHolder

FIRST_AT = 10
"""Requests after which the first figures go out."""

EVERY_S, EVERY_SHARE = 1.0, 0.1
"""Figures go out this often, and writing them takes at most this share of the time."""


@dataclass(frozen=True)
class PreviewService:
    """Admits `at_once` previews; a further one is told to come back."""

    engine: Engine
    holders: SnapshotHolder
    requests: RequestLog
    crew: PreviewPool
    clock: Callable[[], float]
    at_once: int = 1
    _admitted: list[int] = field(default_factory=lambda: [0])
    _lock: threading.RLock = field(default_factory=threading.RLock)  # `Preview.__del__` may come while it is held
    _running: WeakSet[Preview] = field(default_factory=WeakSet)

    def open(self, draft: Policy, asked: PreviewRequest) -> Preview:
        """Admit and prepare a preview of a draft. Raises Busy, PolicyError; InvalidInput for nothing to replay."""
        with self._lock:
            if self._admitted[0] >= self.at_once:
                raise Busy(message("preview_running"))
            self._admitted[0] += 1
        try:
            study, gathered = self._study(draft, asked)
        except BaseException:
            self._leave()
            raise
        preview = Preview(study, gathered, asked.seed, self.crew, self._leave)
        self._running.add(preview)
        return preview

    def stop(self) -> None:
        """End what is under way and let the processes go."""
        for preview in tuple(self._running):
            preview.stopped.set()
        self.crew.stop()

    def _leave(self) -> None:
        with self._lock:
            self._admitted[0] -= 1

    def _study(self, draft: Policy, asked: PreviewRequest) -> tuple[Study, ReplaySample]:
        snapshot = self.holders.current
        outlets = [code for code in {*snapshot.serving_snapshots, draft.outlet} if within(code, draft.outlet)]
        after = self._compiled(draft, outlets)
        none = compile_policy((), snapshot.catalog)
        before = {o: snapshot.serving_snapshots[o].policy if o in snapshot.serving_snapshots else none for o in outlets}
        if draft.outlet not in snapshot.serving_snapshots:  # its first word: until now its parents' policies hold there
            before[draft.outlet] = compile_policy(self.holders.policy_cache.chain(draft.outlet), snapshot.catalog)
        at = None if asked.at is None else asked.at.timestamp()
        gathered = self.requests.gather(draft.outlet, outlets, asked.requests, self.clock(), at)
        if not gathered.requests or not len(snapshot.catalog):
            raise InvalidInput(message("preview_nothing_to_replay"))
        world = _world(snapshot, none)
        return study_of(self.engine, world, before, after, gathered.requests), gathered

    def _compiled(self, draft: Policy, outlets: list[str]) -> dict[str, CompiledPolicy]:
        """The draft under its parents, and under it what the outlets below say; once per different chain."""
        shelf, catalog = self.holders.policy_cache, self.holders.current.catalog
        done: dict[tuple[str, ...], CompiledPolicy] = {}
        compiled = {}
        for outlet in outlets:
            said = [draft if code == draft.outlet else shelf.own_policy(code) for code in ancestry(outlet)]
            chain = [policy for policy in said if policy is not None]
            key = tuple(policy.outlet for policy in chain)
            if key not in done:
                done[key] = compile_policy(chain, catalog)
            compiled[outlet] = done[key]
        return compiled


class Preview:
    """One admitted preview. When its `lines` have ended, or it is let go, the next one may come."""

    def __init__(
        self, study: Study, gathered: ReplaySample, seed: int, crew: PreviewPool, leave: Callable[[], None]
    ) -> None:
        self.study, self._gathered, self._seed, self._crew = study, gathered, seed, crew
        self._leave: Callable[[], None] | None = leave
        self.stopped = threading.Event()

    def __del__(self) -> None:
        self.close()  # of a client who left before the first line was asked for

    def failed(self, error: Exception) -> PreviewLine:
        """The last line of a preview that could not be finished."""
        sources = Sources(**self._gathered.sources)
        detail = message("preview_failed", problem=f"{type(error).__name__}: {error}")
        return PreviewLine(phase="failed", elapsed_s=0.0, sources=sources, report=None, detail=detail)

    def lines(self) -> Iterator[PreviewLine]:
        """Figures as they come, the last one complete, or `failed`. Ends early when `stopped` is set."""
        began = time.monotonic()
        sources = Sources(**self._gathered.sources)
        due, tally = 0.0, None
        work = self._crew.run(self.study, self.study.tasks(), self.stopped)
        try:
            for tally in replay(self.study, self._seed, lambda _: work):
                now = time.monotonic() - began
                if tally.requests >= min(FIRST_AT, len(self.study.requests)) and now >= due:
                    yield _line(tally, now, sources)
                    took = time.monotonic() - began - now
                    due = now + max(EVERY_S, took / EVERY_SHARE)
            if tally is not None and tally.complete:
                yield _line(tally, time.monotonic() - began, sources)
            elif not self.stopped.is_set():
                yield self.failed(RuntimeError("the work ended before all of it was done"))
        finally:
            work.close()
            self.close()

    def close(self) -> None:
        """Let the next preview in; idempotent."""
        self.stopped.set()
        if self._leave is not None:
            leave, self._leave = self._leave, None
            leave()


def _world(snapshot: Snapshot, none: CompiledPolicy) -> ServingSnapshot:
    """What pages are made from; not that of a closed outlet, which gets editorial pages and has no model."""
    open_ones = (world for outlet, world in snapshot.serving_snapshots.items() if outlet not in snapshot.closed)
    world = next(open_ones, None)
    return world or replace(
        ServingSnapshot.of(snapshot.catalog, snapshot.stats, snapshot.model, none), prices=snapshot.prices
    )


def _line(tally: Aggregate, elapsed_s: float, sources: Sources) -> PreviewLine:
    return PreviewLine(
        phase="complete" if tally.complete else "so far", elapsed_s=elapsed_s, sources=sources, report=tally.report()
    )
