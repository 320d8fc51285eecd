"""Processes that replay pages: beside the serving process, so that a preview never holds the lock that pages need.

Pages are computing in Python and numpy under one interpreter lock: two threads make fewer pages than one. The processes
are started at the first preview (a few seconds, while the asking thread itself begins to work), run at low priority,
and leave when nobody has asked for a while.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import tempfile
import threading
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from pathlib import Path

from recsys.errors import Unavailable
from recsys.preview.study import Outcome, Study, Task
from serving.preview import parcel

log = logging.getLogger("mainstay.serving")

CHUNK = 6
"""Tasks handed to a process at once: about a tenth of a second."""

IDLE_S = 120.0
"""After so long without a preview the processes leave, and give their memory back."""

WAIT_S = 0.2


class Crew:
    """At most `size` processes; `run` may be called from several threads."""

    def __init__(self, size: int | None = None, idle_s: float = IDLE_S) -> None:
        self._size = size if size is not None else max(1, min(2, os.cpu_count() or 1))
        self._idle_s = idle_s
        self._pool: ProcessPoolExecutor | None = None
        self._users = 0
        self._leaving: threading.Timer | None = None
        self._lock = threading.Lock()

    def run(self, study: Study, tasks: Iterable[Task], stopped: threading.Event) -> Generator[Outcome]:
        """Do the tasks; outcomes come in any order. Ends early, with what is under way let go, when `stopped`.

        Should a process die, others are hired once. Raises Unavailable when one of these dies too.
        """
        waiting = iter(tasks)
        if self._size == 0:
            yield from _here(study, waiting, stopped)
            return
        with tempfile.TemporaryDirectory(prefix="mainstay-preview-") as folder:
            file = Path(folder) / "study"
            file.write_bytes(pickle.dumps(parcel.Parcel.of(study), protocol=5))
            pool, lost = self._hire(), list[Task]()
            try:
                try:
                    yield from self._share(pool, study, str(file), waiting, stopped, lost)
                except BrokenProcessPool:
                    if stopped.is_set():
                        return
                    log.error("a preview process died; others go on with the preview")
                    again = chain(tuple(lost), waiting)
                    yield from self._share(self._replaced(pool), None, str(file), again, stopped, [])
            except BrokenProcessPool as error:
                self._dismiss()
                raise Unavailable("processes that replay pages died twice") from error
            finally:
                self._release()

    def stop(self) -> None:
        """Send everybody home; idempotent."""
        with self._lock:
            pool, self._pool = self._pool, None
            if self._leaving is not None:
                self._leaving.cancel()
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)

    def _share(
        self,
        pool: ProcessPoolExecutor,
        study: Study | None,
        file: str,
        waiting: Iterator[Task],
        stopped: threading.Event,
        lost: list[Task],
    ) -> Iterator[Outcome]:
        """Keep each process supplied; until the first of them is ready, do a little here so that figures come early.

        study  None: nothing is done here
        lost   takes the tasks of which nothing came when a process died
        """
        under_way: dict[Future[list[Outcome]], list[Task]] = {}
        try:
            ready = pool.submit(parcel.fetch, file)
            while (
                study is not None
                and not ready.done()
                and not stopped.is_set()
                and (task := next(waiting, None)) is not None
            ):
                yield study.do(task)
            for _ in range(2 * self._size):
                _hand_out(pool, file, waiting, under_way, lost)
            while under_way and not stopped.is_set():
                done, _ = wait(under_way, WAIT_S, FIRST_COMPLETED)
                for future in done:
                    outcomes = future.result()
                    del under_way[future]
                    yield from outcomes  # first: handing out more may fail, and these are done
                    _hand_out(pool, file, waiting, under_way, lost)
        except BrokenProcessPool:
            lost += chain.from_iterable(under_way.values())
            under_way.clear()
            raise
        finally:
            for future in under_way:
                future.cancel()

    def _hire(self) -> ProcessPoolExecutor:
        with self._lock:
            self._users += 1
            if self._leaving is not None:
                self._leaving.cancel()
            if self._pool is None:
                self._pool = self._recruits()
            return self._pool

    def _recruits(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")  # forking a process with threads invites deadlocks
        return ProcessPoolExecutor(self._size, mp_context=context, initializer=parcel.begin)

    def _replaced(self, broken: ProcessPoolExecutor) -> ProcessPoolExecutor:
        """Others in place of a pool that broke; those that another preview hired meanwhile will do."""
        with self._lock:
            if self._pool is None or self._pool is broken:
                self._pool = self._recruits()
            return self._pool

    def _dismiss(self) -> None:
        """The next preview hires its own."""
        with self._lock:
            self._pool = None

    def _release(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0 and self._pool is not None:
                self._leaving = threading.Timer(self._idle_s, self._leave)
                self._leaving.daemon = True
                self._leaving.start()

    def _leave(self) -> None:
        with self._lock:
            if self._users:
                return
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)


def _here(study: Study, waiting: Iterator[Task], stopped: threading.Event) -> Iterator[Outcome]:
    for task in waiting:
        if stopped.is_set():
            return
        yield study.do(task)


def _hand_out(
    pool: ProcessPoolExecutor,
    file: str,
    waiting: Iterator[Task],
    under_way: dict[Future[list[Outcome]], list[Task]],
    lost: list[Task],
) -> None:
    """One more chunk to the processes; should they not take it, it is among the lost."""
    if tasks := list(islice(waiting, CHUNK)):
        lost += tasks
        under_way[pool.submit(parcel.work, file, tasks)] = tasks
        del lost[-len(tasks) :]
