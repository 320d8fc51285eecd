"""The entry points of the service: GET /."""

from __future__ import annotations

from fastapi import APIRouter

from serving.edge.route import EdgeRoute

router = APIRouter(include_in_schema=False, route_class=EdgeRoute)


@router.get("/")
async def root() -> dict[str, str]:
    return {"service": "Mainstay", "console": "/console", "documentation": "/docs", "health": "/health/ready"}
