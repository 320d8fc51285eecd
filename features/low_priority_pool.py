"""Process pools for background work that must not delay pages.

Pages and background work both run Python and numpy code, and the threads of one process share one interpreter lock.
These pools therefore use separate processes with one thread each, at low priority, that exit with their parent.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loky import ProcessPoolExecutor

NICE = 10
PARENT_CHECK_INTERVAL_S = 0.5
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "LOKY_MAX_MEMORY_LEAK_SIZE": "1e18",  # loky restarts workers that grow by 300 MB: loading a model is no leak
}


def low_priority_pool(
    max_workers: int, idle_s: float, initializer: Callable[[], None] | None = None
) -> ProcessPoolExecutor:
    """Return a pool that starts its workers at the first task and stops each after `idle_s` seconds without a task.

    loky starts workers with fork and exec, which is safe in a process with threads, and does not import the main module
    again. If a worker dies, the pool is permanently broken: its futures raise BrokenProcessPool.

    initializer  runs first in each worker
    """
    from loky import ProcessPoolExecutor  # imported here: most processes never need a pool

    return ProcessPoolExecutor(
        max_workers, timeout=idle_s, initializer=_init_worker, initargs=(os.getpid(), initializer), env=ENVIRONMENT
    )


def _init_worker(parent: int, initializer: Callable[[], None] | None) -> None:
    os.nice(NICE)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; the parent stops its workers
    threading.Thread(target=_exit_with_parent, args=(parent,), daemon=True).start()
    if initializer is not None:
        initializer()


def _exit_with_parent(parent: int) -> None:
    """Exit as soon as the parent process is gone, even during a task."""
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_INTERVAL_S)
    os._exit(0)
