"""Viewer events: POST /v1/events."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from serving.api.auth import SendsToken
from serving.api.body import read_bytes
from serving.api.dependencies import Intake
from serving.api.strict_query import STRICT_QUERY
from serving.edge.route import EdgeRoute
from serving.pages.event_intake import Sender
from serving.pages.source_limits import source_of
from serving.schemas.batch_result import BatchResult
from serving.schemas.problems import documented, problem

INLINE_BYTES = 64 << 10
"""A body up to this size is validated in the event loop, in about 2 ms. A larger one is validated in a thread."""

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


router = APIRouter(tags=["events"], dependencies=STRICT_QUERY, route_class=EdgeRoute)


@router.post(
    "/v1/events",
    status_code=202,
    summary="Send a batch of viewer events",
    description=(
        "The body is a list of CloudEvents, or a single CloudEvent. The response contains one result for each event, "
        "in order. Valid events are accepted even if other events of the batch are invalid.\n\n"
        "* 202: at least one event was accepted, or the batch was empty. Accepted events are durable: they survive a "
        "crash of this process and an outage of the stream.\n"
        "* 422: all events are invalid. The response contains the results.\n"
        "* 503: the events could not be stored. Send the whole batch again after `Retry-After`; events that were "
        "accepted before are recognised by their id and ignored.\n\n"
        "The status `quarantined` means that the clock of the client is more than five minutes ahead; the event is "
        "stored separately and has no effect. Events sent without the admin token count for the popularity of items "
        "only if the engine has served their viewer a page before, and only for a limited number of viewers per "
        "address, item and day (setting `viewers_per_source`). An event about an item that is not in the catalog is "
        "accepted, because events can arrive before their item, and its result contains a finding. The extension "
        "attribute `attributiontoken` assigns an event to the page that showed the item. Set the query parameter "
        "`format` to send Segment video calls or ActivityStreams 2 activities instead of CloudEvents; a Segment "
        "`batch` and an ActivityStreams collection are accepted too."
    ),
    response_model=BatchResult,
    responses=documented(400, 401, 413, 422, 503),
    openapi_extra=BODY,
)
async def post_events(
    request: Request,
    intake: Intake,
    has_token: SendsToken,
    event_format: Annotated[
        Literal["segment", "activitystreams"] | None,
        Query(alias="format", description="Format of the events. Omit it for CloudEvents."),
    ] = None,
) -> Response:
    body = await read_bytes(request)
    sender = Sender(has_token, source_of(request.client.host if request.client else None))
    if len(body) <= INLINE_BYTES:
        accepted = intake.events(body, event_format, sender)
    else:
        accepted = await run_in_threadpool(intake.events, body, event_format, sender)
    if accepted.durable is not None:
        await asyncio.wrap_future(accepted.durable)
    return batch_response(request, accepted.result, "events", 202)


def batch_response(request: Request, batch: BatchResult, name: str, status: int) -> Response:
    """Return the results of a batch as a response, which is a problem if every entry was refused."""
    if batch.refused == len(batch.results) > 0:
        detail = f"all {name} of the batch were refused ({batch.refused:,}); see findings"
        return problem(request, 422, f"bad-{name}", detail, batch.findings, **msgspec.to_builtins(batch))
    return Response(msgspec.json.encode(batch), status, media_type="application/json")
