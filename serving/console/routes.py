"""Serves the console's page and the list of viewers it offers."""

from __future__ import annotations

from importlib.resources import files
from itertools import islice

from fastapi import APIRouter, Depends, Response

from features.codec import VIEWERS, decode_viewer
from features.online import OnlineStore
from recsys.types import Screen, Surface
from serving.access import editors_only
from serving.problems import documented

VIEWERS_MAX = 60
"""Viewers the console offers; any other may be typed in."""

_SCANNED = 400
_KINDS = {"console.html": "text/html", "console.css": "text/css", "console.js": "text/javascript"}
_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


def routes(online: OnlineStore, admin_token: str) -> APIRouter:
    """The console's routes."""
    router = APIRouter(prefix="/console", include_in_schema=False)
    folder = files("serving.console")
    texts = {name: folder.joinpath(name).read_text("utf-8") for name in _KINDS}

    def text(name: str) -> Response:
        return Response(texts[name], media_type=_KINDS[name], headers=_HEADERS)

    @router.get("")
    def page() -> Response:
        return text("console.html")

    @router.get("/console.css")
    def style() -> Response:
        return text("console.css")

    @router.get("/console.js")
    def script() -> Response:
        return text("console.js")

    @router.get("/choices", dependencies=[Depends(editors_only(admin_token))], responses=documented(401, 503))
    def choices() -> dict[str, object]:
        """What the editor can choose from: screens, surfaces, and the viewers of whom most is known."""
        states = (decode_viewer(raw) for _, raw in islice(online.scan(VIEWERS), _SCANNED))
        known = sorted(states, key=lambda state: (-len(state.recent), state.viewer_id))[:VIEWERS_MAX]
        viewers = [{"id": state.viewer_id, "actions": len(state.recent)} for state in known]
        return {"screens": list(Screen), "surfaces": list(Surface), "viewers": viewers}

    return router
