"""The fields of events as clients may write them: null attributes, content types with parameters, ids in any form.

The stream holds events in one form only. `features.events.decode` calls this module for events from clients, so that
events of older versions in the stream are read unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from features.events.schema import ViewerEvent
from recsys.domain.errors import EventError, Finding
from recsys.domain.fields import PATH_SEGMENTS, is_visible, normalize, visible
from recsys.messages import InvalidValue, message

_JSON_TYPE = "application/json"
_ID_FIELDS = frozenset({"subject", "item_id", "items", "session_id", "device_id", "request_id"})


def canonical(parsed: Mapping[str, Any]) -> dict[str, Any]:
    """Return a client's event without null attributes, with the plain content type and with normalized ids.

    The id of the event itself stays as it is: CloudEvents compares it, together with the source, letter by letter.

    In CloudEvents, an attribute that is null is unset, and a content type may have parameters and any case.
    Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md#22-type-system-mapping.
    """
    event = {name: _normal(name, value) for name, value in parsed.items() if value is not None}
    if isinstance(data := event.get("data"), dict):
        event["data"] = {name: _normal(name, value) for name, value in data.items() if value is not None}
    content_type = event.get("datacontenttype")
    if isinstance(content_type, str) and content_type.partition(";")[0].strip().lower() == _JSON_TYPE:
        event["datacontenttype"] = _JSON_TYPE
    return event


def _normal(field: str, value: Any) -> Any:
    """Return the value of a field; ids of viewers, items and so on in Unicode's normal form C."""
    if field not in _ID_FIELDS:
        return value
    if isinstance(value, list):
        return [normalize(entry) if isinstance(entry, str) else entry for entry in value]
    return normalize(value) if isinstance(value, str) else value


def has_plain_names(event: ViewerEvent, sent_id: str) -> bool:
    """Return whether all ids are in normal form, visible, and usable in a URL."""
    names = f"{sent_id}{event.viewer_id}{event.item_id}{event.session_id}{event.device_id}{event.request_id}"
    if event.items:
        names += "".join(event.items)
    return (
        (names.isascii() or is_visible(names))
        and event.viewer_id not in PATH_SEGMENTS
        and event.item_id not in PATH_SEGMENTS
        and not (event.items and PATH_SEGMENTS.intersection(event.items))
    )


def require_visible_names(event: ViewerEvent, sent_id: str) -> None:
    """Raise EventError if an id contains an invisible character, or if it cannot be a part of a URL."""
    names = {"subject": event.viewer_id, "data.item_id": event.item_id or ""}
    names |= {f"data.items.{index}": item_id for index, item_id in enumerate(event.items)}
    findings = [Finding(field, message("id_is_a_path")) for field, name in names.items() if name in PATH_SEGMENTS]
    names |= {f"data.{name}": getattr(event, name) for name in ("session_id", "device_id", "request_id")}
    for field, name in {"id": sent_id, **names}.items():
        try:
            visible(name)
        except InvalidValue as error:
            findings.append(Finding(field, error.text))
    if findings:
        raise EventError("unreadable event", findings)
