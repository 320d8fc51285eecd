"""Previews: POST /v1/policies/{outlet}/preview, a stream of JSON lines."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from serving.api.auth import EDITORS_ONLY
from serving.api.dependencies import Policies, PolicyPreviews
from serving.api.routes.policies import OutletCode
from serving.api.strict_query import STRICT_QUERY
from serving.editorial.preview.service import Preview
from serving.schemas.previews import PreviewLine, PreviewRequest
from serving.schemas.problems import documented

log = logging.getLogger("mainstay.serving")

MEDIA_TYPE = "application/x-ndjson"


router = APIRouter(tags=["policies"], dependencies=STRICT_QUERY)


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
    dependencies=EDITORS_ONLY,
)
async def preview(
    outlet: OutletCode, body: PreviewRequest, policies: Policies, previews: PolicyPreviews
) -> StreamingResponse:
    draft = await run_in_threadpool(policies.to_preview, outlet, body)
    admitted = await run_in_threadpool(previews.open, draft, body)
    return StreamingResponse(_stream(admitted), media_type=MEDIA_TYPE)


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
