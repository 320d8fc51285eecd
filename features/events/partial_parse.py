"""What the bytes of a message that is no event still say: of whom they speak, and when the server received them."""

from __future__ import annotations

import math
import re
from contextlib import suppress
from typing import Any

from pydantic_core import from_json

from features.events.validation import instant
from recsys.domain.errors import EventError

_SUBJECT = re.compile(rb'"subject"\s*:\s*("(?:[^"\\]|\\.){1,1200}")')
_LONGEST = 200  # an id has no more


def viewer_of(value: bytes) -> str:
    """The viewer that these bytes of an event name; empty where they do not say.

    >>> viewer_of(b'{"data":{"subject":"a"},"subject":"v1","time":"2026')
    'v1'
    >>> viewer_of(b'{"x":}, "subject": "v2"'), viewer_of(b"?")
    ('v2', '')
    """
    said = _object(value).get("subject")
    if said is None and (found := _SUBJECT.search(value)):
        with suppress(ValueError):
            said = from_json(found[1])
    return said if isinstance(said, str) and len(said) <= _LONGEST else ""


def received_at(value: bytes) -> float:
    """When the server received this, in unix seconds; infinity where the bytes do not say."""
    with suppress(EventError):
        return instant(_object(value).get("receivedat"), "receivedat")
    return math.inf


def _object(value: bytes) -> dict[str, Any]:
    """The JSON object in these bytes, as far as it goes; empty where they are none."""
    with suppress(ValueError):
        parsed = from_json(value, allow_partial=True)
        if isinstance(parsed, dict):
            return parsed
    return {}
