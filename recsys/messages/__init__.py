"""Messages for people as data: a stable code and parameters, rendered from a table of texts per language.

The English table is `ENGLISH`; the Chinese one is `serving/console/messages.zh.json`. Both have the same codes with
the same placeholders, and `serving/console/i18n.js` renders them as `render` does:

{name}             a text or number unchanged, a nested message in full, a list with separators, nothing for null
{name:quoted}      the same, a text in single quotes
{name:percent}     a fraction in percent; `percent1` with one decimal
{name:count}       a number without decimals and with thousands separators
{name:brief}       two significant digits
{name:item|items}  a number, followed by the word in singular or plural
{name:screen}      a value from a set of terms (see `TERMS`), which the console translates
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, computed_field, field_serializer, field_validator

from recsys.messages import dry_run, lint, policies, receipts, requests, targets

ENGLISH: Mapping[str, str] = {
    "list_separator": ", ",
    "text": "{text}",
    **policies.TEXTS,
    **lint.TEXTS,
    **dry_run.TEXTS,
    **receipts.TEXTS,
    **targets.TEXTS,
    **requests.TEXTS,
}

TERMS = ("action", "enforcement", "kind", "of", "screen", "surface")
"""Sets of terms that the console translates; `of` contains the attributes and fields that controls refer to."""

PLACEHOLDER = re.compile(r"\{(\w+)(?::([^}]*))?\}")


class Message(BaseModel):
    """A message for people: a stable `code`, and `params` of JSON values and nested messages."""

    model_config = ConfigDict(frozen=True)

    code: str
    params: dict[str, Any] = {}

    @field_validator("params")
    @classmethod
    def _nested(cls, params: dict[str, Any]) -> dict[str, Any]:
        return {name: _read(value) for name, value in params.items()}

    @field_serializer("params")
    def _json(self, params: dict[str, Any]) -> dict[str, Any]:
        return {name: _plain(value) for name, value in params.items()}

    @computed_field  # type: ignore[prop-decorator]
    @property
    def message(self) -> str:
        """Return the text in English."""
        return render(self)

    def __str__(self) -> str:
        return render(self)

    def __hash__(self) -> int:
        return hash(render(self))


def message(code: str, /, **params: Any) -> Message:
    """Return the message with this code and these parameters.

    >>> str(message("minimum_above_cap", minimum=0.5, maximum=0.25))
    'the minimum 0.5 is above the maximum 0.25'
    """
    return Message(code=code, params=params)


def as_message(text: Message | str) -> Message:
    """Return a message unchanged, and plain text as a message with the code `text`."""
    return text if isinstance(text, Message) else message("text", text=text)


class InvalidValue(ValueError):
    """The error of a validator that rejects a value, with a message about the reason."""

    def __init__(self, text: Message) -> None:
        super().__init__(str(text).encode("utf-8", "backslashreplace").decode())  # pydantic needs Unicode
        self.text = text


def render(text: Message, texts: Mapping[str, str] = ENGLISH) -> str:
    """Return the message as text, in the language of `texts`."""

    def value(match: re.Match[str]) -> str:
        return _formatted(text.params.get(match[1]), match[2] or "", texts)

    return PLACEHOLDER.sub(value, texts[text.code])


def _read(value: Any) -> Any:
    """Return the value of a parameter, with nested messages parsed from JSON."""
    if isinstance(value, list | tuple):
        return [_read(part) for part in value]
    return Message.model_validate(value) if isinstance(value, dict) else value


def _plain(value: Any) -> Any:
    """Return the value of a parameter as JSON, in which nested messages have no English text."""
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, Message):
        return {"code": value.code, "params": {name: _plain(part) for name, part in value.params.items()}}
    return value


def _formatted(value: Any, form: str, texts: Mapping[str, str]) -> str:
    if value is None:
        return ""
    if isinstance(value, Message):
        return render(value, texts)
    if isinstance(value, list):
        return texts["list_separator"].join(_formatted(part, form, texts) for part in value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"'{value}'" if form == "quoted" else value
    return _number(value, form)


def _number(value: float, form: str) -> str:
    if form.startswith("percent"):
        return f"{value:.{form.removeprefix('percent') or 0}%}"
    if form == "count":
        return f"{value:,.0f}"
    text = f"{value:.2g}" if form == "brief" else f"{value:g}" if isinstance(value, float) else str(value)
    if "|" in form:
        singular, plural = form.split("|")
        return f"{text} {singular if value == 1 else plural}"
    return text
