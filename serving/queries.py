"""Reject unknown query parameters, so that a typo is not silently ignored."""

from __future__ import annotations

from fastapi import Depends, Request
from fastapi.dependencies.utils import get_flat_params
from fastapi.params import Query
from fastapi.routing import APIRoute

from recsys.errors import Finding, InvalidInput
from recsys.guidance.vocabulary import meant


async def forbid_unknown_query(request: Request) -> None:
    """Dependency of routers. Raises InvalidInput, which names each query parameter that the route does not have."""
    if not request.query_params:
        return
    route = request.scope["route"]
    assert isinstance(route, APIRoute)
    names = [field.alias for field in get_flat_params(route.dependant) if isinstance(field.field_info, Query)]
    unknown = [name for name in request.query_params if name not in names]
    if unknown:
        has = f"this has {', '.join(names)}" if names else "this has none"
        findings = [Finding(f"query.{name}", f"no query {name!r}; {has}{meant(name, names, '')}") for name in unknown]
        raise InvalidInput("the request is not valid", findings)


STRICT_QUERY = [Depends(forbid_unknown_query)]
"""Dependencies of a router whose routes reject unknown query parameters."""
