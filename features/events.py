"""What viewers do, on the wire and in memory.

On the wire an event is a CloudEvents 1.0 JSON object: `type` says what happened, `subject` who did it, `time` when by
the client's clock, `receivedat` when by the server's (which is the one that counts), `data` the rest. In memory it is a
`ViewerEvent`. Three doors: `accept` for what a client sends, `encode` and `decode` for the stream.

>>> sent = {"specversion": "1.0", "id": "e7", "source": "/app", "type": "mainstay.viewer.play", "subject": "v1",
...         "data": {"item_id": "film-3"}}
>>> event = accept(sent, now=1_767_225_600.0)
>>> event.kind, event.item_id, event == decode(encode(event))
('play', 'film-3', True)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeAlias, get_args

import msgspec
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError, from_json

from recsys.catalog import Id
from recsys.errors import EventError, Finding, worded
from recsys.types import ACTIONS, Screen, Surface

TYPE_PREFIX = "mainstay.viewer."
SCHEMA = "urn:mainstay:viewer-event:1"
SOURCE = "/mainstay"
MAX_BYTES = 1 << 20
LATEST = 2.9e9  # year 2061: up to here doubles tell microseconds apart and hold every forward-decayed count

Kind: TypeAlias = Literal[
    "impression", "click", "open", "play", "pause", "seek", "ping", "complete", "like", "dislike", "hide",
    "share", "comment", "favourite", "follow", "search", "survey", "handoff", "alert_ack",
]  # fmt: skip
KINDS: tuple[str, ...] = get_args(Kind)

IMPLIES: Mapping[str, tuple[str, ...]] = {
    "play": ("play",),
    "complete": ("play", "complete"),
    "like": ("play", "complete", "like"),
    "dislike": ("dislike",),
}
"""Event kind -> the actions of `recsys.types.ACTIONS` it stands for: who likes has seen it to the end, who has seen it
to the end has played it. Other kinds stand for none."""

_ABOUT_AN_ITEM = frozenset(KINDS) - {"impression", "follow", "search", "survey", "handoff", "alert_ack"}
_PLACEMENT = (
    r"^([a-z0-9_]+(\.[a-z0-9_]+)*-(" + "|".join(Screen) + ")-(" + "|".join(Surface) + "))?$"
)  # empty, or OUTLET-SCREEN-SURFACE

Instant = Annotated[float, Field(strict=True, ge=0, le=LATEST), AfterValidator(lambda at: round(at, 6))]
Seconds = Annotated[float, Field(strict=True, ge=0, lt=10**7, allow_inf_nan=False)]
Name = Annotated[str, StringConstraints(pattern=r"^\S*$", max_length=200)]


class ViewerEvent(BaseModel):
    """One thing a viewer did or, for an impression, one page a viewer was given. Times are unix seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Id  # unique per viewer; a repeated id is the same event sent twice
    kind: Kind
    viewer_id: Id
    at: Instant  # server time
    client_at: Instant | None = None
    session_id: Name = ""
    device_id: Name = ""
    screen: Screen | None = None
    region: Annotated[str, StringConstraints(pattern=r"^([a-z0-9_]+(\.[a-z0-9_]+)*)?$", max_length=100)] = ""
    placement: Annotated[str, StringConstraints(pattern=_PLACEMENT, max_length=200)] = ""
    request_id: Name = ""
    item_id: Id | None = None
    slot: Annotated[int, Field(strict=True, ge=1, le=10_000)] | None = None
    position_s: Seconds | None = None
    duration_s: Seconds | None = None
    percent: Annotated[float, Field(strict=True, ge=0, le=100)] | None = None
    items: Annotated[tuple[Id, ...], Field(max_length=1000)] = ()  # of an impression, in slot order
    attention: tuple[Annotated[float, Field(strict=True, ge=0, le=1)], ...] = ()  # chance that each was looked at
    context: dict[str, JsonValue] = Field(
        default_factory=dict
    )  # of an impression: seed, versions, rung, propensity, features as used

    @model_validator(mode="after")
    def _complete(self) -> ViewerEvent:
        """What each kind must and must not say."""
        if self.kind == "impression":
            if not self.items:
                raise _wrong("items", "an impression names the items it showed")
            if len(set(self.items)) != len(self.items):
                raise _wrong("items", "a page shows an item once")
            if self.attention and len(self.attention) != len(self.items):
                raise _wrong("attention", f"one number per item: {len(self.items)}, not {len(self.attention)}")
        elif self.items or self.attention or self.context:
            raise _wrong("items", f"items, attention and context belong to impressions, not to a {self.kind}")
        elif self.item_id is None and self.kind in _ABOUT_AN_ITEM:
            raise _wrong("item_id", f"a {self.kind} is about an item: say which")
        elif self.kind == "ping" and self.position_s is None and self.percent is None:
            raise _wrong("position_s", "a ping says how far: position_s or percent")
        elif self.kind == "seek" and self.position_s is None:
            raise _wrong("position_s", "a seek says where to")
        return self


def actions_of(event: ViewerEvent) -> tuple[str, ...]:
    """The actions of `recsys.types.ACTIONS` this event stands for, in their order."""
    return IMPLIES.get(event.kind, ())


def accept(raw: object, now: float) -> ViewerEvent:
    """An event as a client sent it (a parsed JSON value), received at `now` (unix seconds, the server's clock).

    A client cannot set the server's time, nor the context of an impression: what was shown and why is written by the
    engine alone. Raises EventError whose findings name the fields as the client wrote them.
    """
    event = _read(_object(raw), now)
    if event.context:
        raise EventError("unreadable event", [Finding("data.context", "only the engine writes it")])
    return event


def encode(event: ViewerEvent) -> bytes:
    """The wire form of an event, for the stream. Raises EventError above 1 MiB or for text that is not Unicode."""
    data = event.model_dump(exclude_defaults=True, exclude=_ENVELOPE)
    envelope = {
        "specversion": "1.0",
        "id": event.id,
        "source": SOURCE,
        "type": TYPE_PREFIX + event.kind,
        "subject": event.viewer_id,
        "receivedat": _rfc3339(event.at),
        "dataschema": SCHEMA,
        "datacontenttype": "application/json",
        "data": data,
    }
    if event.client_at is not None:
        envelope["time"] = _rfc3339(event.client_at)
    try:
        raw = msgspec.json.encode(envelope)
    except (UnicodeEncodeError, RecursionError, OverflowError, TypeError) as error:  # hidden in an impression's context
        raise EventError(f"event {event.id} cannot be written: {error}") from error
    if len(raw) > MAX_BYTES:
        raise EventError(f"event {event.id} has {len(raw):,} bytes; at most {MAX_BYTES:,} are taken")
    return raw


def decode(raw: bytes) -> ViewerEvent:
    """The event in these bytes of the stream. Raises EventError for whatever else they are."""
    if len(raw) > MAX_BYTES:
        raise EventError(f"the message has {len(raw):,} bytes; at most {MAX_BYTES:,} are taken")
    try:
        parsed = from_json(raw, allow_inf_nan=False)
    except ValueError as error:  # not UTF-8, not JSON, nested too deep
        raise EventError(f"not JSON: {error}") from error
    envelope = _object(parsed)
    received = envelope.get("receivedat")
    if received is None:
        raise EventError("unreadable event", [Finding("receivedat", "missing: only the server's time counts")])
    return _read(envelope, _instant(received, "receivedat"))


_ENVELOPE = {"id", "kind", "viewer_id", "at", "client_at"}  # fields that the envelope carries, not `data`
_WIRE = {"kind": "type", "viewer_id": "subject", "at": "receivedat", "client_at": "time", "id": "id"}


def _read(envelope: Mapping[str, Any], at: float) -> ViewerEvent:
    """Checks the envelope, then the fields; raises EventError with every finding about the fields."""
    _check(envelope)
    data = envelope.get("data", {})
    if not isinstance(data, dict):
        raise EventError("unreadable event", [Finding("data", "expected an object")])
    if not _ENVELOPE.isdisjoint(data):
        findings = [
            Finding(f"data.{n}", f"is said by `{_WIRE[n]}` of the envelope") for n in sorted(_ENVELOPE & set(data))
        ]
        raise EventError("unreadable event", findings)
    sent = envelope.get("time")
    try:
        return ViewerEvent.model_validate(
            {
                **data,
                "id": envelope.get("id"),
                "kind": envelope["type"].removeprefix(TYPE_PREFIX),
                "viewer_id": envelope.get("subject"),
                "at": at,
                "client_at": None if sent is None else _instant(sent, "time"),
            }
        )
    except ValidationError as error:
        raise EventError("unreadable event", _findings(error)) from error


def _check(envelope: Mapping[str, Any]) -> None:
    """Raises EventError unless this is a CloudEvent of ours, in the version we read."""
    findings = []
    kind = envelope.get("type")
    if envelope.get("specversion") != "1.0":
        findings.append(Finding("specversion", 'expected "1.0" (CloudEvents)'))
    if not isinstance(kind, str) or not kind.startswith(TYPE_PREFIX) or kind[len(TYPE_PREFIX) :] not in _KINDS:
        findings.append(Finding("type", f"unknown kind {_short(kind)}; expected {TYPE_PREFIX}KIND, {', '.join(KINDS)}"))
    if not isinstance(envelope.get("source"), str) or not envelope["source"]:
        findings.append(Finding("source", "missing: who sends this, as a URI such as /apps/tv"))
    if envelope.get("dataschema", SCHEMA) != SCHEMA:
        findings.append(Finding("dataschema", f"{_short(envelope['dataschema'])} is not read here, {SCHEMA} is"))
    if envelope.get("datacontenttype", "application/json") != "application/json":
        findings.append(Finding("datacontenttype", "expected application/json"))
    if findings:
        raise EventError("unreadable event", findings)


_KINDS = frozenset(KINDS)
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def _instant(text: object, where: str) -> float:
    """RFC 3339 -> unix seconds; raises EventError naming `where`."""
    if not isinstance(text, str) or not _RFC3339.fullmatch(text):
        raise EventError("unreadable event", [Finding(where, f"{_short(text)} is not an RFC 3339 time")])
    try:
        return datetime.fromisoformat(text.upper()).timestamp()
    except (ValueError, OverflowError) as error:  # 30 February, hour 25
        raise EventError("unreadable event", [Finding(where, f"{_short(text)}: {error}")]) from error


def _rfc3339(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


def _object(parsed: object) -> dict[str, Any]:
    if not isinstance(parsed, dict):
        raise EventError(f"an event is a JSON object, not {_short(parsed)}")
    return parsed


def _wrong(field: str, message: str) -> PydanticCustomError:
    """A failed rule across fields; the field travels in the context, where `_findings` looks for it."""
    return PydanticCustomError("kind", "{message}", {"field": field, "message": message})


def _findings(error: ValidationError) -> list[Finding]:
    """Pydantic's errors under the names that the sender wrote."""
    findings = []
    for one in error.errors(include_url=False, include_input=False):
        path = [str(part) for part in one["loc"]] or [one.get("ctx", {}).get("field", "")]
        where = ".".join([_WIRE.get(path[0], f"data.{path[0]}"), *path[1:]])
        findings.append(Finding(where, worded(one)))
    return findings


def _short(thing: object) -> str:
    """A hostile value as it may stand in an error message."""
    return ascii(thing)[:60]


assert set(ACTIONS) == {action for actions in IMPLIES.values() for action in actions}
