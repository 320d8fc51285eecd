"""Policy text to plain data, and what a schema finds wrong with it to editors' words.

YAML here is YAML as people expect it: only `true` and `false` are booleans (so `on:` is a key and `no` a language),
only decimal numbers are numbers (010, 1:30, 1_0 and +08:00 are texts), dates stay text, a key may stand once, and
aliases are refused, for a short text could grow without end through them. Schemas take numbers for numbers and texts
for texts only: a policy never means something else than what stands there.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Hashable, Iterable, Iterator
from datetime import datetime
from typing import Annotated, Any

import yaml
from pydantic import AwareDatetime, BeforeValidator, Strict, ValidationError

from recsys.errors import Finding, PolicyError, schema_fault
from recsys.messages import InvalidValue, Message, message

Whole = Annotated[int, Strict()]
"""A whole number, said as one: neither "3" nor 3.0 nor yes."""

Number = Annotated[float, Strict()]
"""A number, said as one."""


def _written_out(said: object) -> object:
    if isinstance(said, datetime) or (isinstance(said, str) and re.match(r"\d{4}-\d\d-\d\d", said)):
        return said
    raise InvalidValue(message("time_not_written_out", value=shown(said)))


Moment = Annotated[AwareDatetime, BeforeValidator(_written_out)]
"""A time written out, with its offset from UTC; a number is no time, though it could be seconds since 1970."""

SIZE_MAX = 1 << 20
"""Characters of a policy's text."""

LEVELS_MAX = 60
"""Lists and mappings inside one another; readers of text go as deep as it does."""

_BRANCH = re.compile(r"literal\[|tuple\[|constrained-")
_COMMA = re.compile(r"\d+,\d+")
_UNFIT = re.compile(r"[\x00\ud800-\udfff]")
_TAGS = ("boost", "block", "pin", "share", "cap", "space", "exposure_target")


_DEEP = message("nested_too_deep", maximum=LEVELS_MAX)
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}\n]', re.DOTALL)


def _too_deep(text: str) -> int | None:
    """The line of JSON text on which it goes deeper than LEVELS_MAX; None where it does not."""
    level, line = 0, 1
    for found in _BRACKETS.finditer(text):
        mark = found[0]
        line += mark == "\n"
        level += (mark in ("[", "{")) - (mark in ("]", "}"))
        if level > LEVELS_MAX:
            return line
    return None


class _Loader(yaml.SafeLoader):
    """SafeLoader with the surprises taken out."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise _unreadable(event.start_mark, message("yaml_alias"))
        self._levels = getattr(self, "_levels", 0) + 1
        if self._levels > LEVELS_MAX:
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise _unreadable(event.start_mark, _DEEP)
        try:
            return super().compose_node(parent, index)
        finally:
            self._levels -= 1

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise _unreadable(key_node.start_mark, message("key_repeated", key=shown(key)))
            seen.add(key)
        return super().construct_mapping(node, deep)


def _unreadable(mark: yaml.Mark | None, why: Message) -> PolicyError:
    return PolicyError(message("policy_unreadable"), [Finding(_line(mark), why)])


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


def read_document(text: str) -> object:
    """Plain data of JSON or YAML text. Raises PolicyError naming the line."""
    if len(text) > SIZE_MAX:
        raise PolicyError(message("policy_too_long", maximum=SIZE_MAX))
    try:
        if text.lstrip().startswith("{"):
            if line := _too_deep(text):
                raise PolicyError(message("policy_unreadable"), [Finding(f"line {line}", _DEEP)])
            document = json.loads(text, object_pairs_hook=_once)
        else:
            document = yaml.load(text, Loader=_Loader)
    except json.JSONDecodeError as error:
        raise PolicyError(message("policy_not_json"), [Finding(f"line {error.lineno}", error.msg)]) from error
    except yaml.MarkedYAMLError as error:
        raise PolicyError(message("policy_not_yaml"), [_not_yaml(error)]) from error
    except (yaml.YAMLError, RecursionError, ValueError, TypeError) as error:
        raise PolicyError(message("policy_unreadable"), [Finding("", str(error))]) from error
    if unfit := tuple(_unfit(document)):
        raise PolicyError(message("policy_unreadable"), unfit)
    return document


def _unfit(said: object, where: str = "") -> Iterator[Finding]:
    """Texts with characters that no store keeps: NUL, and halves of surrogate pairs, which are not Unicode text."""
    if isinstance(said, str) and (odd := _UNFIT.search(said)):
        yield Finding(where, message("character_not_allowed", character=f"U+{ord(odd[0]):04X}"))
    elif isinstance(said, dict):
        for key, worth in said.items():
            yield from _unfit(key, where)
            yield from _unfit(worth, f"{where}.{key}".lstrip(".") if not _UNFIT.search(str(key)) else where)
    elif isinstance(said, list):
        for place, worth in enumerate(said):
            yield from _unfit(worth, f"{where}[{place}]")


def shown(said: object) -> object:
    """What a message may repeat of a value: texts, and numbers as they are written; None for anything else.

    >>> shown("a"), shown(True), shown(3), shown([1])
    ('a', 'true', 3, None)
    """
    if isinstance(said, bool) or (isinstance(said, float) and not math.isfinite(said)):
        return json.dumps(said)
    return said if isinstance(said, str | int | float) else None


def not_text(said: object) -> Message:
    """What to tell whoever wrote something else where a text is wanted.

    >>> str(not_text(330100)), str(not_text([1]))
    ("330100 is not a text: write it in quotes, '330100'", 'must be a text')
    """
    scalar = isinstance(said, bool | int | float)
    return message("text_needs_quotes", value=json.dumps(said)) if scalar else message("not_a_text")


def read_tree(text: str) -> yaml.Node | None:
    """YAML text as a tree that knows where each part stands. Raises PolicyError."""
    try:
        return yaml.compose(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise PolicyError(message("policy_not_yaml"), [Finding("", str(error))]) from error


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
            raise PolicyError(message("policy_unreadable"), [Finding(key, message("key_repeated", key=key))])
        said[key] = worth
    return said


def _not_yaml(error: yaml.MarkedYAMLError) -> Finding:
    """Where an opened brace or bracket is not closed, the place is where it was opened, not where the text ends."""
    if error.context and error.context.startswith("while parsing a flow"):
        bracket = "{" if "mapping" in error.context else "["
        return Finding(_line(error.context_mark), message("yaml_not_closed", bracket=bracket))
    problem, mark = str(error.problem), error.problem_mark
    if problem == "mapping values are not allowed here":
        return Finding(_line(mark), message("yaml_colon_not_allowed"))
    if problem == "could not find expected ':'":
        return Finding(_line(mark), message("yaml_colon_missing"))
    if problem.startswith("found character") and problem.endswith("cannot start any token"):
        return Finding(_line(mark), message("yaml_character", character=problem.split("'")[1]))
    if problem == "found unexpected end of stream":
        return Finding(_line(error.context_mark), message("yaml_quote_not_closed"))
    return Finding(_line(mark), problem)


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


def _words(fault: Any) -> Message:
    kind, said = fault["type"], fault.get("input")
    if fault["loc"][-1:] == ("[key]",) or kind == "invalid_key" or _parted(fault):
        return message("key_not_a_text", value=shown(fault["loc"][-1] if _parted(fault) else said))
    if kind == "union_tag_invalid":
        return message("action_unknown", action=shown(fault["ctx"]["tag"]), options=_TAGS)
    if kind == "union_tag_not_found":
        return message("action_missing", options=_TAGS)
    if kind == "model_type" and not fault["loc"]:
        return message("policy_not_fields")
    if kind in ("float_type", "int_type") and isinstance(said, str) and _COMMA.fullmatch(said):
        return message("decimal_comma", number=said.replace(",", "."), value=said)
    if kind == "string_type":
        return not_text(said)
    return schema_fault(fault, shown(said))
