"""Health: GET /health/live and /health/ready. Neither calls another server, so neither can hang."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from serving.api.dependencies import AllServices
from serving.health_report import health_report
from serving.schemas.problems import documented
from serving.schemas.resources import Health

router = APIRouter(prefix="/health", tags=["operations"])


@router.get("/live", summary="Whether the process answers at all")
async def live() -> dict[str, str]:
    return {"status": "live"}


@router.get(
    "/ready",
    summary="Whether pages can be made, and how each part is",
    description="200 for `degraded` too: pages come from a lower fallback level or older data. 503 for `not ready`.",
    response_model=Health,
    responses=documented(503),
)
async def ready(services: AllServices) -> Response:
    state = health_report(services)
    return JSONResponse(state.model_dump(), 503 if state.status == "not ready" else 200)
