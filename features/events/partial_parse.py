"""Extracts the viewer and the receive time from messages that cannot be decoded, for erasure and export."""

from __future__ import annotations

import math
import re
from contextlib import suppress
from typing import Any

from pydantic_core import from_json

from features.events.validation import instant
from recsys.domain.errors import EventError

_SUBJECT = re.compile(rb'"subject"\s*:\s*("(?:[^"\\]|\\.){1,1200}")')
_ID_MAX = 200


def viewer_of(value: bytes) -> str:
    """Return the viewer id in these bytes of an event; empty if there is none.

    >>> viewer_of(b'{"data":{"subject":"a"},"subject":"v1","time":"2026')
    'v1'
    >>> viewer_of(b'{"x":}, "subject": "v2"'), viewer_of(b"?")
    ('v2', '')
    """
    subject = _object(value).get("subject")
    if subject is None and (match := _SUBJECT.search(value)):
        with suppress(ValueError):
            subject = from_json(match[1])
    return subject if isinstance(subject, str) and len(subject) <= _ID_MAX else ""


def received_at(value: bytes) -> float:
    """Return when the server received this message, in unix seconds; infinity if the bytes do not contain it."""
    with suppress(EventError):
        return instant(_object(value).get("receivedat"), "receivedat")
    return math.inf


def _object(value: bytes) -> dict[str, Any]:
    """Parse a possibly truncated JSON object; return an empty one if the bytes are not an object."""
    with suppress(ValueError):
        parsed = from_json(value, allow_partial=True)
        if isinstance(parsed, dict):
            return parsed
    return {}
