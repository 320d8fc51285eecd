"""Validation of events: a finding for every invalid field, under the name that the sender used.

The checks and their messages are derived from the schema in `features.events.schema`. Validation takes several times as
long as the fast reader of `features.events.decode`, so it runs only for events that the fast reader does not accept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any, NamedTuple, get_args, get_origin

from msgspec import NODEFAULT, Meta, convert, defstruct, inspect, structs

from features.events.identity import event_key
from features.events.schema import (
    CLIENT_LATEST,
    LATEST,
    LIST_MAX,
    TYPE_PREFIX,
    Envelope,
    Trust,
    ViewerEvent,
    mismatch,
)
from recsys.domain.errors import EventError, Finding, first_findings, schema_fault
from recsys.domain.fields import RFC3339

FINDINGS_MAX, UNKNOWN_MAX = 20, 10
"""Maximum number of findings about an event, and of unknown fields among them."""


class _Check(NamedTuple):
    """The check of a field's values.

    type      structure of one entry, `value`, with its type and constraints (the fastest target of msgspec)
    expected  description of the valid values
    noun      noun for an unknown value in messages; empty for a field without a fixed set of values
    pattern   pattern that a text must match; None for other types
    element   the check of each element of a list; None for other types
    required  whether the field must be present
    """

    type: Any
    expected: str
    noun: str
    pattern: re.Pattern[str] | None
    element: _Check | None
    required: bool


def validate(envelope: Mapping[str, Any], at: float, is_stored: bool = False) -> ViewerEvent:
    """Return the event in this CloudEvent, received at unix second `at`. Raises EventError with all findings.

    is_stored  read the attributes of stored events that clients cannot set
    """
    stored = {name: envelope[name] for name in _STORED if name in envelope} if is_stored else {}
    data = envelope.get("data", {})
    findings = [*_faults_of(stored, _STORED, ""), *first_findings(_faults_in(envelope, data), FINDINGS_MAX)]
    client_at = None
    try:
        if (time := envelope.get("time")) is not None and (client_at := client_instant(time, "time")) is not None:
            client_at = min(round(client_at, 6), CLIENT_LATEST)
    except EventError as error:
        findings += error.findings
    if not 0 <= at <= LATEST:
        findings.append(Finding("receivedat", "expected a time from 1970 to 2061"))
    if findings:
        raise EventError("unreadable event", findings)
    event = ViewerEvent(
        id=event_key(envelope["source"], envelope["id"]),
        kind=envelope["type"].removeprefix(TYPE_PREFIX),
        viewer_id=envelope["subject"],
        at=round(at, 6),
        client_at=client_at,
        **stored,
        **{name: convert([value], _DATA[name].type).value for name, value in data.items()},
    )
    if conflict := mismatch(event):
        field, reason = conflict
        raise EventError("unreadable event", [Finding(f"data.{field}", reason)])
    return event


def _faults_in(envelope: Mapping[str, Any], data: object) -> Iterator[Finding]:
    """Yield a finding for each fault of an event, except those of its times."""
    yield from _faults_of(envelope, _ENVELOPE, "")
    if not isinstance(data, dict):
        yield Finding("data", "expected an object")
        return
    unknown = [name for name in data if name not in _DATA]
    for name in unknown[:UNKNOWN_MAX]:
        fault = f"belongs in the envelope, as {_ATTRIBUTE[name]}" if name in _ATTRIBUTE else "unknown field"
        yield Finding(f"data.{name}", fault)
    if len(unknown) > UNKNOWN_MAX:
        yield Finding("data", f"{len(unknown):,} unknown fields; the first {UNKNOWN_MAX} are listed")
    yield from _faults_of(data, _DATA, "data.")


def instant(text: object, field: str) -> float:
    """Return an RFC 3339 time in unix seconds; raises EventError with a finding for `field`."""
    if not isinstance(text, str) or not RFC3339.fullmatch(text):
        raise EventError("unreadable event", [Finding(field, f"{shorten(text)} is not an RFC 3339 time")])
    try:
        return datetime.fromisoformat(text.upper()).timestamp()
    except (ValueError, OverflowError) as error:  # 30 February, hour 25
        raise EventError("unreadable event", [Finding(field, f"{shorten(text)}: {error}")]) from error


def client_instant(text: object, field: str) -> float | None:
    """Return the time of a client's clock in unix seconds; None if it is before 1970 or has no time zone.

    Such an event is still accepted, because only the server's time is used for counting. A leap second is read as the
    second after it. Raises EventError if the value is not a time.

    >>> client_instant("1970-01-01T00:00:00+08:00", "time"), client_instant("1972-06-30T23:59:60Z", "time")
    (None, 78796800.0)
    """
    if not isinstance(text, str):
        return instant(text, field)
    has_zone = not RFC3339.fullmatch(f"{text}Z")
    text_utc = text if has_zone else f"{text}Z"
    leap = text_utc[16:19] == ":60" and RFC3339.fullmatch(text_utc) is not None
    at = instant(f"{text_utc[:17]}59{text_utc[19:]}" if leap else text_utc, field) + leap
    return at if has_zone and at >= 0 else None


def shorten(value: object) -> str:
    """Return a value in ASCII, cut to 60 characters: safe in an error message whatever the client sent."""
    return ascii(value)[:60]


# -- checks that are derived from the schema

_ATTRIBUTE = {"kind": "type", "viewer_id": "subject", "at": "receivedat", "client_at": "time", "id": "id"}
"""Fields of an event that the envelope carries -> name of the envelope attribute."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_NOUN = {"type": "kind", "dataschema": "schema"}


def _faults_of(values: Mapping[str, Any], checks: Mapping[str, _Check], prefix: str) -> Iterator[Finding]:
    """Yield a finding for each fault in these fields."""
    for name, check in checks.items():
        if name in values:
            yield from _faults(values[name], check, prefix + name)
        elif check.required:
            yield Finding(prefix + name, f"is missing; expected {check.expected}")


def _faults(value: object, check: _Check, field: str) -> Iterator[Finding]:
    """Yield a finding for each fault in a value; for a list, a finding for each invalid element."""
    if check.element and isinstance(value, list):
        elements = enumerate(value[:LIST_MAX])
        faults = (fault for n, item in elements for fault in _faults(item, check.element, f"{field}.{n}"))
        if (first := next(faults, None)) is not None:
            yield first
            yield from faults
            return
    try:
        convert([value], check.type)
    except (ValueError, OverflowError, RecursionError):
        unknown = f"unknown {check.noun} {shorten(value)}; " if check.noun else ""
        yield Finding(field, f"{unknown}expected {check.expected}")
        return
    if check.pattern and isinstance(value, str) and not matches(value, check.pattern):
        fault = {"type": "string_pattern_mismatch", "msg": "", "ctx": {"pattern": check.pattern.pattern}}
        text = schema_fault(fault)
        yield Finding(field, f"expected {check.expected}" if text.code == "bad_pattern" else text)


def matches(text: str, pattern: re.Pattern[str]) -> bool:
    """Whether a text matches a pattern and is valid Unicode: a JSON escape can encode half of a surrogate pair."""
    return pattern.fullmatch(text) is not None and (text.isascii() or not _SURROGATE.search(text))


def _check(name: str, type_: Any, required: bool = False) -> _Check:
    """Derive the check of a field from its type."""
    info, extra = _plain(inspect.type_info(type_))
    bare = get_args(type_)[0] if get_origin(type_) is Annotated else type_
    return _Check(
        defstruct(name, [("value", type_)], array_like=True),
        extra.get("description") or _expected(info),
        _NOUN.get(name, name) if isinstance(info, inspect.LiteralType | inspect.EnumType) else "",
        re.compile(extra["pattern"]) if "pattern" in extra else None,
        _check(name, get_args(bare)[0]) if isinstance(info, inspect.VarTupleType) else None,
        required,
    )


def _plain(info: inspect.Type) -> tuple[inspect.Type, dict[str, Any]]:
    """Return a type without `None` and metadata, and separately its metadata (description and pattern)."""
    if isinstance(info, inspect.UnionType):
        return _plain(next(item for item in info.types if not isinstance(item, inspect.NoneType)))
    if isinstance(info, inspect.Metadata):
        return info.type, {**(info.extra_json_schema or {}), **(info.extra or {})}
    return info, {}


def _expected(info: inspect.Type) -> str:
    """Return a description of the valid values of a type, for error messages."""
    match info:
        case inspect.EnumType(cls=cls):
            return f"one of {', '.join(str(item.value) for item in cls)}"
        case inspect.StrType(min_length=minimum, max_length=maximum):
            return f"a text of {f'{minimum} to' if minimum else 'at most'} {maximum} characters"
        case inspect.IntType(ge=low, le=high):
            return f"a whole number from {low:,} to {high:,}"
        case inspect.FloatType(ge=low, le=None, lt=high):
            return f"a number from {low:g} to less than {high:,}"
        case inspect.FloatType(ge=low, le=high):
            return f"a number from {low:g} to {high:g}"
        case inspect.VarTupleType(max_length=maximum):
            return f"a list of at most {maximum:,} elements"
        case inspect.DictType():
            return "an object"
    raise TypeError(f"no description for values of {info}")


_ENVELOPE = {
    field.name: _check(field.name, field.type, field.default is NODEFAULT)
    for field in structs.fields(Envelope)
    if field.name != "time"  # read by `client_instant`
}
_STORED = {"trust": _check("trust", Annotated[Trust, Meta(description="one of trusted, anonymous, excess")])}
_DATA = {
    field.name: _check(field.name, field.type)
    for field in structs.fields(ViewerEvent)
    if field.name not in _ATTRIBUTE and field.name not in _STORED
}
