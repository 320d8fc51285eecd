"""Read policy text as plain data, append controls to it, and explain schema errors to editors.

In this YAML dialect, only `true` and `false` are booleans (`on:` is a key and `no` a language), only decimal numbers
are numbers (010, 1:30, 1_0 and +08:00 are texts), dates remain texts, and keys are unique. Aliases and tags are
rejected: a short text with aliases can expand without bound. Schemas do not convert between numbers and texts.

docs/decisions/0009-yaml.md explains why the reader works on the events of libyaml.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml
from pydantic import ValidationError

from recsys.domain.errors import Finding, PolicyError, schema_fault
from recsys.domain.fields import display_value
from recsys.messages import Message, message

SIZE_MAX = 1 << 20
"""Maximum number of characters of a policy's text."""

LEVELS_MAX = 60
"""Maximum nesting of lists and mappings. Readers recurse once per level."""

FAULTS_MAX = 1000
"""Maximum number of faults of a document that are listed one by one."""

_BRANCH = re.compile(r"literal\[|tuple\[|constrained-")
_COMMA = re.compile(r"\d+,\d+")
_INVALID = re.compile(r"[\x00\ud800-\udfff]")
_TAGS = ("boost", "block", "pin", "quota", "cap", "spacing", "exposure_target")
_DEEP = message("nested_too_deep", maximum=LEVELS_MAX)
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}\n]', re.DOTALL)
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?((0|[1-9][0-9]*)\.[0-9]*|\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?[eE][-+]?[0-9]+)")
_WORDS = {word: value for name, value in (("true", True), ("false", False), ("null", None))
          for word in (name, name.title(), name.upper())} | {"": None, "~": None}  # fmt: skip


def read_document(text: str) -> object:
    """Return the plain data of JSON or YAML text. Raise PolicyError, which names the line."""
    if len(text) > SIZE_MAX:
        raise PolicyError(message("policy_too_long", maximum=SIZE_MAX))
    if invalid := _INVALID.search(text):
        raise _parse_error(text.count("\n", 0, invalid.start()) + 1, _forbidden(invalid[0]))
    try:
        if text.lstrip().startswith("{"):
            if line := _too_deep(text):
                raise _parse_error(line, _DEEP)
            document = json.loads(text, object_pairs_hook=_unique_keys)
        else:
            document = _read_yaml(text)
    except json.JSONDecodeError as error:
        raise PolicyError(message("policy_not_json"), [Finding(f"line {error.lineno}", error.msg)]) from error
    except yaml.MarkedYAMLError as error:
        raise PolicyError(message("policy_not_yaml"), [_not_yaml(error, text)]) from error
    except yaml.reader.ReaderError as error:
        raise _parse_error(
            text.encode()[: error.position].count(b"\n") + 1, message("control_character_not_allowed")
        ) from error
    except ValueError as error:
        raise PolicyError(message("policy_unreadable"), [Finding("", str(error))]) from error
    if findings := tuple(_invalid_scalars(document)):
        raise PolicyError(message("policy_unreadable"), findings)
    return document


def _too_deep(text: str) -> int | None:
    """Return the line of JSON text that is deeper than LEVELS_MAX, or None."""
    level, line = 0, 1
    for match in _BRACKETS.finditer(text):
        mark = match[0]
        line += mark == "\n"
        level += (mark in ("[", "{")) - (mark in ("]", "}"))
        if level > LEVELS_MAX:
            return line
    return None


def _unique_keys(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key, value in pairs:
        if key in mapping:
            raise PolicyError(message("policy_unreadable"), [Finding(key, message("key_repeated", key=key))])
        mapping[key] = value
    return mapping


def _read_yaml(text: str) -> object:
    events: Iterator[Any] = iter(yaml.parse(text, Loader=yaml.CSafeLoader))
    next(events)  # the start of the stream
    if isinstance(next(events), yaml.StreamEndEvent):
        return None
    document = _value(next(events), events, 0)
    next(events)  # the end of the document
    if not isinstance(event := next(events), yaml.StreamEndEvent):
        raise _parse_error(event.start_mark.line + 1, message("yaml_second_document"))
    return document


def _value(event: Any, events: Iterator[Any], level: int) -> Any:
    """Return the plain data of the node that begins with `event`; `level` collections enclose it."""
    line = event.start_mark.line + 1
    if isinstance(event, yaml.AliasEvent):
        raise _parse_error(line, message("yaml_alias"))
    if event.tag is not None:
        raise _parse_error(line, message("yaml_tag", tag=event.tag.replace("tag:yaml.org,2002:", "!!")))
    if isinstance(event, yaml.ScalarEvent):
        return _plain_scalar(event.value) if event.implicit[0] else event.value
    if level == LEVELS_MAX:
        raise _parse_error(line, _DEEP)
    if isinstance(event, yaml.SequenceStartEvent):
        return [_value(member, events, level + 1) for member in _until(yaml.SequenceEndEvent, events)]
    mapping: dict[Any, Any] = {}
    for key_event in _until(yaml.MappingEndEvent, events):
        key = _value(key_event, events, level + 1)
        if isinstance(key, list | dict):
            raise _parse_error(key_event.start_mark.line + 1, message("yaml_key_not_a_name"))
        if key in mapping:
            raise _parse_error(key_event.start_mark.line + 1, message("key_repeated", key=display_value(key)))
        mapping[key] = _value(next(events), events, level + 1)
    return mapping


def _until(end: type[Any], events: Iterator[Any]) -> Iterator[Any]:
    while not isinstance(event := next(events), end):
        yield event


def _plain_scalar(text: str) -> object:
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def _not_yaml(error: yaml.MarkedYAMLError, text: str) -> Finding:
    """Return a finding for a YAML error, at the opening line of an unclosed bracket and never after the last line."""
    mark, problem = error.problem_mark, str(error.problem)
    fault: Message | str = problem
    if error.context and error.context.startswith("while parsing a flow"):
        mark, fault = error.context_mark, message("yaml_not_closed", bracket="{" if "mapping" in error.context else "[")
    elif error.context == "while scanning a quoted scalar" and problem == "found unexpected end of stream":
        mark, fault = error.context_mark, message("yaml_quote_not_closed")
    elif mark and problem == "found character that cannot start any token":
        fault = message("yaml_character", character=text.split("\n")[mark.line][mark.column])
    elif problem in _PROBLEMS:
        fault = _PROBLEMS[problem]
    lines = text.rstrip().count("\n") + 1
    return Finding(f"line {min(mark.line + 1, lines)}" if mark else "", fault)


_PROBLEMS = {
    "mapping values are not allowed in this context": message("yaml_colon_not_allowed"),
    "could not find expected ':'": message("yaml_colon_missing"),
}
"""Error text of libyaml -> message."""


def _parse_error(line: int, fault: Message | str) -> PolicyError:
    return PolicyError(message("policy_unreadable"), [Finding(f"line {line}", fault)])


def _forbidden(character: str) -> Message:
    return message("character_not_allowed", character=f"U+{ord(character):04X}")


def _invalid_scalars(value: object, where: str = "") -> Iterator[Finding]:
    """Find escaped characters that stores reject: NUL, and halves of surrogate pairs, which are not Unicode text."""
    if isinstance(value, str) and (invalid := _INVALID.search(value)):
        yield Finding(where, _forbidden(invalid[0]))
    elif isinstance(value, dict):
        for key, member in value.items():
            yield from _invalid_scalars(key, where)
            path = where if _INVALID.search(str(key)) else f"{where}.{key}".lstrip(".")
            yield from _invalid_scalars(member, path)
    elif isinstance(value, list):
        for index, member in enumerate(value):
            yield from _invalid_scalars(member, f"{where}[{index}]")


def append_control(text: str, control: Mapping[str, object]) -> str | None:
    """Return YAML text with a control appended to its `controls`; comments, order and layout are preserved.

    Return None if the text has no list of controls. The caller parses the result and compares.

    >>> print(append_control("controls:\\n  - {id: a}  # ours\\n", {"id": "b", "share": 0.02}))
    controls:
      - {id: a}  # ours
      - {id: b, share: 0.02}
    <BLANKLINE>
    """
    try:
        read_document(text)  # compose only text that passes this check, because libyaml recurses without a limit
    except PolicyError:
        return None
    try:
        root = yaml.compose(text, Loader=yaml.CSafeLoader)
    except yaml.YAMLError:  # JSON that is not YAML: a pair of surrogates as escapes
        return None
    fields = root.value if isinstance(root, yaml.MappingNode) else []
    controls = next((value for key, value in fields if key.value == "controls"), None)
    if not isinstance(controls, yaml.SequenceNode) or not controls.value:
        return None
    line = yaml.safe_dump(dict(control), default_flow_style=True, allow_unicode=True, sort_keys=False, width=SIZE_MAX)
    line = line.strip()
    if "\n" in line:  # a note of several lines
        line = json.dumps(control, ensure_ascii=False)
    if controls.flow_style:
        end = controls.end_mark.index - 1
        return f"{text[:end].rstrip()}, {line}{text[end:]}"
    lines = text.splitlines(keepends=True)
    last = _last_line(controls)
    lines[last] = lines[last].rstrip("\r\n") + "\n"
    lines.insert(last + 1, f"{' ' * controls.start_mark.column}- {line}\n")
    return "".join(lines)


def _last_line(node: yaml.Node) -> int:
    """Return the last line (0-based) of a node, without the comments and blank lines that follow it."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _last_line(last[1] if isinstance(last, tuple) else last)
    end = node.end_mark
    return end.line - 1 if end.column == 0 and end.line > node.start_mark.line else end.line


def not_text(value: object) -> Message:
    """Return the message about a value where a text is required.

    >>> str(not_text(330100)), str(not_text([1]))
    ("330100 is not text: write it in quotes, '330100'", 'must be text')
    """
    scalar = isinstance(value, bool | int | float)
    return message("text_needs_quotes", value=json.dumps(value)) if scalar else message("not_a_text")


def findings_of(error: ValidationError) -> tuple[Finding, ...]:
    """Return the findings of a schema, each with the path of its field (`controls[2].at_least`)."""
    if (problems := error.error_count()) > FAULTS_MAX:
        return (Finding("", message("findings_too_many", problems=problems)),)
    faults = error.errors(include_url=False)
    findings = [
        (f["loc"], Finding(_path(f["loc"][:-1] if _is_split(f) else f["loc"], f["type"]), _message(f))) for f in faults
    ]
    split = {
        loc[:-1] for loc, _ in findings if loc[-1:] == ("[key]",)
    }  # the error of the value repeats that of the key
    return tuple(finding for loc, finding in findings if loc not in split)


def _path(location: tuple[int | str, ...], kind: str = "") -> str:
    """Return a path such as `controls[2].where.label`, without the branch names of the schema."""
    path = ""
    if location[-1:] == ("[key]",):
        location = location[:-2]
    elif kind == "invalid_key":
        location = location[:-1]
    for depth, part in enumerate(location):
        if isinstance(part, int):
            path += f"[{part}]"
        elif not (part in _TAGS and depth == 2 and location[0] == "controls") and not _BRANCH.match(part):
            path += f".{part}" if path else part
    return path


def _is_split(fault: Any) -> bool:
    """Return whether a comma split a decimal: `{a: 0,01}` reads as a: 0, and the key 01 without a value."""
    return fault["type"] == "float_type" and fault.get("input") is None and str(fault["loc"][-1]).isdigit()


def _message(fault: Any) -> Message:
    kind, value = fault["type"], fault.get("input")
    if kind == "value_error":
        return schema_fault(fault)
    if fault["loc"][-1:] == ("[key]",) or kind == "invalid_key" or _is_split(fault):
        return message("key_not_a_text", value=display_value(fault["loc"][-1] if _is_split(fault) else value))
    if kind == "union_tag_invalid":
        return message("action_unknown", action=display_value(fault["ctx"]["tag"]), options=_TAGS)
    if kind == "union_tag_not_found":
        return message("action_missing", options=_TAGS)
    if kind == "model_type" and not fault["loc"]:
        return message("policy_not_fields")
    if kind in ("float_type", "int_type") and isinstance(value, str) and _COMMA.fullmatch(value):
        return message("decimal_comma", number=value.replace(",", "."), value=value)
    if kind == "string_type":
        return not_text(value)
    return schema_fault(fault, display_value(value))
