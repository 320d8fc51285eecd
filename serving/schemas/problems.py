"""API errors as RFC 9457 problem details, with one table that maps errors to HTTP status codes."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from features.redaction import redact
from recsys.domain.errors import (
    BundleError,
    Conflict,
    DamagedData,
    EventError,
    Finding,
    InvalidInput,
    ItemError,
    Level,
    MainstayError,
    NotFound,
    PageTokenError,
    PolicyError,
    Unavailable,
    first_findings,
    schema_fault,
)
from recsys.domain.fields import printable
from recsys.messages import Message, as_message, message

log = logging.getLogger("mainstay.serving")


class Unauthorised(MainstayError):
    """A request without the token of the editors, or with a wrong token."""


class NotJson(InvalidInput):
    """A body that is not JSON."""


class UnreadableBody(InvalidInput):
    """A body whose content coding is damaged."""


class TooLarge(InvalidInput):
    """A request that exceeds a size limit."""


class UnsupportedMediaType(InvalidInput):
    """A body whose content type or content coding the route does not take."""


class Forbidden(MainstayError):
    """A request by a name that the service does not have, or from a web page of another site."""


class Busy(MainstayError):
    """A request that exceeds the number of concurrent operations of its kind; the client can retry later."""


STATUS: dict[type[MainstayError], int] = {  # the nearest ancestor class in this table applies
    MainstayError: 500,
    InvalidInput: 422,
    NotJson: 400,
    PageTokenError: 400,
    EventError: 422,
    ItemError: 422,
    PolicyError: 422,
    UnreadableBody: 400,
    TooLarge: 413,
    UnsupportedMediaType: 415,
    Unauthorised: 401,
    Forbidden: 403,
    Busy: 429,
    NotFound: 404,
    Conflict: 409,
    BundleError: 503,
    DamagedData: 503,
    Unavailable: 503,
}

BODY_STATUSES = (400, 422)
"""Error statuses that every route with a body documents: a body that is not JSON, and fields that are not valid."""

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 1
WHERE_MAX = 300  # characters of a path, which can contain an unknown name of any length


@dataclass(frozen=True, slots=True)
class FindingOut:
    """A finding in a response: its location, its message and its severity."""

    where: Annotated[str, Field(description="Path of the field concerned.", examples=["events[2].data.item_id"])]
    code: Annotated[
        str,
        Field(description="Stable identifier of the message; `text` if it has none.", examples=["number_too_large"]),
    ]
    params: Annotated[dict[str, Any], Field(examples=[{"limit": 50}])]
    message: Annotated[str, Field(description="Text of the message in English.", examples=["must be at most 50"])]
    level: Annotated[
        Level,
        Field(
            description=(
                "error: the input is rejected; warning: the control or field does not have the intended effect; "
                "hint: it has no visible effect."
            )
        ),
    ] = "error"
    control: Annotated[
        str | None, Field(description="Id of the policy control that contains `where`; null outside of controls.")
    ] = None

    @classmethod
    def of(cls, finding: Finding, control: str | None = None) -> FindingOut:
        """Return a finding as the API presents it."""
        return cls(
            printable(finding.where)[:WHERE_MAX],
            finding.code,
            _printable(finding.params),
            printable(finding.message),
            finding.level,
            control and printable(control),
        )


class Problem(BaseModel):
    """An error as RFC 9457 problem details. `findings` lists all faults of the request, not only the first."""

    type: str = Field(examples=["urn:mainstay:problem:conflict"])
    title: str = Field(examples=["Conflict"])
    status: int = Field(examples=[409])
    detail: str = Field(examples=["policy of cn.zj: version 4 is newer than 3, on which this change is based"])
    code: str = Field(
        description="Stable identifier of `detail`; `text` if it has none.", examples=["version_outdated"]
    )
    params: dict[str, Any] = Field({}, examples=[{"outlet": "cn.zj", "newest": 4, "base": 3}])
    instance: str = Field(examples=["/v1/policies/cn.zj/draft"])
    findings: list[FindingOut] = []


def install(app: FastAPI) -> None:
    """Return all errors of this app, including unexpected ones, as problem details."""
    app.add_exception_handler(MainstayError, _handle_mainstay_error)
    app.add_exception_handler(RequestValidationError, _handle_invalid_request)
    app.add_exception_handler(HTTPException, _handle_http_exception)
    app.add_exception_handler(Exception, _handle_unexpected)
    _describe(app)


def _describe(app: FastAPI) -> None:
    """Replace the default validation errors of FastAPI by problem details in the OpenAPI document."""
    default_openapi = app.openapi

    def openapi() -> dict[str, Any]:
        schema = default_openapi()
        components = schema["components"]["schemas"]
        for operation in (o for methods in schema["paths"].values() for o in methods.values()):
            for status, response in operation["responses"].items():
                if "application/json" in response.get("content", {}) and int(status) >= 400:
                    response["content"] = documented(int(status))[int(status)]["content"]
            for status in BODY_STATUSES if "requestBody" in operation else ():
                response = {name: part for name, part in documented(status)[status].items() if name != "model"}
                operation["responses"].setdefault(str(status), response)
        components.pop("HTTPValidationError", None)
        components.pop("ValidationError", None)
        return schema

    app.openapi = openapi  # type: ignore[method-assign]


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI `responses` for the error statuses of a route."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {
            "model": Problem,
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": schema, "example": _example(status)}},
        }
        for status in statuses
    }


def problem(
    request: Request,
    status: int,
    name: str,
    detail: Message | str,
    findings: Iterable[FindingOut] = (),
    **extra: object,
) -> JSONResponse:
    """Return a problem as a response. `name` is the last part of its type, in kebab case."""
    body: dict[str, object] = {
        "type": f"urn:mainstay:problem:{name}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": printable(redact(str(detail))),
        **_printable(as_message(detail).model_dump(exclude={"message"})),
        "instance": printable(request.url.path),
        "findings": [asdict(finding) for finding in findings],
        **extra,
    }
    headers = {}
    if status in (429, 503):
        headers["Retry-After"] = str(RETRY_AFTER_S)
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status == 415:
        headers["Accept-Encoding"] = "gzip"
    return JSONResponse(body, status, headers, MEDIA_TYPE)


def status_of(error: MainstayError) -> int:
    """Return the HTTP status of an error: that of its class or of the nearest ancestor class.

    >>> status_of(PageTokenError("x")), status_of(NotFound("x"))
    (400, 404)
    """
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def _handle_mainstay_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, MainstayError)
    findings = map(FindingOut.of, error.findings if isinstance(error, InvalidInput) else ())
    text = error.text if isinstance(error, InvalidInput) else next(iter(error.args), None)
    detail = text if isinstance(text, Message) else str(error)
    return problem(request, status_of(error), _kebab(type(error).__name__), detail, findings)


def _handle_invalid_request(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    findings = first_findings(map(_finding, error.errors()))
    return problem(request, 422, "invalid-request", message("request_invalid"), map(FindingOut.of, findings))


def _handle_http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    response = problem(request, error.status_code, _kebab(HTTPStatus(error.status_code).phrase), str(error.detail))
    response.headers.update(error.headers or {})
    return response


def _handle_unexpected(request: Request, error: Exception) -> JSONResponse:
    log.error("unexpected error: %s %s", request.method, request.url.path, exc_info=error)
    return problem(request, 500, "internal", message("service_failed"))


def _finding(error: dict[str, Any]) -> Finding:
    """Return a pydantic error as a finding, with its location as a path such as body.items[3].title."""
    path = ""
    for part in error["loc"]:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return Finding(path.lstrip("."), schema_fault(error))


def _printable(value: Any) -> Any:
    """Return the parameters of a message with all texts printable: they may repeat what a client sent."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(name): _printable(member) for name, member in value.items()}
    return [_printable(member) for member in value] if isinstance(value, list | tuple) else value


def _kebab(name: str) -> str:
    """Return a name in kebab case.

    >>> _kebab("PageTokenError"), _kebab("Not Found")
    ('page-token-error', 'not-found')
    """
    spaced = "".join(f"-{c.lower()}" if c.isupper() else c for c in name.replace(" ", ""))
    return spaced.lstrip("-")


def _example(status: int) -> dict[str, object]:
    too_large = Finding("body.slots", message("number_too_large", limit=50))
    name = {
        400: "page-token-error",
        401: "unauthorised",
        403: "forbidden",
        404: "not-found",
        409: "conflict",
        413: "too-large",
        415: "unsupported-media-type",
        429: "busy",
    }
    return {
        "type": f"urn:mainstay:problem:{name.get(status, 'unavailable' if status == 503 else 'invalid-request')}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": "A description of the error.",
        "code": "text",
        "params": {"text": "A description of the error."},
        "instance": "/v1/...",
        "findings": [asdict(FindingOut.of(too_large))] if status == 422 else [],
    }
