"""The registry of event formats: pure functions that convert a parsed JSON value to a viewer event (CloudEvent).

A converter raises EventError for unsupported events. It only maps fields: `features.events.decode.accept` validates its
result like any other event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from features.events.formats.activitystreams import from_activity
from features.events.formats.segment import from_segment
from recsys.domain.errors import EventError, Finding

FORMATS: Mapping[str, Callable[[object], dict[str, Any]]] = {"segment": from_segment, "activitystreams": from_activity}
"""Format name, as in `POST /v1/events?format=`, -> converter."""

_LIST_FIELDS: Mapping[str, tuple[str, ...]] = {
    "segment": ("events", "batch"),
    "activitystreams": ("events", "orderedItems", "items"),
}

_SENDER_FIELDS: Mapping[str, Mapping[str, str]] = {
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


def unwrap_batch(format_name: str, body: object) -> object:
    """Return the list of events in a request body: a list, Segment's `batch`, a collection of activities, or one event.

    A list of one entry may be written as the entry, as JSON-LD does. A body of any other form is returned unchanged.

    >>> unwrap_batch("segment", {"batch": [{"type": "track"}]}), unwrap_batch("segment", {"type": "track"})
    ([{'type': 'track'}], [{'type': 'track'}])
    >>> unwrap_batch("activitystreams", {"type": "OrderedCollection", "orderedItems": [{"type": "View"}]})
    [{'type': 'View'}]
    >>> unwrap_batch("activitystreams", {"type": "Collection", "items": {"type": "View"}})
    [{'type': 'View'}]
    """
    if not isinstance(body, dict):
        return body
    for name in _LIST_FIELDS[format_name]:
        if (entries := body.get(name)) is not None:
            return entries if isinstance(entries, list) else [entries]
    return [body] if "type" in body else body


def with_sender_fields(format_name: str, error: EventError) -> EventError:
    """Return the same error with the field names of the sender's format.

    >>> with_sender_fields("segment", EventError("x", [Finding("data.item_id", "is missing")])).findings[0].where
    'properties.asset_id'
    """
    names = _SENDER_FIELDS[format_name]
    return EventError(
        error.message, [Finding(names.get(finding.where, finding.where), finding.message) for finding in error.findings]
    )
