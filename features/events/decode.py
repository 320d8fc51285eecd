"""What viewers do, on the wire and in memory.

On the wire an event is a CloudEvents 1.0 JSON object: `type` says what happened, `subject` who did it, `time` when by
the client's clock, `receivedat` when by the server's (which is the one that counts), `data` the rest. In memory it is a
`ViewerEvent` (`features/events/schema.py`). Three doors: `accept` for what a client sends, `encode` and `decode` for
the stream.

All three check events by one schema (`features.events.schema`). A fast reader checks a whole event in one step and
accepts what is plainly valid. Every other event goes to `features.events.validation.validate`, which checks field by
field, names each fault and accepts the rare valid forms: unusual client times, names with characters that do not print.

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
    RFC3339,
    SCHEMA,
    SOURCE,
    TYPE_PREFIX,
    Envelope,
    Kind,
    ViewerEvent,
    actions_of,
    clock_skew_reason,
    is_engine_impression,
    mismatch,
)
from features.events.validation import instant, matches, shorten, validate
from recsys.domain.errors import EventError, Finding

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


class Accepted(NamedTuple):
    """An event; its id and its `attributiontoken` as the client wrote them, None where it has no token."""

    event: ViewerEvent
    sent_id: str
    token: object


def accept(raw: object, now: float) -> ViewerEvent:
    """An event as a client sent it (a parsed JSON value), received at `now` (unix seconds, the server's clock).

    It is known by its source and id from then on (`features.events.identity`). A client cannot set the server's time,
    nor the context of an impression: what was shown and why is written by the
    engine alone. Raises EventError whose findings name the fields as the client wrote them.
    """
    parsed, at = _object(raw), round(now, 6)
    try:
        if event := _fast_event(msgspec.convert(parsed, _Sent), at, {}):
            return _accepted(event)
    except _DOUBT:
        pass
    return _accepted(validate(parsed, at))


def accept_json(raw: bytes, now: float) -> Accepted:
    """The same for an event as JSON text, and with it what its sender calls it and by which page."""
    try:
        sent = _sent(raw)
        if event := _fast_event(sent, round(now, 6), {}):
            return Accepted(
                _accepted(event), sent.id, None if sent.attributiontoken is UNSET else sent.attributiontoken
            )
    except _DOUBT:
        pass
    parsed = _object(_parsed(raw))
    return Accepted(accept(parsed, now), parsed["id"], parsed.get(TOKEN))


def encode(event: ViewerEvent, checked: bool = False) -> bytes:
    """The wire form of an event, for the stream. Raises EventError for what `decode` could not read back.

    Exempt are events from the future: they are written, so that nothing is lost, and `decode` refuses them.
    `checked`: the event comes from `accept` and need not be read back again.
    """
    try:
        raw = _encoder.encode(_as_written(event))
    except (UnicodeEncodeError, RecursionError, OverflowError, TypeError, ValueError) as error:  # hidden in a context
        raise EventError(f"event {shorten(event.id)} cannot be written: {error}") from error
    if len(raw) > MAX_ENCODED_BYTES:
        raise EventError(f"event {shorten(event.id)} has {len(raw):,} bytes; at most {MAX_ENCODED_BYTES:,} are taken")
    if not checked:
        _read(raw)
    return raw


def decode(raw: bytes, future: bool = False) -> ViewerEvent:
    """The event in these bytes of the stream. Raises EventError for whatever else they are.

    Also for events from the future (`ahead`), unless `future` says that they are wanted.
    """
    if len(raw) > MAX_BYTES:
        raise EventError(f"the message has {len(raw):,} bytes; at most {MAX_BYTES:,} are taken")
    event = _read(raw)
    if event.client_at is not None and not future and (why := clock_skew_reason(event)):
        raise EventError("an event from the future", [Finding("time", why)])
    return event


# -- the fast readers: they accept only what `validate` would accept, and return the same event

TOKEN = "attributiontoken"
"""CloudEvents extension attribute by which an event names the page it came from."""

_DOUBT = (ValueError, OverflowError, RecursionError)  # msgspec's errors are ValueErrors; `validate` says why
_IN_ENVELOPE = ("id", "kind", "viewer_id", "at", "client_at")
_BRACKETS_MAX = 100  # fewer cannot nest deeper than the parser before `validate` follows


def _data_struct(name: str, context: Any) -> type[Struct]:
    """The event's fields outside the envelope, as they stand under `data`."""
    fields: list[Any] = [
        (field.name, field.type, field.default)
        for field in structs.fields(ViewerEvent)
        if field.name not in (*_IN_ENVELOPE, "context")
    ]
    fields.append(("context", *context))
    return msgspec.defstruct(name, fields, frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=True)


_SentData: Any = _data_struct("SentData", (Annotated[dict[str, Any], Meta(max_length=0)], {}))
_StoredData: Any = _data_struct("StoredData", (Raw, Raw()))
_WrittenData: Any = _data_struct("WrittenData", (dict[str, Any], {}))


class _Sent(Envelope, frozen=True, gc=False, kw_only=True):
    """For parsed values: other attributes of the envelope are valid JSON and are ignored."""

    data: _SentData


class _SentText(_Sent, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True):
    """For JSON text. msgspec would skip unknown attributes without checking that they are JSON, so they are refused."""

    attributiontoken: str | UnsetType = UNSET


class _Stored(Envelope, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True):
    receivedat: str
    data: _StoredData


class _Written(Struct, frozen=True, gc=False):
    specversion: str
    id: str
    source: str
    type: str
    subject: str
    receivedat: datetime
    dataschema: str
    datacontenttype: str
    data: _WrittenData
    time: datetime | UnsetType


_sent = msgspec.json.Decoder(_SentText).decode
_stored = msgspec.json.Decoder(_Stored).decode
_encoder = msgspec.json.Encoder()
_KIND_OF: dict[str, Kind] = {TYPE_PREFIX + kind: kind for kind in KINDS}  # type: ignore[misc]
_is_region = lru_cache(maxsize=4096)(partial(matches, pattern=re.compile(REGION)))
_is_placement = lru_cache(maxsize=4096)(partial(matches, pattern=re.compile(PLACEMENT)))
_TYPE_OF = {kind: TYPE_PREFIX + kind for kind in KINDS}


def _read(raw: bytes) -> ViewerEvent:
    """An event of the stream, whenever its client believes it happened. Raises EventError."""
    if raw.count(b"{") + raw.count(b"[") < _BRACKETS_MAX:
        try:
            stored = _stored(raw)
            said = bytes(stored.data.context)
            context = from_json(said, allow_inf_nan=False) if said else {}
            if event := _fast_event(stored, _instant(stored.receivedat), context):
                return event
        except _DOUBT:
            pass
    parsed = _object(_parsed(raw))
    received = parsed.get("receivedat")
    if received is None:
        raise EventError("unreadable event", [Finding("receivedat", "missing: only the server's time counts")])
    return validate(parsed, instant(received, "receivedat"))


def _fast_event(envelope: Any, at: float, context: object) -> ViewerEvent | None:
    """Return the event if it is plainly valid; None, or a ValueError, where `validate` has to decide."""
    data = envelope.data
    names = f"{envelope.id}{envelope.subject}{data.item_id}{data.session_id}{data.device_id}{data.request_id}"
    if data.items:
        names += "".join(data.items)
    if (
        not names.isprintable()  # which excludes all white space but the blank
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
        context=context,
    )
    return None if mismatch(event) else event


def _instant(text: str) -> float:
    """RFC 3339 -> unix seconds; raises ValueError."""
    if not RFC3339.fullmatch(text):
        raise ValueError("not an RFC 3339 time")
    return datetime.fromisoformat(text.upper()).timestamp()


def _as_written(event: ViewerEvent) -> _Written:
    data = _WrittenData(
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
    return _Written(
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
    )


# -- before `validate`, and after it


def _parsed(raw: bytes) -> object:
    try:
        return from_json(raw, allow_inf_nan=False)
    except ValueError as error:  # not UTF-8, not JSON, nested too deep
        raise EventError(f"not JSON: {error}") from error


def _object(parsed: object) -> dict[str, Any]:
    if not isinstance(parsed, dict):
        raise EventError(f"an event is a JSON object, not {shorten(parsed)}")
    return parsed


def _accepted(event: ViewerEvent) -> ViewerEvent:
    """What clients must say, and must not, beyond what the stream may hold."""
    if event.context:
        raise EventError("unreadable event", [Finding("data.context", "only the engine writes it")])
    if event.kind == "survey" and event.rating is None:
        raise EventError("unreadable event", [Finding("data.rating", "a survey's answer is its rating, from 0 to 1")])
    return event
