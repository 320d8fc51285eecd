"""Read and write viewer events: `accept` for events from clients, `encode` and `decode` for the stream.

On the wire an event is a CloudEvents 1.0 JSON object: `type` is the kind of event, `subject` the viewer, `time` the
client's time, `receivedat` the server's time (the authoritative one), `trust` how far the intake trusts the sender, and
`data` the other fields. In memory it is a `ViewerEvent` (`features/events/schema.py`).

All three functions check events against one schema (`features.events.schema`). A fast reader accepts plainly valid
events in one step. Every other event goes to `features.events.validation.validate`, which checks field by field,
reports each error and accepts the rare valid forms: unusual client times, names with non-printing characters.

>>> sent = {"specversion": "1.0", "id": "e7", "source": "/app", "type": "mainstay.viewer.play", "subject": "v1",
...         "data": {"item_id": "film-3"}}
>>> event = accept(sent, now=1_767_225_600.0)
>>> event.kind, event.item_id, event == decode(encode(event))
('play', 'film-3', True)
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType, structs
from pydantic_core import from_json

from features.events.client_fields import canonical, has_plain_names, require_visible_names
from features.events.identity import event_key
from features.events.schema import (
    CLIENT_LATEST,
    IMPLIED_ACTIONS,
    KINDS,
    LATEST,
    MAX_BYTES,
    MAX_ENCODED_BYTES,
    PLACEMENT,
    REGION,
    SCHEMA,
    SOURCE,
    TYPE_PREFIX,
    Envelope,
    Kind,
    Trust,
    ViewerEvent,
    actions_of,
    clock_skew_reason,
    is_engine_impression,
    mismatch,
)
from features.events.validation import instant, matches, shorten, validate
from recsys.domain.errors import EventError, Finding
from recsys.domain.fields import RFC3339

__all__ = [
    "IMPLIED_ACTIONS",
    "KINDS",
    "LATEST",
    "MAX_BYTES",
    "TOKEN",
    "Kind",
    "ViewerEvent",
    "accept",
    "accept_json",
    "actions_of",
    "clock_skew_reason",
    "decode",
    "encode",
    "is_engine_impression",
]  # fmt: skip


class AcceptedEvent(NamedTuple):
    """An event with its id and `attributiontoken` as the client wrote them; the token is None if it is absent."""

    event: ViewerEvent
    sent_id: str
    token: object


def accept(raw: object, now: float) -> ViewerEvent:
    """Read an event from a client.

    raw  the parsed JSON value
    now  when the server received it, in unix seconds

    The event gets a new id made from its source and id (`features.events.identity`). Clients can set neither the
    server's time nor the context of an impression nor the trust. Raises EventError, whose findings use the client's
    field names.
    """
    parsed, at = canonical(_require_object(raw)), round(now, 6)
    try:
        event = _fast_event(msgspec.convert(parsed, _ClientEvent), at, {})
    except _FALLBACK_ERRORS:
        event = None
    event = event or validate(parsed, at)
    if not has_plain_names(event, parsed["id"]):
        require_visible_names(event, parsed["id"])
    return _check_client_event(event)


def accept_json(raw: bytes, now: float) -> AcceptedEvent:
    """Read an event from a client as JSON text; also return its original id and attribution token."""
    if len(raw) > MAX_BYTES:
        raise EventError(f"the event has {len(raw):,} bytes; at most {MAX_BYTES:,} are accepted")
    try:
        sent = _decode_client_event(raw)
        if (event := _fast_event(sent, round(now, 6), {})) and has_plain_names(event, sent.id):
            return AcceptedEvent(
                _check_client_event(event), sent.id, None if sent.attributiontoken is UNSET else sent.attributiontoken
            )
    except _FALLBACK_ERRORS:
        pass
    parsed = _require_object(_parse_json(raw))
    return AcceptedEvent(accept(parsed, now), parsed["id"], parsed.get(TOKEN))


def encode(event: ViewerEvent, checked: bool = False) -> bytes:
    """Encode an event for the stream. Raises EventError if `decode` could not read it back.

    checked  True if the event comes from `accept` and need not be verified again

    Events dated in the future are written all the same, so that nothing is lost; `decode` rejects them.
    """
    try:
        raw = _encoder.encode(_to_wire(event))
    except (
        UnicodeEncodeError,
        RecursionError,
        OverflowError,
        TypeError,
        ValueError,
    ) as error:  # caused by a value in the context
        raise EventError(f"event {shorten(event.id)} cannot be encoded: {error}") from error
    if len(raw) > MAX_ENCODED_BYTES:
        raise EventError(f"event {shorten(event.id)} has {len(raw):,} bytes; at most {MAX_ENCODED_BYTES:,} are allowed")
    if not checked:
        _read(raw)
    return raw


def decode(raw: bytes, allow_future: bool = False) -> ViewerEvent:
    """Decode a message of the stream. Raises EventError if it is not a valid event.

    allow_future  accept events whose client clock was too far ahead (`clock_skew_reason`)
    """
    if len(raw) > MAX_BYTES:
        raise EventError(f"the message has {len(raw):,} bytes; at most {MAX_BYTES:,} are allowed")
    event = _read(raw)
    if event.client_at is not None and not allow_future and (reason := clock_skew_reason(event)):
        raise EventError("the event is dated in the future", [Finding("time", reason)])
    return event


# -- fast readers: they accept a subset of what `validate` accepts, and return the same event

TOKEN = "attributiontoken"
"""The CloudEvents extension attribute that names the page on which the event happened."""

_FALLBACK_ERRORS = (
    ValueError,
    OverflowError,
    RecursionError,
)  # msgspec's errors are ValueErrors; on any of them `validate` decides
_ENVELOPE_FIELDS = ("id", "kind", "viewer_id", "at", "client_at", "trust")
_BRACKETS_MAX = 100  # with fewer brackets, a text cannot nest deeper than the parser used before `validate` allows


def _data_struct(name: str, context: Any) -> type[Struct]:
    """Define the struct of `data`: the event's fields outside the envelope."""
    fields: list[Any] = [
        (field.name, field.type, field.default)
        for field in structs.fields(ViewerEvent)
        if field.name not in (*_ENVELOPE_FIELDS, "context")
    ]
    fields.append(("context", *context))
    return msgspec.defstruct(name, fields, frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=True)


_ClientData: Any = _data_struct("ClientData", (Annotated[dict[str, Any], Meta(max_length=0)], {}))
_StoredData: Any = _data_struct("StoredData", (Raw, Raw()))
_WireData: Any = _data_struct("WireData", (dict[str, Any], {}))


class _ClientEvent(Envelope, frozen=True, gc=False, kw_only=True):
    """A client's event read from a parsed JSON value. Unknown envelope attributes are ignored."""

    data: _ClientData


class _ClientEventText(_ClientEvent, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True):
    """A client's event read from JSON text. Unknown attributes are rejected here, since msgspec would skip them without
    checking that they are valid JSON.
    """

    attributiontoken: str | UnsetType = UNSET


class _StoredEvent(Envelope, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True):
    receivedat: str
    data: _StoredData
    trust: Trust = "trusted"


class _WireEvent(Struct, frozen=True, gc=False):
    specversion: str
    id: str
    source: str
    type: str
    subject: str
    receivedat: datetime
    dataschema: str
    datacontenttype: str
    data: _WireData
    time: datetime | UnsetType
    trust: Trust | UnsetType


_decode_client_event = msgspec.json.Decoder(_ClientEventText).decode
_decode_stored_event = msgspec.json.Decoder(_StoredEvent).decode
_encoder = msgspec.json.Encoder()
_KIND_OF: dict[str, Kind] = {TYPE_PREFIX + kind: kind for kind in KINDS}  # type: ignore[misc]
_is_region = lru_cache(maxsize=4096)(partial(matches, pattern=re.compile(REGION)))
_is_placement = lru_cache(maxsize=4096)(partial(matches, pattern=re.compile(PLACEMENT)))
_TYPE_OF = {kind: TYPE_PREFIX + kind for kind in KINDS}


def _read(raw: bytes) -> ViewerEvent:
    """Read an event of the stream, whatever its client time. Raises EventError."""
    if raw.count(b"{") + raw.count(b"[") < _BRACKETS_MAX:
        try:
            stored = _decode_stored_event(raw)
            context_json = bytes(stored.data.context)
            context = from_json(context_json, allow_inf_nan=False) if context_json else {}
            if event := _fast_event(stored, _instant(stored.receivedat), context, stored.trust):
                return event
        except _FALLBACK_ERRORS:
            pass
    parsed = _require_object(_parse_json(raw))
    received = parsed.get("receivedat")
    if received is None:
        raise EventError(
            "unreadable event", [Finding("receivedat", "missing: the server sets this time when it accepts an event")]
        )
    return validate(parsed, instant(received, "receivedat"), is_stored=True)


def _fast_event(envelope: Any, at: float, context: object, trust: Trust = "trusted") -> ViewerEvent | None:
    """Return the event if it is plainly valid; return None or raise ValueError if `validate` has to decide."""
    data = envelope.data
    names = f"{envelope.id}{envelope.subject}{data.item_id}{data.session_id}{data.device_id}{data.request_id}"
    if data.items:
        names += "".join(data.items)
    if (
        not names.isprintable()  # excludes all white space except the blank
        or " " in names
        or not isinstance(context, dict)
        or not 0 <= at <= LATEST
        or (data.region and not _is_region(data.region))
        or (data.placement and not _is_placement(data.placement))
    ):
        return None
    client_at = None
    if envelope.time is not None:
        client_at = _instant(envelope.time)
        if not 0 <= client_at <= CLIENT_LATEST:
            return None
    event = ViewerEvent(
        id=event_key(envelope.source, envelope.id),
        kind=_KIND_OF[envelope.type],
        viewer_id=envelope.subject,
        at=at,
        client_at=client_at,
        session_id=data.session_id,
        device_id=data.device_id,
        screen=data.screen,
        region=data.region,
        placement=data.placement,
        request_id=data.request_id,
        item_id=data.item_id,
        slot=data.slot,
        position_s=data.position_s,
        duration_s=data.duration_s,
        percent=data.percent,
        rating=data.rating,
        items=data.items,
        attention=data.attention,
        trust=trust,
        context=context,
    )
    return None if mismatch(event) else event


def _instant(text: str) -> float:
    """Convert an RFC 3339 time to unix seconds. Raises ValueError."""
    if not RFC3339.fullmatch(text):
        raise ValueError("not an RFC 3339 time")
    return datetime.fromisoformat(text.upper()).timestamp()


def _to_wire(event: ViewerEvent) -> _WireEvent:
    data = _WireData(
        event.session_id,
        event.device_id,
        event.screen,
        event.region,
        event.placement,
        event.request_id,
        event.item_id,
        event.slot,
        event.position_s,
        event.duration_s,
        event.percent,
        event.rating,
        event.items,
        event.attention,
        event.context,
    )
    return _WireEvent(
        "1.0",
        event.id,
        SOURCE,
        _TYPE_OF.get(event.kind, event.kind),
        event.viewer_id,
        datetime.fromtimestamp(event.at, UTC),
        SCHEMA,
        "application/json",
        data,
        UNSET if event.client_at is None else datetime.fromtimestamp(event.client_at, UTC),
        UNSET if event.trust == "trusted" else event.trust,
    )


# -- checks around `validate`


def _parse_json(raw: bytes) -> object:
    try:
        return from_json(raw, allow_inf_nan=False)
    except ValueError as error:  # not UTF-8, not JSON, nested too deep
        raise EventError(f"not JSON: {error}") from error


def _require_object(parsed: object) -> dict[str, Any]:
    if not isinstance(parsed, dict):
        raise EventError(f"an event is a JSON object, not {shorten(parsed)}")
    return parsed


def _check_client_event(event: ViewerEvent) -> ViewerEvent:
    """Apply the rules that hold for clients only, beyond those of the stream."""
    if event.context:
        raise EventError("unreadable event", [Finding("data.context", "not allowed: only the engine sets it")])
    if event.kind == "survey" and event.rating is None:
        raise EventError("unreadable event", [Finding("data.rating", "a survey requires a rating, from 0 to 1")])
    return event
