"""Errors on the wire: RFC 9457 problem+json, from one table. Nothing else in the house knows HTTP status codes."""

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

from features.state.codec import StateError
from recsys.domain.errors import (
    BundleError,
    Conflict,
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
    describe_fault,
)

log = logging.getLogger("mainstay.serving")


class Unauthorised(MainstayError):
    """The request lacks the editors' token, or shows a wrong one."""


class NotJson(InvalidInput):
    """A body that is not JSON."""


class TooLarge(InvalidInput):
    """More than one request may carry."""


class Busy(MainstayError):
    """More work of a kind than this service does at once; the caller may try again later."""


STATUS: dict[type[MainstayError], int] = {  # the nearest ancestor in this table decides
    MainstayError: 500,
    InvalidInput: 422,
    NotJson: 400,
    PageTokenError: 400,
    EventError: 422,
    ItemError: 422,
    PolicyError: 422,
    TooLarge: 413,
    Unauthorised: 401,
    Busy: 429,
    NotFound: 404,
    Conflict: 409,
    BundleError: 503,
    StateError: 503,
    Unavailable: 503,
}

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 1


@dataclass(frozen=True, slots=True)
class FindingOut:
    """A finding on the wire: where it is, what is wrong, and how bad it is."""

    where: Annotated[str, Field(examples=["events[2].data.item_id"])]
    message: Annotated[str, Field(examples=["a play event requires an item_id"])]
    level: Annotated[
        Level,
        Field(
            description="error: cannot be accepted; warning: will not do what it says; hint: does nothing that shows"
        ),
    ] = "error"
    control: Annotated[
        str | None, Field(description="id of the policy's control that `where` lies in; null outside of controls")
    ] = None

    @classmethod
    def of(cls, finding: Finding, control: str | None = None) -> FindingOut:
        """Return a finding as the API shows it."""
        return cls(**vars(finding), control=control)


class Problem(BaseModel):
    """An error as RFC 9457 problem details. `findings` name every place that is wrong, not only the first."""

    type: str = Field(examples=["urn:mainstay:problem:conflict"])
    title: str = Field(examples=["Conflict"])
    status: int = Field(examples=[409])
    detail: str = Field(examples=["policy of cn.zj: version 4 is newer than 3, on which this is based"])
    instance: str = Field(examples=["/v1/policies/cn.zj/draft"])
    findings: list[FindingOut] = []


def install(app: FastAPI) -> None:
    """Answer every error of this app, foreseen or not, as a problem."""
    app.add_exception_handler(MainstayError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unforeseen)
    _describe(app)


def _describe(app: FastAPI) -> None:
    """Let the OpenAPI document say so too: FastAPI's own validation errors never leave this service."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        schema = plain()
        named = schema["components"]["schemas"]
        if "HTTPValidationError" in named:
            for operation in (o for methods in schema["paths"].values() for o in methods.values()):
                for status, answer in operation["responses"].items():
                    if "application/json" in answer.get("content", {}) and int(status) >= 400:
                        answer["content"] = documented(int(status))[int(status)]["content"]
            del named["HTTPValidationError"], named["ValidationError"]
        return schema

    app.openapi = openapi  # type: ignore[method-assign]


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may fail in these ways."""
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
    detail: str,
    findings: Iterable[FindingOut] = (),
    **extra: object,
) -> JSONResponse:
    """One problem as a response; `name` is the last part of its type, in kebab case."""
    body: dict[str, object] = {
        "type": f"urn:mainstay:problem:{name}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": request.url.path,
        "findings": [asdict(finding) for finding in findings],
        **extra,
    }
    headers = {}
    if status in (429, 503):
        headers["Retry-After"] = str(RETRY_AFTER_S)
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(body, status, headers, MEDIA_TYPE)


def status_of(error: MainstayError) -> int:
    """The status of an error: its own, or its nearest ancestor's.

    >>> status_of(PageTokenError("x")), status_of(NotFound("x"))
    (400, 404)
    """
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def _ours(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, MainstayError)
    findings = map(FindingOut.of, error.findings if isinstance(error, InvalidInput) else ())
    detail = error.message if isinstance(error, InvalidInput) else str(error)
    return problem(request, status_of(error), _kebab(type(error).__name__), detail, findings)


def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    if _unread(request, error):
        sent = request.headers.get("content-type", "none")
        findings = [FindingOut("header.content-type", f"send content-type: application/json (this came with {sent})")]
        return problem(request, 422, "invalid-request", "the body was not read as JSON", findings)
    if any(one["type"] == "json_invalid" for one in error.errors()):
        return problem(request, 400, "not-json", "the body is not JSON", map(_finding, error.errors()))
    return problem(request, 422, "invalid-request", "the request is not valid", map(_finding, error.errors()))


def _unread(request: Request, error: RequestValidationError) -> bool:
    """Whether the body was left as bytes because its content type is not JSON's."""
    whole = any(one["loc"] == ("body",) for one in error.errors())
    return whole and "json" not in request.headers.get("content-type", "")


def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    answer = problem(request, error.status_code, _kebab(HTTPStatus(error.status_code).phrase), str(error.detail))
    answer.headers.update(error.headers or {})
    return answer


def _unforeseen(request: Request, error: Exception) -> JSONResponse:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return problem(request, 500, "internal", "the service failed; its log says why")


def _finding(error: dict[str, Any]) -> FindingOut:
    """Return an error of pydantic, its location as a path: body.slots, query.page_size, body.items[3].title."""
    where = ""
    for part in error["loc"]:
        where += f"[{part}]" if isinstance(part, int) else f".{part}"
    return FindingOut(where.lstrip("."), describe_fault(error))


def _kebab(name: str) -> str:
    """
    >>> _kebab("PageTokenError"), _kebab("Not Found")
    ('page-token-error', 'not-found')
    """
    spaced = "".join(f"-{c.lower()}" if c.isupper() else c for c in name.replace(" ", ""))
    return spaced.lstrip("-")


def _example(status: int) -> dict[str, object]:
    name = {
        400: "page-token-error",
        401: "unauthorised",
        404: "not-found",
        409: "conflict",
        413: "too-large",
        429: "busy",
    }
    return {
        "type": f"urn:mainstay:problem:{name.get(status, 'unavailable' if status == 503 else 'invalid-request')}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": "what went wrong, for people",
        "instance": "/v1/...",
        "findings": [{"where": "body.slots", "message": "should be less than or equal to 50"}] if status == 422 else [],
    }
