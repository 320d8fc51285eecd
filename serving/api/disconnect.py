"""Work for a request that stops when its client disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from threading import Event
from typing import Any, TypeVar

from fastapi import Request
from fastapi.concurrency import run_in_threadpool

Result = TypeVar("Result")

POLL_S = 0.1
"""Seconds between two checks whether the client is still connected."""


async def run_while_connected(request: Request, work: Callable[..., Result], *args: Any) -> Result:
    """Return `work(*args, cancelled)`, run in a thread; `cancelled()` becomes True when the client disconnects.

    The body of the request must have been read.
    """
    cancelled = Event()

    async def watch() -> None:
        while not await request.is_disconnected():
            await asyncio.sleep(POLL_S)
        cancelled.set()

    watcher = asyncio.create_task(watch())
    try:
        return await run_in_threadpool(work, *args, cancelled.is_set)
    finally:
        watcher.cancel()
