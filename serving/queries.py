"""A query that no route reads is told, not dropped: a misspelt name would change nothing and nobody would know."""

from __future__ import annotations

from fastapi import Request
from fastapi.routing import APIRoute

from recsys.errors import Finding, InvalidInput
from recsys.guidance.vocabulary import meant


def known_queries(request: Request) -> None:
    """A dependency of routes. Raises InvalidInput, which names each query that the route does not have."""
    route = request.scope["route"]
    assert isinstance(route, APIRoute)
    known = [one.alias for one in route.dependant.query_params]
    unknown = [name for name in request.query_params if name not in known]
    if unknown:
        has = f"this has {', '.join(known)}" if known else "this has none"
        findings = [Finding(f"query.{name}", f"no query {name!r}; {has}{meant(name, known, '')}") for name in unknown]
        raise InvalidInput("the request is not valid", findings)
