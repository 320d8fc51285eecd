"""Viewer events: POST /v1/events."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from recsys.errors import Finding
from serving.body import read_json
from serving.ingest import Ingest
from serving.problems import documented, problem
from serving.schemas import BatchAnswer

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
            "one was taken (or none was sent), 422 with the verdicts when all are bad, 503 when the stream refuses: "
            "then send the whole batch again, an event id that was taken before is dropped. The extension attribute "
            "`attributiontoken` ties an event to the page it came from."
        ),
        response_model=BatchAnswer,
        responses=documented(400, 413, 422, 503),
        openapi_extra=BODY,
    )
    async def events(request: Request) -> Response:
        body = await read_json(request)
        return answered(request, await run_in_threadpool(ingest.events, body), "events", 202)

    return router


def answered(request: Request, answer: BatchAnswer, name: str, status: int) -> Response:
    """The verdicts; as a problem when everything was refused."""
    if answer.refused and not answer.accepted:
        findings = [Finding(place.where, place.message) for verdict in answer.verdicts for place in verdict.findings]
        detail = f"none of the {answer.refused:,} {name} can be taken"
        return problem(request, 422, f"bad-{name}", detail, findings, **answer.model_dump())
    return JSONResponse(answer.model_dump(), status)
