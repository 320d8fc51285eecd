"""The thorough reader of events: it decides what is one, and names everything that is wrong with what is none.

It takes some 40 µs, so `features.events` asks it only about what its fast reader does not know to be sound.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

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
from pydantic_core import PydanticCustomError

from features.viewer_event import (
    ABOUT_AN_ITEM,
    CLIENT_LATEST,
    KINDS,
    LATEST,
    PLACEMENT,
    REGION,
    RFC3339,
    SCHEMA,
    SCHEMAS,
    TYPE_PREFIX,
    Kind,
    answer,
)
from recsys.catalog import Id
from recsys.errors import NAME, EventError, Finding, schema_fault
from recsys.types import Screen

Instant = Annotated[float, Field(strict=True, ge=0, le=LATEST), AfterValidator(lambda at: round(at, 6))]
ClientInstant = Annotated[float, Field(strict=True, ge=0), AfterValidator(lambda at: min(round(at, 6), CLIENT_LATEST))]
Seconds = Annotated[float, Field(strict=True, ge=0, lt=10**7, allow_inf_nan=False)]
Name = Annotated[str, StringConstraints(pattern=NAME, max_length=200)]


class EventForm(BaseModel):
    """The fields of `features.events.ViewerEvent` and what they may hold."""

    model_config = ConfigDict(extra="forbid")

    id: Id
    kind: Kind
    viewer_id: Id
    at: Instant
    client_at: ClientInstant | None = None
    session_id: Name = ""
    device_id: Name = ""
    screen: Screen | None = None
    region: Annotated[str, StringConstraints(pattern=REGION, max_length=100)] = ""
    placement: Annotated[str, StringConstraints(pattern=PLACEMENT, max_length=200)] = ""
    request_id: Name = ""
    item_id: Id | None = None
    slot: Annotated[int, Field(strict=True, ge=1, le=10_000)] | None = None
    position_s: Seconds | None = None
    duration_s: Seconds | None = None
    percent: Annotated[float, Field(strict=True, ge=0, le=100)] | None = None
    rating: Annotated[float, Field(strict=True, ge=0, le=1)] | None = None
    items: Annotated[tuple[Id, ...], Field(max_length=1000)] = ()
    attention: tuple[Annotated[float, Field(strict=True, ge=0, le=1)], ...] = ()
    context: dict[str, JsonValue] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _complete(self) -> EventForm:
        """What each kind must and must not say; `features.events` holds the same rules in short."""
        if self.kind == "impression":
            if not self.items:
                raise _wrong("items", "an impression names the items it showed")
            if len(set(self.items)) != len(self.items):
                raise _wrong("items", "a page shows an item once")
            if self.attention and len(self.attention) != len(self.items):
                raise _wrong("attention", f"one number per item: {len(self.items)}, not {len(self.attention)}")
        elif self.items or self.attention or self.context:
            raise _wrong("items", f"items, attention and context belong to impressions, not to a {self.kind}")
        elif self.item_id is None and self.kind in ABOUT_AN_ITEM:
            raise _wrong(
                "item_id", f"{'an' if self.kind[0] in 'aeiou' else 'a'} {self.kind} is about an item: say which"
            )
        elif self.kind == "ping" and self.position_s is None and self.percent is None:
            raise _wrong("position_s", "a ping says how far: position_s or percent")
        elif self.kind == "seek" and self.position_s is None:
            raise _wrong("position_s", "a seek says where to")
        if self.rating is not None and self.kind != "survey":
            raise _wrong("rating", f"a rating is the answer to a survey, not part of a {self.kind}")
        if self.percent is not None and self.kind == "survey":
            raise _wrong("percent", "a survey's answer is its rating, from 0 to 1")
        return self


def read_thoroughly(envelope: Mapping[str, Any], at: float) -> EventForm:
    """The event in this CloudEvent, received at `at`. Raises EventError with a finding for each wrong place."""
    _check(envelope)
    data = envelope.get("data", {})
    if not isinstance(data, dict):
        raise EventError("unreadable event", [Finding("data", "expected an object")])
    if _ENVELOPE & set(data):
        findings = [
            Finding(f"data.{n}", f"belongs into the envelope, as {_WIRE[n]}") for n in sorted(_ENVELOPE & set(data))
        ]
        raise EventError("unreadable event", findings)
    kind = envelope["type"].removeprefix(TYPE_PREFIX)
    sent = envelope.get("time")
    return checked(
        {
            **_upgraded(data, kind, envelope.get("dataschema", SCHEMA)),
            "id": envelope.get("id"),
            "kind": kind,
            "viewer_id": envelope.get("subject"),
            "at": at,
            "client_at": None if sent is None else client_instant(sent, "time"),
        }
    )


def checked(fields: Mapping[str, object]) -> EventForm:
    """These fields of an event, checked. Raises EventError with a finding for each wrong one, named as on the wire."""
    try:
        return EventForm.model_validate(fields)
    except ValidationError as error:
        raise EventError("unreadable event", _findings(error)) from error


def instant(text: object, where: str) -> float:
    """RFC 3339 -> unix seconds; raises EventError naming `where`."""
    if not isinstance(text, str) or not RFC3339.fullmatch(text):
        raise EventError("unreadable event", [Finding(where, f"{short(text)} is not an RFC 3339 time")])
    try:
        return datetime.fromisoformat(text.upper()).timestamp()
    except (ValueError, OverflowError) as error:  # 30 February, hour 25
        raise EventError("unreadable event", [Finding(where, f"{short(text)}: {error}")]) from error


def client_instant(text: object, where: str) -> float | None:
    """What a client's clock says, in unix seconds; None for a time before 1970 or without a zone, which no event is
    refused for: only the server's time counts. A leap second is the one after. Raises EventError for what is no time.

    >>> client_instant("1970-01-01T00:00:00+08:00", "time"), client_instant("1972-06-30T23:59:60Z", "time")
    (None, 78796800.0)
    """
    if not isinstance(text, str):
        return instant(text, where)
    zoned = not RFC3339.fullmatch(f"{text}Z")
    said = text if zoned else f"{text}Z"
    leap = said[16:19] == ":60" and RFC3339.fullmatch(said) is not None
    at = instant(f"{said[:17]}59{said[19:]}" if leap else said, where) + leap
    return at if zoned and at >= 0 else None


def short(thing: object) -> str:
    """A hostile value as it may stand in an error message."""
    return ascii(thing)[:60]


_ENVELOPE = {"id", "kind", "viewer_id", "at", "client_at"}  # fields that the envelope carries, not `data`
_WIRE = {"kind": "type", "viewer_id": "subject", "at": "receivedat", "client_at": "time", "id": "id"}


def _upgraded(data: dict[str, Any], kind: str, schema: str) -> dict[str, Any]:
    """The data of any version that is read, as the newest version says it."""
    if schema == SCHEMAS[0] and kind == "survey" and "rating" not in data:
        percent = data.get("percent")
        if isinstance(percent, int | float) and not isinstance(percent, bool) and 0 <= percent <= 100:
            return {**{name: said for name, said in data.items() if name != "percent"}, "rating": answer(percent)}
    return data


def _check(envelope: Mapping[str, Any]) -> None:
    """Raises EventError unless this is a CloudEvent of ours, in a version we read."""
    findings = []
    kind = envelope.get("type")
    if envelope.get("specversion") != "1.0":
        findings.append(Finding("specversion", 'expected "1.0" (CloudEvents)'))
    if not isinstance(kind, str) or not kind.startswith(TYPE_PREFIX) or kind[len(TYPE_PREFIX) :] not in KINDS:
        findings.append(Finding("type", f"unknown kind {short(kind)}; expected {TYPE_PREFIX}KIND, {', '.join(KINDS)}"))
    if not isinstance(envelope.get("source"), str) or not envelope["source"]:
        findings.append(Finding("source", "missing: who sends this, as a URI such as /apps/tv"))
    if envelope.get("dataschema", SCHEMA) not in SCHEMAS:
        read = " and ".join(SCHEMAS)
        findings.append(Finding("dataschema", f"{short(envelope['dataschema'])} is not read here, {read} are"))
    if envelope.get("datacontenttype", "application/json") != "application/json":
        findings.append(Finding("datacontenttype", "expected application/json"))
    if findings:
        raise EventError("unreadable event", findings)


def _wrong(field: str, message: str) -> PydanticCustomError:
    """A failed rule across fields; the field travels in the context, where `_findings` looks for it."""
    return PydanticCustomError("kind", "{message}", {"field": field, "message": message})


def _findings(error: ValidationError) -> list[Finding]:
    """Pydantic's errors under the names that the sender wrote."""
    findings = []
    for one in error.errors(include_url=False, include_input=False):
        path = [str(part) for part in one["loc"]] or [one.get("ctx", {}).get("field", "")]
        where = ".".join([_WIRE.get(path[0], f"data.{path[0]}"), *path[1:]])
        findings.append(Finding(where, schema_fault(one)))
    return findings
