"""Converts Segment's video events to viewer events.

Source: Segment's video spec, https://www.twilio.com/docs/segment/connections/spec/video (`track` calls).
"Playback" events describe the player and "Content" events the programme. Events about advertisements are rejected.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from features.events.identity import MAPPED_SOURCES
from features.events.schema import TYPE_PREFIX
from recsys.domain.errors import EventError, Finding

KINDS: Mapping[str, str] = {
    "Video Playback Started": "open",
    "Video Playback Paused": "pause",
    "Video Playback Interrupted": "pause",
    "Video Playback Exited": "pause",
    "Video Playback Buffer Started": "",
    "Video Playback Buffer Completed": "",
    "Video Playback Resumed": "ping",
    "Video Playback Seek Started": "",
    "Video Playback Seek Completed": "seek",
    "Video Playback Completed": "ping",
    "Video Content Started": "play",
    "Video Content Playing": "ping",
    "Video Content Completed": "complete",
    "Video Quality Updated": "",
    "Video Ad Started": "",
    "Video Ad Playing": "",
    "Video Ad Completed": "",
}
"""Segment event -> event kind; empty for events that carry no viewer preference."""


def from_segment(raw: object) -> dict[str, Any]:
    """Convert a `track` call to a CloudEvent. Raises EventError for other calls and for events that are not in KINDS.

    >>> from_segment({"type": "track", "event": "Video Content Playing", "messageId": "m1", "userId": "v1",
    ...               "timestamp": "2026-01-01T00:00:00Z",
    ...               "properties": {"asset_id": "film-3", "position": 40, "total_length": 400}})["data"]
    {'item_id': 'film-3', 'position_s': 40, 'duration_s': 400, 'percent': 10.0}
    """
    if not isinstance(raw, dict):
        raise EventError("a Segment call must be a JSON object")
    name, properties = raw.get("event"), raw.get("properties")
    properties = {} if properties is None else properties
    kind = KINDS.get(name) if isinstance(name, str) else None
    if raw.get("type") not in (None, "track") or kind is None:
        raise EventError(
            "unsupported call",
            [Finding("event", f"{ascii(name)[:60]}: expected a track call with a Segment video event")],
        )
    if not kind:
        raise EventError(
            "unsupported event", [Finding("event", f"{name} carries no viewer preference: do not send it")]
        )
    if not isinstance(properties, dict):
        raise EventError("invalid call", [Finding("properties", "expected an object")])
    event = {
        "specversion": "1.0",
        "id": raw.get("messageId"),
        "source": MAPPED_SOURCES["segment"],
        "type": TYPE_PREFIX + kind,
        "subject": raw.get("userId") or raw.get("anonymousId"),
        "time": raw.get("timestamp") or raw.get("originalTimestamp"),
        "data": _data(raw, properties, kind),
    }
    return {name: value for name, value in event.items() if value is not None}


def _data(raw: Mapping[str, Any], properties: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Return the data fields: item, session, device and position. Segment's positions and lengths are in seconds."""
    asset = properties.get("asset_id") or _first(properties.get("content_asset_ids"))
    position = properties.get("seek_position") if kind == "seek" else None
    position = properties.get("position") if position is None else position
    length = properties.get("total_length")
    data = {
        "item_id": asset,
        "session_id": properties.get("session_id"),
        "device_id": _device(raw),
        "position_s": position,
        "duration_s": length,
        "percent": _percent(position, length),
    }
    return {name: value for name, value in data.items() if value is not None}


def _first(values: object) -> object:
    return values[0] if isinstance(values, list) and values else None


def _device(raw: Mapping[str, Any]) -> object:
    context = raw.get("context")
    device = context.get("device") if isinstance(context, dict) else None
    return device.get("id") if isinstance(device, dict) else None


def _percent(position: object, length: object) -> float | None:
    """Return the progress in [0, 100]; None if it is unknown."""
    if not isinstance(position, int | float) or not isinstance(length, int | float):
        return None
    if isinstance(position, bool) or isinstance(length, bool) or not position >= 0 or not length > 0:
        return None
    try:
        return min(100.0 * position / length, 100.0)
    except OverflowError:  # an integer too large for a float
        return None
