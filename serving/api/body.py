"""Functions that return the body of a request, which `EdgeRoute` has read within the limit of the route."""

from __future__ import annotations

from typing import Any

from fastapi import Request

from recsys.domain.errors import Finding, InvalidInput
from recsys.messages import message
from serving.edge.body import parse_json


async def read_json(request: Request) -> Any:
    """Return the parsed body. Raises NotJson."""
    return parse_json(await request.body())


async def read_text(request: Request) -> str:
    """Return the body as text. Raises InvalidInput if it is not UTF-8."""
    try:
        return (await request.body()).decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(message("body_not_utf8"), [Finding("body", str(error))]) from error


async def read_bytes(request: Request) -> bytes:
    """Return the body as bytes."""
    return await request.body()
