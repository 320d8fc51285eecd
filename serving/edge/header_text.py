"""Text in request headers."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator

from recsys.messages import InvalidValue, message


def _decode(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return value.encode("latin-1").decode("utf-8")  # the framework decodes headers as Latin-1
    except UnicodeError as error:
        raise InvalidValue(message("header_not_utf8")) from error


HeaderText = Annotated[str, BeforeValidator(_decode)]
"""The text of a header, which clients send in UTF-8."""
