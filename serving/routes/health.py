"""Is it well? GET /health/live and /health/ready."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from serving.problems import documented
from serving.schemas import Health


def routes(health: Callable[[], Health]) -> APIRouter:
    """The health routes; neither asks another server, so neither can hang."""
    router = APIRouter(prefix="/health", tags=["operations"])

    @router.get("/live", summary="Whether the process answers at all")
    async def live() -> dict[str, str]:
        return {"status": "live"}

    @router.get(
        "/ready",
        summary="Whether pages can be made, and how each part is",
        description="`degraded` answers 200: pages come, from a lower rung or older data. `not ready` answers 503.",
        response_model=Health,
        responses=documented(503),
    )
    async def ready() -> Response:
        state = health()
        return JSONResponse(state.model_dump(), 503 if state.status == "not ready" else 200)

    return router
