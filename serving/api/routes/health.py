"""Health checks: GET /health/live and /health/ready. They call no other server, so they cannot hang."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from serving.api.dependencies import AllServices
from serving.edge.route import EdgeRoute
from serving.health_report import health_report
from serving.schemas.problems import documented
from serving.schemas.resources import Health

router = APIRouter(prefix="/health", tags=["operations"], route_class=EdgeRoute)


@router.get("/live", summary="Check that the process is running")
async def live() -> dict[str, str]:
    return {"status": "live"}


@router.get(
    "/ready",
    summary="Check that pages can be served, with the health of each part",
    description=(
        "Returns 200 for `ready` and for `degraded`, which means that pages come from a lower fallback level or from "
        "older data. Returns 503 for `not ready`."
    ),
    response_model=Health,
    responses=documented(503),
)
async def ready(services: AllServices) -> Response:
    report = health_report(services)
    return JSONResponse(report.model_dump(), 503 if report.status == "not ready" else 200)
