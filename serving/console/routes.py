"""The console: its page, its files and the viewers that it offers."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from itertools import islice

from fastapi import APIRouter, Response

from features.state.codec import viewer_at
from features.state.keys import VIEWERS
from recsys.domain.errors import NotFound
from recsys.domain.placement import Screen, Surface
from recsys.messages import ENGLISH
from serving.api.auth import EDITORS_ONLY
from serving.api.dependencies import CorruptStates, Online
from serving.edge.route import EdgeRoute
from serving.schemas.problems import documented

VIEWERS_MAX = 60
"""Viewers the console offers; any other may be typed in."""

_SCANNED = 400
_KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "json": "application/json"}
_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}

router = APIRouter(prefix="/console", include_in_schema=False, route_class=EdgeRoute)


@router.get("")
def console() -> Response:
    return asset("console.html")


@router.get("/static/{name}")
def asset(name: str) -> Response:
    if name not in _assets():
        raise NotFound(f"the console has no {name!r}")
    return Response(_assets()[name], media_type=_KINDS[_extension(name)], headers=_HEADERS)


@router.get("/choices", dependencies=EDITORS_ONLY, responses=documented(401, 503))
def choices(online: Online, corrupt_states: CorruptStates) -> dict[str, object]:
    """Return what an editor can choose from: screens, surfaces, and the viewers with the longest histories."""
    scanned = islice(online.scan(VIEWERS), _SCANNED)
    states = [state for key, raw in scanned if (state := corrupt_states.decode(key, raw, viewer_at)) is not None]
    longest = sorted(states, key=lambda state: (-len(state.recent), state.viewer_id))[:VIEWERS_MAX]
    viewers = [{"id": state.viewer_id, "actions": len(state.recent)} for state in longest]
    return {"screens": list(Screen), "surfaces": list(Surface), "viewers": viewers}


@cache
def _assets() -> dict[str, str]:
    """Return the text of each file of the console by name; the files are read once per process."""
    folder = files("serving.console")
    texts = {file.name: file.read_text("utf-8") for file in folder.iterdir() if _extension(file.name) in _KINDS}
    return {**texts, "messages.en.json": json.dumps(ENGLISH)}


def _extension(name: str) -> str:
    return name.rpartition(".")[2]
