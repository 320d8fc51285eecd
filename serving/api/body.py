"""Functions that read request bodies and enforce a size limit before parsing."""

from __future__ import annotations

from typing import Any

from fastapi import Request

from features.json_text import parse_json
from recsys.domain.errors import Finding, InvalidInput
from recsys.messages import message
from serving.schemas.problems import NotJson, TooLarge

MAX_BODY_BYTES = 8 << 20
"""Maximum size of a request body."""


async def read_json(request: Request) -> Any:
    """Return the parsed body, as `parse_json` does. Raises TooLarge and NotJson."""
    raw = await read_bytes(request)
    try:
        return parse_json(raw)
    except ValueError as error:
        raise NotJson(message("body_not_json"), [Finding("body", str(error))]) from error


async def read_text(request: Request) -> str:
    """Return the body as text. Raises TooLarge, and InvalidInput if it is not UTF-8."""
    raw = await read_bytes(request)
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(message("body_not_utf8"), [Finding("body", str(error))]) from error


async def read_bytes(request: Request) -> bytes:
    """Return the body as bytes. Raises TooLarge as soon as more than MAX_BODY_BYTES are read."""
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > MAX_BODY_BYTES:
            raise TooLarge(message("body_too_large", maximum=MAX_BODY_BYTES >> 20))
    return bytes(raw)
