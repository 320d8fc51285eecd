"""The tree of all errors that Mainstay raises. `serving/schemas/problems.py` maps them to HTTP responses.

MainstayError
 ├── InvalidInput           an input is wrong; `.findings` name each field and its problem
 │    ├── PolicyError       a policy that cannot be published
 │    ├── EventError        an event that cannot be read
 │    ├── ItemError         a catalog item that cannot be read
 │    ├── PageTokenError    a page token that is broken, altered, or issued for another list or placement
 │    └── SettingsError     a flag or MAINSTAY_* variable that cannot be used
 ├── NotFound               an item, outlet, placement or policy version that does not exist
 ├── Conflict               a write that lost a race or repeats a version number
 ├── BundleError            model bytes that must not be served (truncated, altered, wrong shape, NaN, pickled)
 ├── DamagedData            stored bytes that changed since they were written; a copy or a log may repair them
 └── Unavailable            a store, stream or registry that does not respond; the caller may retry later
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from recsys.messages import ENGLISH, InvalidValue, Message, as_message, message

Level = Literal["error", "warning", "hint"]

FINDINGS_MAX = 100
"""Maximum number of findings of an error. Listing more takes longer than finding them, and nobody reads them."""

ID = r"^[^\s\x00-\x1f\x7f-\x9f]+$"
NAME = r"^[^\s\x00-\x1f\x7f-\x9f]*$"
"""Patterns of a required and an optional name: no white space and no control characters."""

_PATTERNS = {
    r"^[a-z0-9_]+(\.[a-z0-9_]+)*$": "bad_code",
    r"^([a-z0-9_]+(\.[a-z0-9_]+){0,7})?$": "bad_region",
    r"^[^/\s][^/]*(/[^/]+)*$": "bad_label",
    ID: "bad_name",
    NAME: "bad_name",
    r"^[^\s@]+$": "bad_control_id",
    r"^[a-z0-9]+(-[a-z0-9]+)*$": "bad_profile_name",
}
"""Pattern of a name -> code of the message about a name that does not match."""

_FAULTS = {
    "missing": "field_missing",
    "extra_forbidden": "field_unknown",
    "finite_number": "number_not_finite",
    "bool_type": "not_a_boolean",
    "bool_parsing": "not_a_boolean",
    "int_type": "not_a_whole_number",
    "int_parsing": "not_a_whole_number",
    "int_from_float": "not_a_whole_number",
    "float_type": "not_a_number",
    "float_parsing": "not_a_number",
    "string_type": "not_a_text",
    "list_type": "not_a_list",
    "tuple_type": "not_a_list",
    "dict_type": "not_fields",
    "model_type": "not_fields",
    "model_attributes_type": "not_fields",
    "datetime_type": "not_a_time",
    "datetime_parsing": "not_a_time",
    "datetime_from_date_parsing": "not_a_time",
    "timezone_aware": "time_without_offset",
}
"""Type of a pydantic error -> code of the message."""

_LIMITS = {
    "greater_than": ("number_not_greater", "gt", "limit"),
    "greater_than_equal": ("number_too_small", "ge", "limit"),
    "less_than": ("number_not_less", "lt", "limit"),
    "less_than_equal": ("number_too_large", "le", "limit"),
    "too_short": ("too_short", "min_length", "minimum"),
    "too_long": ("too_long", "max_length", "maximum"),
    "string_too_short": ("text_too_short", "min_length", "minimum"),
    "string_too_long": ("text_too_long", "max_length", "maximum"),
}
"""Type of a pydantic error -> code of the message, key of the limit in the error's context, and the message parameter
that holds it."""


@dataclass(frozen=True)
class Finding:
    """A problem in an input, described in the terms of its author.

    where   path of the field, such as `controls[2].at_least`; empty for the input as a whole
    text    the message; plain text gets the code `text`
    level   error    the input cannot be accepted
            warning  the input is accepted, but will not work as written
            hint     a part of the input has no visible effect
    """

    where: str
    text: Message | str
    level: Level = "error"

    @property
    def code(self) -> str:
        """Return the stable code of the message."""
        return as_message(self.text).code

    @property
    def params(self) -> dict[str, Any]:
        """Return the parameters of the message as JSON values."""
        params: dict[str, Any] = as_message(self.text).model_dump()["params"]
        return params

    @property
    def message(self) -> str:
        """Return the message in English."""
        return str(self.text)

    def __str__(self) -> str:
        return f"{self.where}: {self.text}" if self.where else self.message


def schema_fault(fault: Mapping[str, Any], value: object = None) -> Message:
    """Return the message about a schema error (an entry of pydantic's `errors()`).

    value  the rejected text or number, which the message may repeat; None if it must not be repeated

    >>> str(schema_fault({"type": "extra_forbidden", "msg": "Extra inputs are not permitted"}))
    'unknown field'
    >>> str(schema_fault({"type": "less_than_equal", "ctx": {"le": 50}, "msg": ""}))
    'must be at most 50'
    """
    kind, context = str(fault["type"]), fault.get("ctx", {})
    but = None if value is None else message("not_value", value=value)
    if kind == "string_pattern_mismatch":
        pattern = context["pattern"]
        return Message(code=_PATTERNS[pattern]) if pattern in _PATTERNS else message("bad_pattern", pattern=pattern)
    if kind in ("literal_error", "enum"):
        options = re.findall(r"'([^']*)'", context["expected"]) or [context["expected"]]
        return message("not_an_option", options=options, but=but)
    if kind in _LIMITS:
        code, limit, name = _LIMITS[kind]
        return Message(code=code, params={name: context[limit]})
    if kind in _FAULTS:
        code = _FAULTS[kind]
        return Message(code=code, params={"but": but} if "{but}" in ENGLISH[code] else {})
    if isinstance(error := context.get("error"), InvalidValue):
        return error.text
    if kind == "json_invalid":
        return message("not_json", problem=str(context["error"]))
    return as_message(str(fault["msg"]).removeprefix("Value error, ").removeprefix("Input "))


class MainstayError(Exception):
    """The root of all errors that this engine raises on purpose.

    The argument is a `Message`, or plain text where the text is never translated.
    """


def first_findings(findings: Iterable[Finding], maximum: int = FINDINGS_MAX) -> tuple[Finding, ...]:
    """Return the first findings, and after `maximum` of them one that says that there are more.

    >>> [finding.message for finding in first_findings((Finding("a", "wrong") for _ in range(5)), 2)]
    ['wrong', 'wrong', 'there are more problems; the first 2 are listed']
    """
    remaining = iter(findings)
    first = tuple(islice(remaining, maximum))
    if next(remaining, None) is None:
        return first
    return (*first, Finding("", message("findings_more", listed=maximum)))


class InvalidInput(MainstayError):
    """An input that cannot be accepted; `findings` list all its problems, not only the first, up to FINDINGS_MAX."""

    def __init__(self, text: Message | str, findings: Iterable[Finding] = ()) -> None:
        self.findings = first_findings(findings)
        super().__init__("; ".join(map(str, [text, *self.findings])))
        self.text = as_message(text)

    @property
    def message(self) -> str:
        """Return the message in English, without the findings."""
        return str(self.text)


class PolicyError(InvalidInput):
    """A policy that cannot be published."""


class EventError(InvalidInput):
    """An event that cannot be read."""


class ItemError(InvalidInput):
    """A catalog item that cannot be read."""


class PageTokenError(InvalidInput):
    """A page token that is broken, altered, or issued for another list, placement or viewer."""


class SettingsError(InvalidInput):
    """A flag or an environment variable that cannot be used."""


class NotFound(MainstayError):
    """An item, outlet, placement or policy version that does not exist."""


class Conflict(MainstayError):
    """A write that lost a race or repeats a version number."""


class BundleError(MainstayError):
    """Model bytes that must not be served."""


class DamagedData(MainstayError):
    """Stored bytes that are not those that were written: their checksum or their format is wrong."""


class Unavailable(MainstayError):
    """A store, stream or registry that does not respond; a later retry may succeed."""
