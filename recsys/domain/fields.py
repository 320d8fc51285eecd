"""The types of fields in items, policies and requests. They accept one form of each value and convert nothing.

Numbers and booleans are written as such ("3", 3.0 for a whole number and 1 for true are rejected), times are RFC 3339,
names are in Unicode's normal form C without invisible characters, so that names that look the same are the same.

Data of an older version is read with the context `STORED`: its times are read as before, invisible characters are
removed from its names, and its ids stay as they are. A rule written today therefore also holds for old data.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Strict, StringConstraints, ValidationInfo

from recsys.domain.errors import ID
from recsys.messages import InvalidValue, message

STORED = {"stored": True}
"""The validation context of data that an older version accepted."""

RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_LOCAL_TIME = re.compile(r"\d{4}-\d\d-\d\d([Tt ]\d\d:\d\d(:\d\d(\.\d+)?)?)?", re.ASCII)
_DIGITS = re.compile(r"-?\d+", re.ASCII)
_SHORT = 60

PATH_SEGMENTS = frozenset({".", ".."})
"""Texts that clients remove from the path of a URL, so that they cannot be ids."""

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_INVISIBLE = re.compile(
    "[\x00-\x1f\x7f-\xa0\xad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f\u2000-\u200f\u2028-\u202f"
    "\u205f-\u206f\u2800\u3000\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff"
    "\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d159\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Control and format characters, white space other than the blank, halves of surrogate pairs, and the characters that
Unicode lets a renderer ignore (Default_Ignorable_Code_Point) or that are drawn blank."""


def is_storable(text: str) -> bool:
    """Return whether every store can hold this text: it has no NUL and no half of a surrogate pair.

    >>> is_storable("钱塘江"), is_storable("a\\x00"), is_storable("tv-\\ud83d")
    (True, False, False)
    """
    return _UNSTORABLE.search(text) is None


def printable(text: str) -> str:
    """Return the text with NUL and halves of surrogate pairs as escapes, so that any client can read it.

    >>> printable("tv-\\ud83d")
    'tv-\\\\ud83d'
    """
    return _UNSTORABLE.sub(lambda match: ascii(match[0])[1:-1], text)


def normalize(text: str) -> str:
    """Return an id or a name in Unicode's normal form C, in which equal characters are encoded alike.

    >>> normalize("cafe\\u0301") == "caf\\u00e9"
    True
    """
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def visible(text: str) -> str:
    """Return a name in normal form C. Raises InvalidValue if it contains something that a reader cannot see.

    These are invisible characters, blanks at the beginning or end, and repeated blanks.

    >>> visible("public service")
    'public service'
    """
    if match := _INVISIBLE.search(text):
        raise InvalidValue(message("invisible_character", character=f"U+{ord(match[0]):04X}"))
    if text != text.strip(" ") or "  " in text:
        raise InvalidValue(message("invisible_space"))
    return normalize(text)


def is_visible(text: str) -> bool:
    """Return whether `visible` returns this text unchanged."""
    try:
        return visible(text) == text
    except InvalidValue:
        return False


def without_invisible(text: str) -> str:
    """Return a name of an older version as `visible` accepts it; U+FFFD if nothing of it can be seen.

    >>> without_invisible("news\\u200b "), without_invisible("\\u200b") == "\\ufffd", without_invisible("")
    ('news', True, '')
    """
    if not text:
        return text
    return normalize(" ".join(_INVISIBLE.sub(lambda m: " " if m[0].isspace() else "", text).split())) or "\ufffd"


def display_value(value: object) -> object:
    """Return a value as a message may repeat it: texts, and numbers as written; None for any other value.

    >>> display_value("a"), display_value(True), display_value(3), display_value([1])
    ('a', 'true', 3, None)
    """
    if isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value)):
        return json.dumps(value)
    return value if isinstance(value, str | int | float) else None


def _is_stored(info: ValidationInfo) -> bool:
    return info.context is not None and bool(info.context.get("stored"))


def _text(text: str, info: ValidationInfo) -> str:
    if not is_storable(text) and not _is_stored(info):
        raise InvalidValue(message("text_not_storable"))
    return text


def _name(value: object, info: ValidationInfo) -> object:
    if not isinstance(value, str):
        return value
    return without_invisible(value) if _is_stored(info) else visible(value)


def _id(value: object, info: ValidationInfo) -> object:
    if not isinstance(value, str) or _is_stored(info):
        return value
    if value in PATH_SEGMENTS:
        raise InvalidValue(message("id_is_a_path"))
    return visible(value)


def _label(value: object, info: ValidationInfo) -> object:
    if not isinstance(value, str):
        return value
    levels: Iterable[object] = (_name(level, info) for level in value.split("/"))
    return "/".join(map(str, levels))


def _time(value: object, info: ValidationInfo) -> object:
    if isinstance(value, datetime) or (isinstance(value, str) and RFC3339.fullmatch(value)):
        return value
    if _is_stored(info) and isinstance(value, str) and not _DIGITS.fullmatch(value):
        return value
    if isinstance(value, str) and _LOCAL_TIME.fullmatch(value):
        raise InvalidValue(message("time_without_offset"))
    shown = value[:_SHORT] if isinstance(value, str) else display_value(value)
    raise InvalidValue(message("time_not_written_out", value=shown))


def _decimal(value: object) -> object:
    if isinstance(value, str) and not _DIGITS.fullmatch(value):
        raise InvalidValue(message("not_a_whole_number", but=message("not_value", value=value[:_SHORT])))
    return value


Integer = Annotated[int, Strict()]
"""A whole number, written as a number: "3", 3.0 and true are rejected."""

Number = Annotated[float, Strict()]
"""A number, written as a number: "0.3" and true are rejected."""

Boolean = Annotated[bool, Strict()]
"""true or false: 1 and "yes" are rejected."""

QueryInteger = Annotated[int, BeforeValidator(_decimal)]
"""A whole number in a query parameter, in decimal digits."""

Time = Annotated[AwareDatetime, BeforeValidator(_time)]
"""A time in RFC 3339 with its offset from UTC. A number is rejected, although it could be seconds since 1970."""

Text = Annotated[str, AfterValidator(_text)]
"""Any text that all stores can hold."""

Name = Annotated[str, BeforeValidator(_name)]
"""The name of an axis, a provider, a series and so on, as `visible` returns it."""

Id = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=ID), BeforeValidator(_id)]
"""The id of an item, a viewer or a control, as `visible` returns it. It also works as the last part of a URL."""

Code = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)*$", max_length=100)]
"""A node of the outlet or region tree: `cn.zj.hz` is below `cn.zj`, which is below `cn`."""

Label = Annotated[str, StringConstraints(pattern=r"^[^/\s][^/]*(/[^/]+)*$", max_length=200), BeforeValidator(_label)]
"""A label as a path: `news/politics` is in the subtree of `news`. Each level is as `visible` returns it."""
