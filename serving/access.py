"""Who may write: one shared token for editors, until outlets have keys of their own."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Annotated

from fastapi import Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from recsys.messages import message
from serving.problems import Unauthorised

_bearer = HTTPBearer(auto_error=False, description="the editors' token (setting `admin_token`), when one is set")
Credentials = Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]


def editors_only(token: str) -> Callable[[HTTPAuthorizationCredentials | None], None]:
    """A dependency that lets only holders of the token pass; everybody when the token is empty."""

    def check(credentials: Credentials) -> None:
        said = credentials.credentials if credentials else ""
        if token and not hmac.compare_digest(said.encode(), token.encode()):
            raise Unauthorised(message("token_required"))

    return check


def nobody() -> None:
    """A dependency that lets no one pass: the service can be reached from outside and has no token to ask for."""
    raise Unauthorised(message("token_not_set"))


def is_editor(token: str, credentials: HTTPAuthorizationCredentials | None) -> None:
    """The same check for a route that needs the token only for some requests. Raises Unauthorised."""
    editors_only(token)(credentials)
