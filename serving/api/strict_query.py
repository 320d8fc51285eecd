"""Rejection of unknown query parameters, so that a typo is not silently ignored."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import Depends, Request
from fastapi.routing import APIRoute
from pydantic import BaseModel

from recsys.domain.errors import Finding, InvalidInput
from recsys.guidance.lint.unknown_terms import did_you_mean
from recsys.messages import message


async def forbid_unknown_query(request: Request) -> None:
    """Raise InvalidInput with a finding for each query parameter that the route does not define."""
    if not request.query_params:
        return
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
