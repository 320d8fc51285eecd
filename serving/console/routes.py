"""Serves the console's page and the list of viewers it offers."""

from __future__ import annotations

import json
from importlib.resources import files
from itertools import islice

from fastapi import APIRouter, Depends, Response

from features.codec import VIEWERS, viewer_at
from features.online import OnlineStore
from features.unreadable import Unreadable
from recsys.errors import NotFound
from recsys.messages import ENGLISH
from recsys.types import Screen, Surface
from serving.access import editors_only
from serving.problems import documented

VIEWERS_MAX = 60
"""Viewers the console offers; any other may be typed in."""

_SCANNED = 400
_KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "json": "application/json"}
_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


def routes(online: OnlineStore, admin_token: str, unreadable: Unreadable) -> APIRouter:
    """The console's routes."""
    router = APIRouter(prefix="/console", include_in_schema=False)
    folder = files("serving.console")
    texts = {file.name: file.read_text("utf-8") for file in folder.iterdir() if _kind(file.name) in _KINDS}
    texts["messages.en.json"] = json.dumps(ENGLISH)

    @router.get("")
    def page() -> Response:
        return asset("console.html")

    @router.get("/static/{name}")
    def asset(name: str) -> Response:
        if name not in texts:
            raise NotFound(f"the console has no {name!r}")
        return Response(texts[name], media_type=_KINDS[_kind(name)], headers=_HEADERS)

    @router.get("/choices", dependencies=[Depends(editors_only(admin_token))], responses=documented(401, 503))
    def choices() -> dict[str, object]:
        """What the editor can choose from: screens, surfaces, and the viewers of whom most is known."""
        scanned = islice(online.scan(VIEWERS), _SCANNED)
        states = [state for key, raw in scanned if (state := unreadable.read(key, raw, viewer_at)) is not None]
        known = sorted(states, key=lambda state: (-len(state.recent), state.viewer_id))[:VIEWERS_MAX]
        viewers = [{"id": state.viewer_id, "actions": len(state.recent)} for state in known]
        return {"screens": list(Screen), "surfaces": list(Surface), "viewers": viewers}

    return router


def _kind(name: str) -> str:
    return name.rpartition(".")[2]
