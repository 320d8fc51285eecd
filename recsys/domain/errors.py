"""Every error of Mainstay in one tree; `serving/schemas/problems.py` maps it to HTTP in one table.

MainstayError
 ├── InvalidInput           something said from outside is wrong; `.findings` name the places
 │    ├── PolicyError       a policy that cannot be published
 │    ├── EventError        an event that cannot be read
 │    ├── ItemError         a catalogue item that cannot be read
 │    ├── PageTokenError    a page token that is broken, altered or of another list or placement
 │    └── SettingsError     a flag, a MAINSTAY_* variable or a key of the TOML file that cannot be used
 ├── NotFound               an item, outlet, placement or policy version that does not exist
 ├── Conflict               a write that lost a race or repeats a version
 ├── BundleError            model bytes that must not be served (truncated, altered, wrong shape, NaN, pickled)
 └── Unavailable            a store, stream or registry that does not answer; the caller may try again later
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["error", "warning", "hint"]

ID = r"^[^\s\x00-\x1f\x7f-\x9f]+$"
NAME = r"^[^\s\x00-\x1f\x7f-\x9f]*$"
"""Names of things, one that must be there and one that may be empty: nothing in them that nobody sees."""

SHAPES = {
    r"^[a-z0-9_]+(\.[a-z0-9_]+)*$": "lower-case letters and digits, parted by dots, such as cn.zj.hz",
    r"^([a-z0-9_]+(\.[a-z0-9_]+){0,7})?$": "lower-case letters and digits, parted by dots, such as cn.zj.hz; "
    "at most eight levels",
    r"^[^/\s][^/]*(/[^/]+)*$": "a label, its levels parted by single slashes, such as news/politics",
    ID: "neither spaces nor control characters",
    NAME: "neither spaces nor control characters",
    r"^[^\s@]+$": "neither spaces nor @",
    r"^[a-z0-9]+(-[a-z0-9]+)*$": "a profile's name, such as mainstream-guidance",
}
"""Patterns of names, in words."""


@dataclass(frozen=True)
class Finding:
    """One thing wrong with an input: where (a path such as `controls[2].at_least`) and what, in its author's words.

    level   error    it cannot be accepted as it is
            warning  it can, but will not do what it says
            hint     it does nothing, or nothing that shows
    """

    where: str
    message: str
    level: Level = "error"

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


def describe_fault(fault: Mapping[str, Any]) -> str:
    """One fault that a schema found (pydantic's `errors()`), in the words of whoever wrote the input.

    >>> worded({"type": "extra_forbidden", "msg": "Extra inputs are not permitted"})
    'unknown field'
    >>> worded({"type": "less_than_equal", "msg": "Input should be less than or equal to 50"})
    'should be less than or equal to 50'
    """
    plain = {"extra_forbidden": "unknown field", "missing": "is missing"}
    said = str(fault["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    if fault["type"] == "string_pattern_mismatch":
        pattern = fault["ctx"]["pattern"]
        return f"does not read as one: {SHAPES.get(pattern, pattern)}"
    return plain.get(str(fault["type"]), said)


class MainstayError(Exception):
    """Root of all errors this engine raises on purpose."""


class InvalidInput(MainstayError):
    """Input from outside that cannot be accepted; `findings` name every place, not only the first."""

    def __init__(self, message: str, findings: Iterable[Finding] = ()) -> None:
        self.findings = tuple(findings)
        super().__init__("; ".join([message, *map(str, self.findings)]))
        self.message = message


class PolicyError(InvalidInput):
    """A policy that cannot be published."""


class EventError(InvalidInput):
    """An event that cannot be read."""


class ItemError(InvalidInput):
    """A catalogue item that cannot be read."""


class PageTokenError(InvalidInput):
    """A page token that is broken, altered, or belongs to another list, placement or viewer."""


class SettingsError(InvalidInput):
    """A flag or an environment variable that cannot be used."""


class NotFound(MainstayError):
    """The item, outlet, placement or policy version asked for does not exist."""


class Conflict(MainstayError):
    """A write that lost a race, or repeats a version."""


class BundleError(MainstayError):
    """Model bytes that must not be served."""


class Unavailable(MainstayError):
    """A store, stream or registry did not answer; trying again later may help."""
