"""Converts ActivityStreams 2 activities to viewer events.

Source: W3C Activity Vocabulary, https://www.w3.org/TR/activitystreams-vocabulary/. In an activity, an *actor* acts on
an *object*. The actor's id becomes the viewer id and the object's id the item id, both unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from features.events.identity import MAPPED_SOURCES
from features.events.schema import TYPE_PREFIX
from recsys.domain.errors import EventError, Finding

KINDS: dict[str, str] = {
    "View": "open",
    "Read": "open",
    "Listen": "play",
    "Like": "like",
    "Dislike": "dislike",
    "Announce": "share",
    "Follow": "follow",
    "Ignore": "hide",
    "Block": "hide",
    "Reject": "hide",
}
"""Activity type -> event kind. Also, `Add` is a favourite, and `Create` is a comment if its object is a reply."""

_SHORT = re.compile(r"^(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d)([Zz]|[+-]\d\d:\d\d|)$", re.ASCII)


def from_activity(raw: object) -> dict[str, Any]:
    """Convert an activity to a CloudEvent. Raises EventError for unsupported activity types and for `Undo`.

    >>> from_activity({"@context": "https://www.w3.org/ns/activitystreams", "type": "Like", "id": "urn:a:1",
    ...                "actor": "urn:viewer:7", "object": {"type": "Video", "id": "film-3"}})["data"]
    {'item_id': 'film-3'}
    """
    if not isinstance(raw, dict):
        raise EventError("an activity must be a JSON object")
    kind, target = _kind(raw), _only(raw.get("object"))
    if kind == "comment" and isinstance(target, dict):
        target = target.get("inReplyTo")
    event = {
        "specversion": "1.0",
        "id": raw.get("id"),
        "source": MAPPED_SOURCES["activitystreams"],
        "type": TYPE_PREFIX + kind,
        "subject": _id(raw.get("actor")),
        "time": _time(raw.get("published") or raw.get("startTime")),
        "data": {} if _id(target) is None else {"item_id": _id(target)},
    }
    return {name: value for name, value in event.items() if value is not None}


def _kind(raw: Mapping[str, Any]) -> str:
    """Return the event kind of the first supported type of an activity. Raises EventError."""
    type_value, target = raw.get("type"), _only(raw.get("object"))
    types = type_value if isinstance(type_value, list) else [type_value]
    is_reply = isinstance(target, dict) and target.get("inReplyTo") is not None
    kinds = KINDS | {"Add": "favourite"} | ({"Create": "comment"} if is_reply else {})
    matches = [kinds[name] for name in types if isinstance(name, str) and name in kinds]
    if matches and "Undo" not in types:
        return matches[0]
    reason = "events cannot be undone" if "Undo" in types else "unsupported activity type"
    supported = ", ".join([*KINDS, "Add", "Create"])
    raise EventError(
        "unsupported activity", [Finding("type", f"{ascii(type_value)[:60]}: {reason}; expected one of {supported}")]
    )


def _time(value: object) -> object:
    """Complete a time to RFC 3339. ActivityStreams allows times without seconds.

    Source: https://www.w3.org/TR/activitystreams-core/#dates.

    >>> _time("2026-11-25T10:00+08:00"), _time("2026-11-25T10:00:30Z"), _time(7)
    ('2026-11-25T10:00:00+08:00', '2026-11-25T10:00:30Z', 7)
    """
    return _SHORT.sub(r"\1:00\2", value) if isinstance(value, str) else value


def _id(value: object) -> object:
    """Return the id of an object given as an id, as an object, or as a list with one of these."""
    value = _only(value)
    return value.get("id") if isinstance(value, dict) else value


def _only(value: object) -> object:
    """Return the entry of a list with one entry, and any other value unchanged: JSON-LD does not distinguish them."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value
