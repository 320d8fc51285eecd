"""Segment's video events -> CloudEvents of ours.

Source: Segment's video spec, https://www.twilio.com/docs/segment/connections/spec/video (`track` calls).
"Playback" events are about the player, "Content" events about the programme; of an advertisement nothing is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from features.events.identity import MAPPED
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
"""Segment's event -> our kind; empty for what says nothing of what a viewer wants."""


def from_segment(raw: object) -> dict[str, Any]:
    """One `track` call as a CloudEvent. Raises EventError for another call, or an event that is not in KINDS.

    >>> from_segment({"type": "track", "event": "Video Content Playing", "messageId": "m1", "userId": "v1",
    ...               "timestamp": "2026-01-01T00:00:00Z",
    ...               "properties": {"asset_id": "film-3", "position": 40, "total_length": 400}})["data"]
    {'item_id': 'film-3', 'position_s': 40, 'duration_s': 400, 'percent': 10.0}
    """
    if not isinstance(raw, dict):
        raise EventError("a Segment call is a JSON object")
    name, properties = raw.get("event"), raw.get("properties", {})
    kind = KINDS.get(name) if isinstance(name, str) else None
    if raw.get("type", "track") != "track" or kind is None:
        raise EventError("not understood", [Finding("event", f"{ascii(name)[:60]} is none of Segment's video events")])
    if not kind:
        raise EventError("not taken", [Finding("event", f"{name} says nothing of what a viewer wants")])
    if not isinstance(properties, dict):
        raise EventError("not understood", [Finding("properties", "expected an object")])
    sent = {
        "specversion": "1.0",
        "id": raw.get("messageId"),
        "source": MAPPED["segment"],
        "type": TYPE_PREFIX + kind,
        "subject": raw.get("userId") or raw.get("anonymousId"),
        "time": raw.get("timestamp") or raw.get("originalTimestamp"),
        "data": _data(raw, properties, kind),
    }
    return {name: said for name, said in sent.items() if said is not None}


def _data(raw: Mapping[str, Any], properties: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Where in which item: Segment says a content's position in seconds, a player's session in `session_id`."""
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
    return {name: said for name, said in data.items() if said is not None}


def _first(listed: object) -> object:
    return listed[0] if isinstance(listed, list) and listed else None


def _device(raw: Mapping[str, Any]) -> object:
    context = raw.get("context")
    device = context.get("device") if isinstance(context, dict) else None
    return device.get("id") if isinstance(device, dict) else None


def _percent(position: object, length: object) -> float | None:
    """How far, in [0, 100]; None where it is not said."""
    if not isinstance(position, int | float) or not isinstance(length, int | float):
        return None
    if isinstance(position, bool) or isinstance(length, bool) or not position >= 0 or not length > 0:
        return None
    try:
        return min(100.0 * position / length, 100.0)
    except OverflowError:  # a number of four hundred digits
        return None
