"""Previews, one at a time in each serving process: selects requests, replays them, streams the figures."""

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
"""Number of replayed requests after which the first figures are sent."""

EVERY_S, EVERY_SHARE = 1.0, 0.1
"""Figures are sent at most this often (seconds), and computing them takes at most this share of the time."""


@dataclass(frozen=True)
class PreviewService:
    """A service that runs at most `at_once` previews; a further request is refused as Busy."""

    engine: Engine
    holders: SnapshotHolder
    requests: RequestLog
    pool: PreviewPool
    clock: Callable[[], float]
    at_once: int = 1
    _admitted: list[int] = field(default_factory=lambda: [0])
    _lock: threading.RLock = field(default_factory=threading.RLock)  # `Preview.__del__` may run while it is held
    _running: WeakSet[Preview] = field(default_factory=WeakSet)

    def open(self, draft: Policy, request: PreviewRequest) -> Preview:
        """Admit and prepare a preview of a draft. Raises Busy, PolicyError; InvalidInput if no request exists."""
        with self._lock:
            if self._admitted[0] >= self.at_once:
                raise Busy(message("preview_running"))
            self._admitted[0] += 1
        try:
            study, sample = self._study(draft, request)
        except BaseException:
            self._release()
            raise
        preview = Preview(study, sample, request.seed, self.pool, self._release)
        self._running.add(preview)
        return preview

    def stop(self) -> None:
        """Stop all running previews and the worker processes."""
        for preview in tuple(self._running):
            preview.stopped.set()
        self.pool.stop()

    def _release(self) -> None:
        with self._lock:
            self._admitted[0] -= 1

    def _study(self, draft: Policy, request: PreviewRequest) -> tuple[Study, ReplaySample]:
        snapshot = self.holders.current
        outlets = [code for code in {*snapshot.serving_snapshots, draft.outlet} if within(code, draft.outlet)]
        after = self._compiled(draft, outlets)
        no_policy = compile_policy((), snapshot.catalog)
        before = {
            outlet: snapshot.serving_snapshots[outlet].policy if outlet in snapshot.serving_snapshots else no_policy
            for outlet in outlets
        }
        if draft.outlet not in snapshot.serving_snapshots:  # its first policy: until now its parents' policies apply
            before[draft.outlet] = compile_policy(self.holders.policy_cache.chain(draft.outlet), snapshot.catalog)
        at = None if request.at is None else request.at.timestamp()
        sample = self.requests.gather(draft.outlet, outlets, request.requests, self.clock(), at)
        if not sample.requests or not len(snapshot.catalog):
            raise InvalidInput(message("preview_nothing_to_replay"))
        serving_snapshot = _preview_snapshot(snapshot, no_policy)
        return study_of(self.engine, serving_snapshot, before, after, sample.requests), sample

    def _compiled(self, draft: Policy, outlets: list[str]) -> dict[str, CompiledPolicy]:
        """Compile, for each outlet, its chain of policies with the draft in place; once per distinct chain."""
        shelf, catalog = self.holders.policy_cache, self.holders.current.catalog
        compiled_chains: dict[tuple[str, ...], CompiledPolicy] = {}
        compiled = {}
        for outlet in outlets:
            policies = [draft if code == draft.outlet else shelf.own_policy(code) for code in ancestry(outlet)]
            chain = [policy for policy in policies if policy is not None]
            key = tuple(policy.outlet for policy in chain)
            if key not in compiled_chains:
                compiled_chains[key] = compile_policy(chain, catalog)
            compiled[outlet] = compiled_chains[key]
        return compiled


class Preview:
    """An admitted preview. Its slot is released when `lines` ends, or when the preview is closed or collected."""

    def __init__(
        self, study: Study, sample: ReplaySample, seed: int, pool: PreviewPool, release: Callable[[], None]
    ) -> None:
        self.study, self._sample, self._seed, self._pool = study, sample, seed, pool
        self._release: Callable[[], None] | None = release
        self.stopped = threading.Event()

    def __del__(self) -> None:
        self.close()  # for a client that disconnected before reading the first line

    def failed(self, error: Exception) -> PreviewLine:
        """Return the last line of a preview that failed."""
        sources = Sources(**self._sample.sources)
        detail = message("preview_failed", problem=f"{type(error).__name__}: {error}")
        return PreviewLine(phase="failed", elapsed_s=0.0, sources=sources, report=None, detail=detail)

    def lines(self) -> Iterator[PreviewLine]:
        """Yield figures as they arrive; the last line is `complete` or `failed`. Ends early when `stopped` is set."""
        began = time.monotonic()
        sources = Sources(**self._sample.sources)
        due, aggregate = 0.0, None
        results = self._pool.run(self.study, self.study.tasks(), self.stopped)
        try:
            for aggregate in replay(self.study, self._seed, lambda _: results):
                now = time.monotonic() - began
                if aggregate.requests >= min(FIRST_AT, len(self.study.requests)) and now >= due:
                    yield _line(aggregate, now, sources)
                    write_s = time.monotonic() - began - now
                    due = now + max(EVERY_S, write_s / EVERY_SHARE)
            if aggregate is not None and aggregate.complete:
                yield _line(aggregate, time.monotonic() - began, sources)
            elif not self.stopped.is_set():
                yield self.failed(RuntimeError("the replay ended before all requests were replayed"))
        finally:
            results.close()
            self.close()

    def close(self) -> None:
        """Stop this preview and release its slot; idempotent."""
        self.stopped.set()
        if self._release is not None:
            release, self._release = self._release, None
            release()


def _preview_snapshot(snapshot: Snapshot, no_policy: CompiledPolicy) -> ServingSnapshot:
    """Return the serving snapshot of any outlet that is not closed, since a closed outlet has no model."""
    candidates = (
        snapshot_of_outlet
        for outlet, snapshot_of_outlet in snapshot.serving_snapshots.items()
        if outlet not in snapshot.closed
    )
    snapshot_of_outlet = next(candidates, None)
    return snapshot_of_outlet or replace(
        ServingSnapshot.of(snapshot.catalog, snapshot.stats, snapshot.model, no_policy), prices=snapshot.prices
    )


def _line(aggregate: Aggregate, elapsed_s: float, sources: Sources) -> PreviewLine:
    return PreviewLine(
        phase="complete" if aggregate.complete else "so far",
        elapsed_s=elapsed_s,
        sources=sources,
        report=aggregate.report(),
    )
