"""Events in other people's forms: pure functions from a parsed JSON value to a CloudEvent of ours.

They raise EventError for what they do not understand. What they give is checked by `features.events.decode.accept` like
any other: a mapper names things, it vouches for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from features.events.formats.activitystreams import from_activity
from features.events.formats.segment import from_segment
from recsys.domain.errors import EventError, Finding

FORMATS: Mapping[str, Callable[[object], dict[str, Any]]] = {"segment": from_segment, "activitystreams": from_activity}
"""By the name that `POST /v1/events?format=` takes."""

_LISTS: Mapping[str, tuple[str, ...]] = {
    "segment": ("events", "batch"),
    "activitystreams": ("events", "orderedItems", "items"),
}

_SENT: Mapping[str, Mapping[str, str]] = {
    "segment": {
        "id": "messageId",
        "subject": "userId",
        "time": "timestamp",
        "data.item_id": "properties.asset_id",
        "data.session_id": "properties.session_id",
        "data.device_id": "context.device.id",
        "data.position_s": "properties.position",
        "data.duration_s": "properties.total_length",
    },
    "activitystreams": {"subject": "actor.id", "time": "published", "data.item_id": "object.id"},
}


def unwrap_batch(form: str, body: object) -> object:
    """The events of a body: those of a list, of Segment's `batch`, of a collection of activities, or one by itself.

    What is no body of this form is given back as it is.

    >>> unwrap_batch("segment", {"batch": [{"type": "track"}]}), unwrap_batch("segment", {"type": "track"})
    ([{'type': 'track'}], [{'type': 'track'}])
    >>> unwrap_batch("activitystreams", {"type": "OrderedCollection", "orderedItems": [{"type": "View"}]})
    [{'type': 'View'}]
    """
    if not isinstance(body, dict):
        return body
    for name in _LISTS[form]:
        if name in body:
            return body[name]
    return [body] if "type" in body else body


def with_sender_fields(form: str, error: EventError) -> EventError:
    """The same error under the names that the sender used.

    >>> with_sender_fields("segment", EventError("x", [Finding("data.item_id", "is missing")])).findings[0].where
    'properties.asset_id'
    """
    names = _SENT[form]
    return EventError(error.message, [Finding(names.get(f.where, f.where), f.message) for f in error.findings])
