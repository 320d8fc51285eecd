"""Rejection of unknown query parameters, so that a typo is not silently ignored, and of those that are not UTF-8."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import parse_qsl

from fastapi import Depends, Request
from fastapi.routing import APIRoute
from pydantic import BaseModel

from recsys.domain.errors import FINDINGS_MAX, Finding, InvalidInput
from recsys.guidance.lint.unknown_terms import did_you_mean
from recsys.messages import message

SHOWN = 60
"""Maximum number of characters of a parameter's name in a finding."""


async def forbid_unknown_query(request: Request) -> None:
    """Raise InvalidInput with a finding for each query parameter that the route does not define or cannot read."""
    if not request.query_params:
        return
    _forbid_broken_text(request.scope["query_string"])
    route = request.scope["route"]
    assert isinstance(route, APIRoute)
    names = list(_query_names(route))
    unknown = [name for name in request.query_params if name not in names]
    if unknown:
        options = names or message("nothing")
        findings = (
            Finding(
                f"query.{name}",
                message("query_unknown", name=name, options=options, suggestion=did_you_mean(name, names, "")),
            )
            for name in unknown
        )
        raise InvalidInput(message("request_invalid"), findings)


def _forbid_broken_text(query: bytes) -> None:
    """Raise InvalidInput for parameters that are not UTF-8; the framework would replace the bytes by U+FFFD."""
    if b"%" not in query and query.isascii():
        return
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, encoding="latin-1")
    broken = [name for name, value in pairs if not (_is_utf8(name) and _is_utf8(value))]
    if broken:
        findings = [Finding(f"query.{name[:SHOWN]}", message("text_not_storable")) for name in broken[:FINDINGS_MAX]]
        raise InvalidInput(message("request_invalid"), findings)


def _is_utf8(latin1: str) -> bool:
    try:
        latin1.encode("latin-1").decode()
    except UnicodeDecodeError:
        return False
    return True


STRICT_QUERY = [Depends(forbid_unknown_query)]
"""Dependencies of a router whose routes reject unknown query parameters."""


def _query_names(route: APIRoute) -> Iterator[str]:
    """Yield the names of the query parameters of a route. For a query model, these are its fields."""
    for parameter in route.dependant.query_params:
        annotation = parameter.field_info.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from (field.alias or name for name, field in annotation.model_fields.items())
        else:
            yield parameter.alias
