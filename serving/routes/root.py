"""Where to go from here: GET /."""

from __future__ import annotations

from fastapi import APIRouter


def routes() -> APIRouter:
    """The root; it only names the doors."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def doors() -> dict[str, str]:
        return {"service": "Mainstay", "console": "/console", "documentation": "/docs", "health": "/health/ready"}

    return router
