"""Policy text to plain data, and what a schema finds wrong with it to editors' words.

YAML here is YAML as people expect it: only `true` and `false` are booleans (so `on:` is a key and `no` a language),
only decimal numbers are numbers (010, 1:30, 1_0 and +08:00 are texts), dates stay text, a key may stand once, and
aliases are refused, for a short text could grow without end through them. Schemas take numbers for numbers and texts
for texts only: a policy never means something else than what stands there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any

import yaml
from pydantic import AwareDatetime, BeforeValidator, Strict, ValidationError

from recsys.errors import SHAPES, Finding, PolicyError

Whole = Annotated[int, Strict()]
"""A whole number, said as one: neither "3" nor 3.0 nor yes."""

Number = Annotated[float, Strict()]
"""A number, said as one."""


def _written_out(said: object) -> object:
    if isinstance(said, datetime) or (isinstance(said, str) and re.match(r"\d{4}-\d\d-\d\d", said)):
        return said
    raise ValueError(f"{said!r}: write a time as 2026-10-01T00:00:00+08:00")


Moment = Annotated[AwareDatetime, BeforeValidator(_written_out)]
"""A time written out, with its offset from UTC; a number is no time, though it could be seconds since 1970."""

SIZE_MAX = 1 << 20
"""Characters of a policy's text."""

_BRANCH = re.compile(r"literal\[|tuple\[|constrained-")
_COMMA = re.compile(r"\d+,\d+")
_UNFIT = re.compile(r"[\x00\ud800-\udfff]")
_TAGS = ("boost", "block", "pin", "share", "cap", "space", "exposure_target")


class _Loader(yaml.SafeLoader):
    """SafeLoader with the surprises taken out."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise _unreadable(event.start_mark, "aliases (*name) are not supported")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise _unreadable(key_node.start_mark, f"{key!r} is said twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


def _unreadable(mark: yaml.Mark | None, why: str) -> PolicyError:
    return PolicyError("the policy cannot be read", [Finding(_line(mark), why)])


_NUMBERS = {
    "int": re.compile(r"[-+]?(0|[1-9][0-9]*)$"),
    "float": re.compile(r"[-+]?((0|[1-9][0-9]*)\.[0-9]*|\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?[eE][-+]?[0-9]+)$"),
}


def _plain(tag: str, first: str | None, pattern: re.Pattern[str]) -> re.Pattern[str] | None:
    """The form in which unquoted text that begins with `first` is taken for more than text; None = in none."""
    kind = tag.rpartition(":")[2]
    if kind == "null" or (kind == "bool" and first in tuple("tTfF")):
        return pattern
    return _NUMBERS.get(kind)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, pattern in resolvers if (form := _plain(tag, first, pattern))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}

LEVELS_MAX = 100
TOO_DEEP = f"is nested deeper than {LEVELS_MAX} levels"


def read_document(text: str) -> object:
    """Plain data of JSON or YAML text. Raises PolicyError naming the line."""
    if len(text) > SIZE_MAX:
        raise PolicyError(f"the policy is longer than {SIZE_MAX:,} characters")
    try:
        if text.lstrip().startswith("{"):
            document = json.loads(text, object_pairs_hook=_once)
        else:
            document = yaml.load(text, Loader=_Loader)
    except json.JSONDecodeError as error:
        raise PolicyError("the policy is not JSON", [Finding(f"line {error.lineno}", error.msg)]) from error
    except yaml.MarkedYAMLError as error:
        raise PolicyError("the policy is not YAML", [_not_yaml(error)]) from error
    except RecursionError as error:
        raise PolicyError("the policy cannot be read", [Finding(_too_deep(text), TOO_DEEP)]) from error
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise PolicyError("the policy cannot be read", [Finding("", str(error))]) from error
    if unfit := tuple(_unfit(document)):
        raise PolicyError("the policy cannot be read", unfit)
    return document


def _too_deep(text: str) -> str:
    """The line on which a text that nobody could read goes deeper than LEVELS_MAX."""
    depth, line = 0, 1
    with suppress(yaml.YAMLError, RecursionError, ValueError):
        for event in yaml.parse(text, Loader=_Loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            line = event.start_mark.line + 1 if event.start_mark else line
            if depth > LEVELS_MAX:
                break
    return f"line {line}"


def _unfit(said: object, where: str = "", levels: tuple[str, ...] = ()) -> Iterator[Finding]:
    """Texts with characters that no store keeps: NUL, and halves of surrogate pairs, which are not Unicode text; and
    what is nested too deep, under the name of what it begins in. `levels`: the places of all that it stands in."""
    if len(levels) > LEVELS_MAX:
        yield Finding(levels[3], TOO_DEEP)
    elif isinstance(said, str) and (odd := _UNFIT.search(said)):
        yield Finding(where, f"the character U+{ord(odd[0]):04X} cannot stand in a policy")
    elif isinstance(said, dict):
        for key, worth in said.items():
            yield from _unfit(key, where)
            there = f"{where}.{key}".lstrip(".") if not _UNFIT.search(str(key)) else where
            yield from _unfit(worth, there, (*levels, where))
    elif isinstance(said, list):
        for place, worth in enumerate(said):
            yield from _unfit(worth, f"{where}[{place}]", (*levels, where))


def not_text(said: object) -> str:
    """What to tell whoever wrote something else where a text is wanted.

    >>> not_text(330100), not_text([1])
    ("330100 is not a text: write it in quotes, '330100'", 'a text is wanted')
    """
    plain = json.dumps(said) if isinstance(said, bool | int | float) else ""
    return f"{plain} is not a text: write it in quotes, '{plain}'" if plain else "a text is wanted"


def read_tree(text: str) -> yaml.Node | None:
    """YAML text as a tree that knows where each part stands. Raises PolicyError."""
    try:
        return yaml.compose(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise PolicyError("the policy is not YAML", [Finding("", str(error))]) from error


def findings_of(error: ValidationError) -> tuple[Finding, ...]:
    """What a schema found, each at its field (`controls[2].at_least`), in editors' words."""
    faults = error.errors(include_url=False)
    found = [
        (f["loc"], Finding(_where(f["loc"][:-1] if _parted(f) else f["loc"], f["type"]), _words(f))) for f in faults
    ]
    split = {loc[:-1] for loc, _ in found if loc[-1:] == ("[key]",)}  # of these the value says nothing more
    return tuple(finding for loc, finding in found if loc not in split)


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for key, worth in pairs:
        if key in said:
            raise PolicyError("the policy cannot be read", [Finding(key, f"{key!r} is said twice")])
        said[key] = worth
    return said


def _not_yaml(error: yaml.MarkedYAMLError) -> Finding:
    """Where an opened brace or bracket is not closed, the place is where it was opened, not where the text ends."""
    if error.context and error.context.startswith("while parsing a flow"):
        opened = f"the {'{' if 'mapping' in error.context else '['} opened here is not closed"
        return Finding(_line(error.context_mark), f"{opened}, or a comma is missing: {error.problem}")
    return Finding(_line(error.problem_mark), str(error.problem))


def _line(mark: yaml.Mark | None) -> str:
    return f"line {mark.line + 1}" if mark else ""


def _where(location: tuple[int | str, ...], kind: str = "") -> str:
    """A path such as `controls[2].where.label`, without the names a schema gives to its own branches."""
    path = ""
    if location[-1:] == ("[key]",):
        location = location[:-2]
    elif kind == "invalid_key":
        location = location[:-1]
    for place, part in enumerate(location):
        if isinstance(part, int):
            path += f"[{part}]"
        elif not (part in _TAGS and place == 2 and location[0] == "controls") and not _BRANCH.match(part):
            path += f".{part}" if path else part
    return path


def _parted(fault: Any) -> bool:
    """Whether a number is where a name should be: `{a: 0,01}` says a: 0, and 01 with nothing."""
    return fault["type"] == "float_type" and fault.get("input") is None and str(fault["loc"][-1]).isdigit()


def _words(fault: Any) -> str:
    kind, said, context = fault["type"], fault.get("input"), fault.get("ctx", {})
    if fault["loc"][-1:] == ("[key]",) or kind == "invalid_key" or _parted(fault):
        said = fault["loc"][-1] if _parted(fault) else said
        return f"{said!r} stands where a name should; a comma parts entries, so decimals are written with a point: 0.01"
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        return "there is no such field"
    if kind == "union_tag_invalid":
        return f"there is no action {context['tag']!r}; there are {', '.join(_TAGS)}"
    if kind == "union_tag_not_found":
        return f"an action is missing; there are {', '.join(_TAGS)}"
    if kind in ("literal_error", "enum"):
        return f"{said!r} is not one of {context['expected']}"
    if kind == "timezone_aware":
        return f"{said!r} needs a time and its offset from UTC, such as 2026-10-01T00:00:00+08:00"
    if kind == "value_error":
        return str(context["error"])
    if kind == "string_pattern_mismatch":
        return f"{said!r} does not read as one: {SHAPES.get(context['pattern'], context['pattern'])}"
    if kind == "model_type":
        return (
            "a document with fields such as outlet and controls is wanted" if not fault["loc"] else "fields are wanted"
        )
    if kind in ("float_type", "int_type") and isinstance(said, str) and _COMMA.fullmatch(said):
        return f"decimals are written with a point: {said.replace(',', '.')}, not {said}"
    if kind == "int_type":
        return f"a whole number such as 3 is wanted, not {said!r}"
    if kind == "float_type":
        return f"a number such as 0.3 is wanted, not {said!r}"
    if kind == "string_type":
        return not_text(said)
    if kind == "tuple_type":
        return "a list is wanted, such as [a, b]"
    message = str(fault["msg"]).removeprefix("Input should be ").removeprefix("Input ")
    return f"{said!r} should be {message}" if isinstance(said, str | int | float) else message
