"""Authentication of editors with one shared token."""

from __future__ import annotations

import hmac
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from recsys.messages import message
from serving.schemas.problems import Unauthorised

LOOPBACK = ("127.0.0.1", "localhost", "::1")

_bearer = HTTPBearer(auto_error=False, description="The token of the editors (setting `admin_token`), if one is set.")
Credentials = Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]


def check_editor(request: Request, credentials: HTTPAuthorizationCredentials | None) -> None:
    """Raise Unauthorised if a token is set and the request does not carry it."""
    token = request.app.state.services.settings.admin_token
    sent_token = credentials.credentials if credentials else ""
    if token and not hmac.compare_digest(sent_token.encode(), token.encode()):
        raise Unauthorised(message("token_required"))


async def _sends_token(request: Request, credentials: Credentials) -> bool:
    if credentials is None or not request.app.state.services.settings.admin_token:
        return False
    check_editor(request, credentials)
    return True


async def _require_editor(request: Request, credentials: Credentials) -> None:
    check_editor(request, credentials)


async def _require_editor_or_loopback(request: Request, credentials: Credentials) -> None:
    settings = request.app.state.services.settings
    if not settings.admin_token and settings.host not in LOOPBACK:
        raise Unauthorised(message("token_not_set"))
    check_editor(request, credentials)


EDITORS_ONLY = [Depends(_require_editor)]
"""Dependencies of a route for editors. If no token is set, the route is open to all clients."""

EDITORS_OR_LOOPBACK = [Depends(_require_editor_or_loopback)]
"""Like `EDITORS_ONLY`, but if no token is set, a service that other machines can reach rejects all requests."""

SendsToken = Annotated[bool, Depends(_sends_token)]
"""Whether a request carries the editors' token, on a route that does not require it. A wrong token is rejected."""
