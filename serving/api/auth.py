"""Authentication of editors with one shared token."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from recsys.messages import message
from serving.edge.callers import is_loopback
from serving.schemas.problems import Unauthorised

_bearer = HTTPBearer(auto_error=False, description="The token of the editors (setting `admin_token`), if one is set.")
Credentials = Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]


def check_editor(request: Request) -> None:
    """Raise Unauthorised if a token is set and the request does not carry it."""
    token = request.app.state.services.settings.admin_token
    if not token:
        return
    scheme, _, sent = request.headers.get("authorization", "").partition(" ")
    is_sent = hmac.compare_digest(sent.strip().encode(), token.encode())  # the token is ASCII, see `Settings`
    if scheme.lower() != "bearer" or not is_sent:
        has_header = "authorization" in request.headers
        raise Unauthorised(message("token_wrong") if has_header else message("token_required"))


async def _sends_token(request: Request, credentials: Credentials) -> bool:
    if credentials is None or not request.app.state.services.settings.admin_token:
        return False
    check_editor(request)
    return True


def _check_editor_or_loopback(request: Request) -> None:
    settings = request.app.state.services.settings
    if not settings.admin_token and not is_loopback(settings.host):
        raise Unauthorised(message("token_not_set"))
    check_editor(request)


async def _require_editor(request: Request, _: Credentials) -> None:
    check_editor(request)


async def _require_editor_or_loopback(request: Request, _: Credentials) -> None:
    _check_editor_or_loopback(request)


CHECKS: Mapping[Any, Callable[[Request], None]] = {
    _require_editor: check_editor,
    _require_editor_or_loopback: _check_editor_or_loopback,
}
"""Dependency of a route -> its check of the headers alone, which `EdgeRoute` calls before it reads a body."""

EDITORS_ONLY = [Depends(_require_editor)]
"""Dependencies of a route for editors. If no token is set, the route is open to all clients."""

EDITORS_OR_LOOPBACK = [Depends(_require_editor_or_loopback)]
"""Like `EDITORS_ONLY`, but if no token is set, a service that other machines can reach rejects all requests."""

SendsToken = Annotated[bool, Depends(_sends_token)]
"""Whether a request carries the editors' token, on a route that does not require it. A wrong token is rejected."""
