"""Viewer events: POST /v1/events."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from recsys.errors import Finding
from recsys.messages import Message
from serving.body import read_bytes
from serving.ingest import Ingest
from serving.problems import documented, problem
from serving.schemas import BatchAnswer
from serving.verdicts import Verdicts

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


def routes(ingest: Ingest) -> APIRouter:
    """The event route."""
    router = APIRouter(tags=["events"])

    @router.post(
        "/v1/events",
        status_code=202,
        summary="What viewers did: a batch of CloudEvents",
        description=(
            "Each event gets a verdict by its index; good events are taken even when others are bad. 202 when at least "
            "one was taken (or none was sent): they are durable then, whatever happens to this process or the stream. "
            "422 with the verdicts when all are bad. 503 when there is no room for them: then send the whole batch "
            "again after `Retry-After`, an event id that was taken before is dropped. `quarantined`: the client's "
            "clock is more than five minutes ahead; the event is kept aside and counts for nothing. An event about an "
            "item that the catalogue does not know is accepted, since events may come first, with a finding that says "
            "so. The extension "
            "attribute `attributiontoken` ties an event to the page it came from. `format`: Segment's video calls or "
            "ActivityStreams 2 activities instead of CloudEvents (also Segment's `batch` and collections). One "
            "event by itself is a batch of one."
        ),
        response_model=BatchAnswer,
        responses=documented(400, 413, 422, 503),
        openapi_extra=BODY,
    )
    async def events(
        request: Request, form: Annotated[Literal["segment", "activitystreams"] | None, Query(alias="format")] = None
    ) -> Response:
        body = await read_bytes(request)
        if len(body) <= INLINE_BYTES:
            taken = ingest.events(body, form)
        else:
            taken = await run_in_threadpool(ingest.events, body, form)
        if taken.durable is not None:
            await asyncio.wrap_future(taken.durable)
        return answered(request, taken.verdicts, "events", 202)

    return router


def answered(request: Request, answer: Verdicts, name: str, status: int) -> Response:
    """The verdicts; as a problem when everything was refused."""
    if answer.refused == len(answer.verdicts) > 0:
        findings = [Finding(one.where, Message(code=one.code, params=one.params)) for one in answer.findings]
        detail = f"none of the {answer.refused:,} {name} can be taken"
        return problem(request, 422, f"bad-{name}", detail, findings, **msgspec.to_builtins(answer))
    return Response(msgspec.json.encode(answer), status, media_type="application/json")
