"""The content types and content codings of request bodies."""

from __future__ import annotations

from email.message import Message as Header
from functools import lru_cache
from typing import Literal

JSON, YAML = "application/json", "application/yaml"
GZIP = ("gzip", "x-gzip")
_YAML = ("application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml")
_CHARSETS = ("utf-8", "utf8", "us-ascii")

Kind = Literal["json", "yaml", "other"]


@lru_cache(maxsize=256)
def kind_of(content_type: str) -> Kind:
    """Return the kind of a body with this `Content-Type`. Case and parameters do not matter, except the charset.

    >>> kind_of("application/json"), kind_of("Application/CloudEvents-Batch+JSON; charset=UTF-8"), kind_of("text/yaml")
    ('json', 'json', 'yaml')
    >>> kind_of("text/plain; charset=yaml"), kind_of("application/json; charset=gbk"), kind_of("")
    ('other', 'other', 'other')
    """
    header = Header()
    header["content-type"] = content_type.replace("\r", " ").replace("\n", " ")
    if not content_type or str(header.get_content_charset("utf-8")) not in _CHARSETS:
        return "other"
    name = header.get_content_type()
    if name == JSON or (name.startswith("application/") and name.endswith("+json")):
        return "json"
    return "yaml" if name in _YAML else "other"
