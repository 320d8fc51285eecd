"""Parser of JSON bodies with many entries, in which one entry that is not Unicode does not affect the others.

Strict JSON parsers reject a whole text for half of a surrogate pair (`"\\ud83d"`, an emoji cut in two) or for bytes
that are not UTF-8. `parse_json` keeps such texts with lone surrogates, and `find_unstorable` locates them.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from pydantic_core import from_json

from recsys.domain.fields import is_storable, printable


def parse_json(raw: bytes) -> Any:
    """Return the value of a JSON text. Texts in it that are not Unicode have lone surrogates. Raises ValueError.

    >>> parse_json(b'["a", "tv-\\\\ud83d"]') == ["a", "tv-\\ud83d"]
    True
    """
    try:
        return from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        strict = error
    try:
        parsed = json.loads(raw.decode("utf-8", "surrogateescape"), parse_constant=_reject_constant)
        is_broken_text = find_unstorable(parsed) is not None
    except (ValueError, RecursionError):
        raise strict from None
    if not is_broken_text:
        raise strict
    return parsed


def find_unstorable(value: object, names_only: bool = False) -> str | None:
    """Return the path of a text in a JSON value that no store can hold; None if there is none.

    names_only  look at the names of fields only

    >>> find_unstorable({"data": {"tags": ["a", "\\ud83d"]}}), find_unstorable(["a"])
    ('data.tags.1', None)
    """
    parts: list[tuple[str, object]] = [("", value)]
    while parts:
        path, part = parts.pop()
        if isinstance(part, str) and not names_only and not is_storable(part):
            return path
        if isinstance(part, dict):
            if name := next((name for name in part if not is_storable(name)), None):
                return f"{path}.{printable(name)}".lstrip(".")
            parts += [(f"{path}.{name}".lstrip("."), member) for name, member in part.items()]
        elif isinstance(part, list):
            parts += [(f"{path}.{index}".lstrip("."), member) for index, member in enumerate(part)]
    return None


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
