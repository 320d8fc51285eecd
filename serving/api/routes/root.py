"""The entry points of the service: GET /."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(include_in_schema=False)


@router.get("/")
async def root() -> dict[str, str]:
    return {"service": "Mainstay", "console": "/console", "documentation": "/docs", "health": "/health/ready"}
