"""Worker processes that replay pages outside the serving process, so that a preview does not delay pages.

The workers start at the first preview, which takes a few seconds; meanwhile the calling thread replays the first pages
itself. They exit after a while without a preview.
"""

from __future__ import annotations

import logging
import os
import pickle
import tempfile
import threading
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from features.low_priority_pool import low_priority_pool
from recsys.domain.errors import Unavailable
from recsys.preview.study import ReplayResult, Study, Task
from serving.editorial.preview import payload

if TYPE_CHECKING:
    from loky import ProcessPoolExecutor

log = logging.getLogger("mainstay.serving")

CHUNK = 6
"""Tasks per call of a worker: about a tenth of a second."""

IDLE_S = 120.0
"""Workers exit after this time without a preview, which frees their memory."""

WAIT_S = 0.2


class PreviewPool:
    """A pool of at most `size` workers; `run` may be called from several threads."""

    def __init__(self, size: int | None = None, idle_s: float = IDLE_S) -> None:
        self._size = size if size is not None else max(1, min(2, os.cpu_count() or 1))
        self._idle_s = idle_s
        self._pool: ProcessPoolExecutor | None = None
        self._lock = threading.Lock()

    def run(self, study: Study, tasks: Iterable[Task], stopped: threading.Event) -> Generator[ReplayResult]:
        """Run the tasks and yield their outcomes in any order. Ends early, without unfinished tasks, when `stopped`.

        A dead worker breaks its pool; the remaining tasks go to a new pool, once. Raises Unavailable when that one
        breaks too.
        """
        pending = iter(tasks)
        if self._size == 0:
            yield from _run_in_process(study, pending, stopped)
            return
        with tempfile.TemporaryDirectory(prefix="mainstay-preview-") as folder:
            file = Path(folder) / "study"
            file.write_bytes(pickle.dumps(payload.StudyPayload.of(study), protocol=5))
            lost: list[Task] = []
            try:
                try:
                    yield from self._run_in_pool(study, str(file), pending, stopped, lost)
                except BrokenProcessPool:
                    log.error("preview worker died; continuing the preview in a new pool")
                    yield from self._run_in_pool(None, str(file), chain(tuple(lost), pending), stopped, [])
            except BrokenProcessPool as error:
                raise Unavailable("preview workers died twice; start the preview again") from error
            except RuntimeError:  # raised by loky for a submit to a pool that was shut down
                if not stopped.is_set():
                    raise

    def stop(self) -> None:
        """Kill all workers; idempotent. The next preview starts new ones."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False, kill_workers=True)

    def _run_in_pool(
        self, study: Study | None, file: str, pending: Iterator[Task], stopped: threading.Event, lost: list[Task]
    ) -> Iterator[ReplayResult]:
        """Keep every worker supplied with tasks; until the first is ready, run tasks in this thread for early figures.

        study  None: nothing runs in this thread
        lost   receives the tasks without an outcome when the pool breaks
        """
        pool = self._running_pool()
        in_flight: dict[Future[list[ReplayResult]], list[Task]] = {}
        try:
            ready = pool.submit(payload.load_study, file)
            while (
                study is not None
                and not ready.done()
                and not stopped.is_set()
                and (task := next(pending, None)) is not None
            ):
                yield study.run(task)
            for _ in range(2 * self._size):
                _submit_chunk(pool, file, pending, in_flight, lost)
            while in_flight and not stopped.is_set():
                done, _ = wait(in_flight, WAIT_S, FIRST_COMPLETED)
                for future in done:
                    outcomes = future.result()
                    del in_flight[future]
                    yield from outcomes  # before the next chunk: submitting it may fail, and these are complete
                    _submit_chunk(pool, file, pending, in_flight, lost)
        except BrokenProcessPool:
            self._discard(pool)
            lost += chain.from_iterable(in_flight.values())
            in_flight.clear()
            if not stopped.is_set():
                raise
        finally:
            for future in in_flight:
                future.cancel()

    def _running_pool(self) -> ProcessPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = self._new_pool()
            return self._pool

    def _new_pool(self) -> ProcessPoolExecutor:
        return low_priority_pool(self._size, self._idle_s, payload.init_worker)

    def _discard(self, broken: ProcessPoolExecutor) -> None:
        """Drop a broken pool, unless another preview has replaced it already."""
        with self._lock:
            if self._pool is broken:
                self._pool = None


def _run_in_process(study: Study, pending: Iterator[Task], stopped: threading.Event) -> Iterator[ReplayResult]:
    for task in pending:
        if stopped.is_set():
            return
        yield study.run(task)


def _submit_chunk(
    pool: ProcessPoolExecutor,
    file: str,
    pending: Iterator[Task],
    in_flight: dict[Future[list[ReplayResult]], list[Task]],
    lost: list[Task],
) -> None:
    """Submit the next chunk. If the pool rejects it, its tasks count as lost."""
    if tasks := list(islice(pending, CHUNK)):
        lost += tasks
        in_flight[pool.submit(payload.run_tasks, file, tasks)] = tasks
        del lost[-len(tasks) :]
