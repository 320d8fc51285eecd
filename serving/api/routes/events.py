"""Viewer events: POST /v1/events."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from serving.api.body import read_bytes
from serving.api.dependencies import Intake
from serving.api.strict_query import STRICT_QUERY
from serving.schemas.batch_result import BatchResult
from serving.schemas.problems import documented, problem

INLINE_BYTES = 64 << 10
"""A body up to this size is checked at once, within a millisecond or two; a larger one where nobody else waits."""

EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "id": "e-1",
    "source": "/apps/tv",
    "type": "mainstay.viewer.play",
    "subject": "v-4711",
    "time": "2026-10-01T12:00:00Z",
    "data": {"item_id": "film-3", "request_id": "9f2c", "slot": 1, "region": "cn.zj.hz"},
}
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/cloudevents-batch+json": {
                "schema": {"type": "array", "items": {"type": "object"}, "maxItems": 1000},
                "example": [EVENT],
            },
            "application/cloudevents+json": {"schema": {"type": "object"}, "example": EVENT},
            "application/json": {
                "schema": {"type": "object", "properties": {"events": {"type": "array", "items": {"type": "object"}}}},
                "example": {"events": [EVENT]},
            },
        },
    }
}


router = APIRouter(tags=["events"], dependencies=STRICT_QUERY)


@router.post(
    "/v1/events",
    status_code=202,
    summary="What viewers did: a batch of CloudEvents",
    description=(
        "Each event gets a result by its index; good events are taken even when others are bad. 202 when at least "
        "one was taken (or none was sent): they are durable then, whatever happens to this process or the stream. "
        "422 with the results when all are bad. 503 when there is no room for them: then send the whole batch "
        "again after `Retry-After`, an event id that was taken before is dropped. `quarantined`: the client's "
        "clock is more than five minutes ahead; the event is kept aside and counts for nothing. An event about an "
        "item that the catalogue does not know is accepted, since events may come first, with a finding that says "
        "so. The extension "
        "attribute `attributiontoken` ties an event to the page it came from. `format`: Segment's video calls or "
        "ActivityStreams 2 activities instead of CloudEvents (also Segment's `batch` and collections). One "
        "event by itself is a batch of one."
    ),
    response_model=BatchResult,
    responses=documented(400, 413, 422, 503),
    openapi_extra=BODY,
)
async def post_events(
    request: Request,
    intake: Intake,
    form: Annotated[Literal["segment", "activitystreams"] | None, Query(alias="format")] = None,
) -> Response:
    body = await read_bytes(request)
    if len(body) <= INLINE_BYTES:
        taken = intake.events(body, form)
    else:
        taken = await run_in_threadpool(intake.events, body, form)
    if taken.durable is not None:
        await asyncio.wrap_future(taken.durable)
    return batch_response(request, taken.result, "events", 202)


def batch_response(request: Request, answer: BatchResult, name: str, status: int) -> Response:
    """Return the results of a batch, as a problem if everything in it was refused."""
    if answer.refused == len(answer.results) > 0:
        detail = f"none of the {answer.refused:,} {name} can be taken"
        return problem(request, 422, f"bad-{name}", detail, answer.findings, **msgspec.to_builtins(answer))
    return Response(msgspec.json.encode(answer), status, media_type="application/json")
