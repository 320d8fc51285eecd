"""The class of all routes: it checks the headers of a request and reads its body before FastAPI handles it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from recsys.domain.errors import Finding
from recsys.messages import message
from serving.api.auth import CHECKS
from serving.edge.body import DEFAULT_LIMIT, LIMITS, ReadRequest, parse_json, read_body
from serving.edge.callers import Names, refusal
from serving.edge.media_types import JSON, YAML, kind_of
from serving.schemas.problems import Forbidden, UnsupportedMediaType, documented

READS = {"GET", "HEAD", "OPTIONS"}
WITH_BODY = {"POST", "PUT", "PATCH"}

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class EdgeRoute(APIRoute):
    """A route that refuses a request as early as possible, before its body is read.

    A route that writes, or that is for editors, checks `Host` and `Origin` (403). One for editors then checks their
    token (401). One with a body checks the content type (415), then reads the body up to the limit of its path (413).
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        methods = set(options.get("methods") or ["GET"])
        checks = any(depends.dependency in CHECKS for depends in options.get("dependencies") or ())
        statuses = [403] if checks or not methods <= READS else []
        statuses += [400, 413, 415] if methods & WITH_BODY else []
        options["responses"] = {**documented(*statuses), **(options.get("responses") or {})}
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Handler:
        """Return the handler of FastAPI behind the checks of this route."""
        handle = super().get_route_handler()
        checks = [CHECKS[d.dependency] for d in self.dependencies if d.dependency in CHECKS]
        methods = self.methods or set()
        is_protected = bool(checks) or not methods <= READS
        has_body, is_parsed = bool(methods & WITH_BODY), self.body_field is not None
        content = (self.openapi_extra or {}).get("requestBody", {}).get("content", {JSON: None})
        types = [JSON, YAML] if YAML in content else [JSON]
        limit = LIMITS.get(self.path, DEFAULT_LIMIT)

        async def handle_checked(request: Request) -> Response:
            headers = dict(request.scope["headers"])
            if is_protected:
                _check_caller(request, headers)
            for check in checks:
                check(request)
            if has_body:
                _check_content_type(headers, types)
                try:
                    raw = await read_body(request, headers, limit)
                except ClientDisconnect:
                    return Response(status_code=400)  # nobody receives it
                request = ReadRequest(request, raw, parse_json(raw) if is_parsed and raw else None)
            return await handle(request)

        return handle_checked


def _check_caller(request: Request, headers: Mapping[bytes, bytes]) -> None:
    """Raise Forbidden if the service has no such name, or if a web page of another site sent the request."""
    settings = request.app.state.services.settings
    names = Names(settings.host, settings.allowed_hosts, settings.allowed_origins)
    origin = headers.get(b"origin")
    host = headers.get(b"host", b"").decode("latin-1")
    if reason := refusal(host, None if origin is None else origin.decode("latin-1"), names):
        raise Forbidden(reason)


def _check_content_type(headers: Mapping[bytes, bytes], types: list[str]) -> None:
    """Raise UnsupportedMediaType if there is a body and its content type is none of these."""
    if headers.get(b"content-length", b"0") == b"0" and b"transfer-encoding" not in headers:
        return
    sent = headers.get(b"content-type", b"").decode("latin-1")
    kind = kind_of(sent)
    if kind == "other" or (kind == "yaml" and YAML not in types):
        fault = message("body_needs_content_type", accepted=types, sent=sent[:200] or message("nothing"))
        findings = [Finding("header.content-type", fault)]
        raise UnsupportedMediaType(message("body_not_read", accepted=types), findings)
