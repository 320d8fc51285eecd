"""Outlets, policies and the audit trail."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Path, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError

from recsys.domain.errors import Finding, InvalidInput
from recsys.domain.item import Code
from recsys.messages import message
from serving.api.auth import EDITORS_ONLY
from serving.api.body import read_json, read_text
from serving.api.dependencies import Control, Paging, Policies
from serving.api.pagination import PageQuery
from serving.api.strict_query import STRICT_QUERY
from serving.schemas.lists import AuditList, AuditQuery, OutletList, VersionList
from serving.schemas.problems import documented
from serving.schemas.resources import (
    AuditOut,
    DraftAnswer,
    DraftRequest,
    InForce,
    LintAnswer,
    OutletAnswer,
    OutletRequest,
    PolicyAnswer,
    PolicyText,
    PolicyVersionOut,
    PublishRequest,
    RequestModel,
    rfc3339,
)

Form = TypeVar("Form", bound=BaseModel)


def _body(form: type[BaseModel], example: dict[str, Any]) -> dict[str, Any]:
    """Return the OpenAPI description of a body that is JSON of this form, or a policy as YAML."""
    yaml = {"schema": {"type": "string"}, "example": "outlet: cn.zj\nweights: {locality: 0.003}\n"}
    content = {"application/json": {"schema": form.model_json_schema(), "example": example}, "application/yaml": yaml}
    return {"requestBody": {"required": True, "content": content}}


PUBLISH_BODY = _body(PublishRequest, {"version": 4, "author": "Lin Yue", "base_version": 3})
_EXAMPLE = {"text": "outlet: cn.zj\nweights: {locality: 0.003}\n"}
OutletCode = Annotated[Code, Path(examples=["cn.zj.hz"], description="code of the outlet in the tree")]


class YamlQuery(RequestModel):
    """What is sent along with a policy in YAML."""

    author: Annotated[str, Field(min_length=1, max_length=200)] = Field("api", description="of a policy sent as YAML")
    note: Annotated[str, Field(max_length=2000)] = Field("", description="of a policy sent as YAML")
    base_version: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description="of a policy sent as YAML: the newest version the author has seen, 0 for none; another one saved "
        "since is then a conflict",
    )


router = APIRouter(tags=["policies"], dependencies=STRICT_QUERY)


@router.get("/v1/outlets", summary="Every outlet, parents before children", responses=documented(400, 422))
def list_outlets(policies: Policies, paging: Paging, query: Annotated[PageQuery, Query()]) -> OutletList:
    page, token = paging.page("outlets", query, policies.outlets(), lambda outlet: outlet.code)
    return OutletList(outlets=page, next_page_token=token)


@router.put(
    "/v1/outlets/{outlet}",
    summary="Name an outlet",
    responses=documented(401, 422, 503),
    dependencies=EDITORS_ONLY,
)
def name_outlet(outlet: OutletCode, body: OutletRequest, policies: Policies) -> OutletAnswer:
    return policies.name_outlet(outlet, body.name, body.author)


@router.get(
    "/v1/policies/{outlet}",
    summary="What an outlet says, and what is in force there",
    responses=documented(404, 422, 503),
)
def policy(outlet: OutletCode, policies: Policies) -> PolicyAnswer:
    return policies.policy(outlet)


@router.get(
    "/v1/policies/{outlet}/effective",
    summary="What is in force at an outlet, whether or not it says anything itself",
    responses=documented(404, 422, 503),
)
def in_force(outlet: OutletCode, policies: Policies) -> InForce:
    return policies.in_force(outlet)


@router.post(
    "/v1/policies/{outlet}/lint",
    summary="Check a policy without saving it",
    description="Contradictions, dead rules, unmeetable floors, loosened parents: each finding at its field. "
    "Takes `application/yaml` too.",
    responses=documented(400, 401, 413, 422, 503),
    dependencies=EDITORS_ONLY,
    openapi_extra=_body(PolicyText, _EXAMPLE),
)
async def lint(request: Request, outlet: OutletCode, policies: Policies) -> LintAnswer:
    if _is_yaml(request):
        body = PolicyText(text=await read_text(request))
    else:
        body = _validated(PolicyText, await read_json(request))
    return LintAnswer(findings=await run_in_threadpool(policies.lint, outlet, body))


@router.post(
    "/v1/policies/{outlet}/draft",
    status_code=201,
    summary="Save a new version",
    description="Versions are only ever appended. 422 names every field that is wrong; lint's findings come along. "
    "Takes `application/yaml` too, with `author`, `note` and `base_version` in the query.",
    responses=documented(400, 401, 409, 413, 422, 503),
    dependencies=EDITORS_ONLY,
    openapi_extra=_body(DraftRequest, {**_EXAMPLE, "author": "Lin Yue", "note": "a little nearer", "base_version": 3}),
)
async def draft(
    request: Request, outlet: OutletCode, policies: Policies, query: Annotated[YamlQuery, Query()]
) -> DraftAnswer:
    if _is_yaml(request):
        body = DraftRequest(text=await read_text(request), **vars(query))
    else:
        _forbid_query(request)
        body = _validated(DraftRequest, await read_json(request))
    return await run_in_threadpool(policies.draft, outlet, body)


@router.post(
    "/v1/policies/{outlet}/publish",
    summary="Put a saved version in force",
    description=(
        "In force in every serving process within a second; every page and impression names it. A policy sent as "
        "`application/yaml` is saved as the next version and put in force in one step, with `author`, `note` and "
        "`base_version` in the query."
    ),
    responses=documented(400, 401, 404, 409, 413, 422, 503),
    dependencies=EDITORS_ONLY,
    openapi_extra=PUBLISH_BODY,
)
async def publish(
    request: Request, outlet: OutletCode, policies: Policies, query: Annotated[YamlQuery, Query()]
) -> PolicyVersionOut:
    if _is_yaml(request):
        draft = DraftRequest(text=await read_text(request), **vars(query))
        return await run_in_threadpool(policies.publish_text, outlet, draft)
    _forbid_query(request)
    body = _validated(PublishRequest, await read_json(request))
    return await run_in_threadpool(policies.publish, outlet, body)


@router.post(
    "/v1/policies/{outlet}/rollback",
    summary="Put an earlier version in force again",
    responses=documented(401, 404, 409, 422, 503),
    dependencies=EDITORS_ONLY,
)
def rollback(outlet: OutletCode, body: PublishRequest, policies: Policies) -> PolicyVersionOut:
    return policies.rollback(outlet, body)


@router.get(
    "/v1/policies/{outlet}/history",
    summary="Every version ever saved, newest first",
    responses=documented(400, 422, 503),
)
def history(
    outlet: OutletCode, policies: Policies, paging: Paging, query: Annotated[PageQuery, Query()]
) -> VersionList:
    versions = policies.history(outlet)
    page, token = paging.page(f"versions of {outlet}", query, versions, lambda version: -version.version)
    return VersionList(outlet=outlet, versions=page, next_page_token=token)


@router.get(
    "/v1/audit",
    summary="Who did what when",
    description="Each entry is hashed over the entry before, so altering or removing one breaks the chain.",
    responses=documented(400, 401, 422, 503),
    dependencies=EDITORS_ONLY,
)
def audit(control: Control, paging: Paging, query: Annotated[AuditQuery, Query()]) -> AuditList:
    name, newest_first = f"audit, {query.order} first", query.order == "newest"
    position = paging.position(name, query)
    after, before = (0, position) if newest_first else (position or 0, None)
    rows = control.audit(after, query.page_size + 1, before, newest_first=newest_first)
    page, token = paging.cut(name, query, rows, lambda row: row.seq)
    entries = [AuditOut(**{**vars(row), "at": rfc3339(row.at)}) for row in page]
    return AuditList(entries=entries, next_page_token=token)


def _is_yaml(request: Request) -> bool:
    return "yaml" in request.headers.get("content-type", "")


def _forbid_query(request: Request) -> None:
    """Raises InvalidInput for query parameters beside a body in JSON, which has these fields itself."""
    if request.query_params:
        findings = [Finding(f"query.{name}", message("query_beside_json", name=name)) for name in request.query_params]
        raise InvalidInput(message("request_invalid"), findings)


def _validated(form: type[Form], body: object) -> Form:
    """Return a body in JSON as a model. Raises RequestValidationError, as FastAPI does for bodies it reads itself."""
    try:
        return form.model_validate(body)
    except ValidationError as error:
        raise RequestValidationError([{**fault, "loc": ("body", *fault["loc"])} for fault in error.errors()]) from error
