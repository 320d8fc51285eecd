"""Reads bodies with a limit, before anything is parsed."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from pydantic_core import from_json

from recsys.domain.errors import Finding, InvalidInput
from recsys.messages import message
from serving.schemas.problems import NotJson, TooLarge

BODY_MAX = 8 << 20
"""Bytes of a batch."""


async def read_json(request: Request) -> Any:
    """The parsed body. Raises TooLarge above BODY_MAX (without reading on) and NotJson."""
    raw = await read_bytes(request)
    try:
        return from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise NotJson(message("body_not_json"), [Finding("body", str(error))]) from error


async def read_text(request: Request) -> str:
    """The body as text. Raises TooLarge, and InvalidInput when it is not UTF-8."""
    raw = await read_bytes(request)
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(message("body_not_utf8"), [Finding("body", str(error))]) from error


async def read_bytes(request: Request) -> bytes:
    """The body as it came. Raises TooLarge above BODY_MAX, without reading on."""
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > BODY_MAX:
            raise TooLarge(message("body_too_large", maximum=BODY_MAX >> 20))
    return bytes(raw)
