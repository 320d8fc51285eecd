"""Policy previews: POST /v1/policies/{outlet}/preview, which returns a stream of JSON lines."""

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
from serving.edge.route import EdgeRoute
from serving.editorial.preview.service import Preview
from serving.schemas.previews import PreviewLine, PreviewRequest
from serving.schemas.problems import documented

log = logging.getLogger("mainstay.serving")

MEDIA_TYPE = "application/x-ndjson"


router = APIRouter(tags=["policies"], dependencies=STRICT_QUERY, route_class=EdgeRoute)


@router.post(
    "/v1/policies/{outlet}/preview",
    summary="Preview the effect of a draft on recent requests",
    description=(
        "Replays recent requests for pages of the outlet and of its descendants through the engine three times: "
        "without a policy, under the active policy and under the draft. The response is a stream of JSON lines, each a "
        "`PreviewLine`. The first line arrives within about two seconds; each following line covers more requests, and "
        "the last one has the phase `complete`. To cancel the preview, close the connection. Each serving process runs "
        "one preview at a time and answers further requests with 429. All results are predictions of the model, not "
        "measured effects."
    ),
    response_class=StreamingResponse,
    responses={
        200: {"model": PreviewLine, "description": "A stream of JSON lines.", "content": {MEDIA_TYPE: {}}},
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
    """Yield the lines of a preview that runs in a thread. If the client disconnects, it stops after a page."""
    loop, lines = asyncio.get_running_loop(), asyncio.Queue[bytes | None]()

    def run() -> None:
        with suppress(RuntimeError):  # the event loop is closed, so the client is gone
            try:
                for line in preview.lines():
                    loop.call_soon_threadsafe(lines.put_nowait, line.model_dump_json().encode() + b"\n")
            except Exception as error:
                log.exception("policy preview failed")
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
