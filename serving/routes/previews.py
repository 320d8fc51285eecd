"""Previews: POST /v1/policies/{outlet}/preview, a stream of JSON lines."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress

from fastapi import APIRouter, Depends
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from serving.access import editors_only
from serving.desk import PolicyDesk
from serving.preview.schemas import PreviewLine, PreviewRequest
from serving.preview.service import Preview, Previews
from serving.problems import documented
from serving.routes.policies import OutletCode

log = logging.getLogger("mainstay.serving")

MEDIA_TYPE = "application/x-ndjson"


def routes(desk: PolicyDesk, previews: Previews, admin_token: str) -> APIRouter:
    """The preview route; for editors."""
    router = APIRouter(tags=["policies"])

    @router.post(
        "/v1/policies/{outlet}/preview",
        summary="What a draft would change: recent requests replayed, in pairs",
        description=(
            "Replays recent requests for pages of the outlet, and of those below it, through the real engine: "
            "unguided, under the active policy, under the draft. The answer is a stream of JSON lines, each a "
            "`PreviewLine`: the first figures within a second or two, then ever more requests, the last line "
            "`complete`. Closing the connection ends the work. One preview at a time per serving process; another "
            "gets 429. Everything is predicted by the model, not caused."
        ),
        response_class=StreamingResponse,
        responses={
            200: {"model": PreviewLine, "description": "JSON lines", "content": {MEDIA_TYPE: {}}},
            **documented(401, 404, 422, 429, 503),
        },
        dependencies=[Depends(editors_only(admin_token))],
    )
    async def preview(outlet: OutletCode, body: PreviewRequest) -> StreamingResponse:
        draft = await run_in_threadpool(desk.to_preview, outlet, body)
        admitted = await run_in_threadpool(previews.open, draft, body)
        return StreamingResponse(_stream(admitted), media_type=MEDIA_TYPE)

    return router


async def _stream(preview: Preview) -> AsyncIterator[bytes]:
    """Lines from a thread of their own; when the client leaves, the work ends at the next page."""
    loop, lines = asyncio.get_running_loop(), asyncio.Queue[bytes | None]()

    def run() -> None:
        with suppress(RuntimeError):  # the loop has ended: nobody listens any more
            try:
                for line in preview.lines():
                    loop.call_soon_threadsafe(lines.put_nowait, line.model_dump_json().encode() + b"\n")
            except Exception as error:
                log.exception("a preview failed")
                loop.call_soon_threadsafe(lines.put_nowait, preview.failed(error).model_dump_json().encode() + b"\n")
            finally:
                loop.call_soon_threadsafe(lines.put_nowait, None)

    work = loop.run_in_executor(None, run)
    try:
        while (line := await lines.get()) is not None:
            yield line
        await work
    finally:
        preview.stopped.set()
