"""A query that no route reads is told, not dropped: a misspelt name would change nothing and nobody would know."""

from __future__ import annotations

from fastapi import Request
from fastapi.routing import APIRoute

from recsys.errors import Finding, InvalidInput
from recsys.guidance.vocabulary import meant
from recsys.messages import message


def known_queries(request: Request) -> None:
    """A dependency of routes. Raises InvalidInput, which names each query that the route does not have."""
    route = request.scope["route"]
    assert isinstance(route, APIRoute)
    known = [one.alias for one in route.dependant.query_params]
    unknown = [name for name in request.query_params if name not in known]
    if unknown:
        options = known or message("nothing")
        findings = [
            Finding(
                f"query.{name}", message("query_unknown", name=name, options=options, suggestion=meant(name, known, ""))
            )
            for name in unknown
        ]
        raise InvalidInput(message("request_invalid"), findings)
