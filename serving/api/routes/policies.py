"""The routes of outlets, policies and the audit trail."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Path, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError

from recsys.domain.errors import Finding, InvalidInput
from recsys.domain.fields import Code, QueryInteger, Text
from recsys.messages import message
from serving.api.auth import EDITORS_ONLY
from serving.api.body import read_json, read_text
from serving.api.dependencies import Control, Paging, Policies
from serving.api.disconnect import run_while_connected
from serving.api.pagination import PageQuery
from serving.api.strict_query import STRICT_QUERY
from serving.edge.media_types import kind_of
from serving.edge.route import EdgeRoute
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

Model = TypeVar("Model", bound=BaseModel)


def _body(model: type[BaseModel], example: dict[str, Any]) -> dict[str, Any]:
    """Return the OpenAPI description of a body that is this model as JSON, or a policy as YAML."""
    yaml = {"schema": {"type": "string"}, "example": "outlet: cn.zj\nweights: {locality: 0.003}\n"}
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)  # the models of other routes are components of the document already
    content = {"application/json": {"schema": schema, "example": example}, "application/yaml": yaml}
    return {"requestBody": {"required": True, "content": content}}


PUBLISH_BODY = _body(PublishRequest, {"version": 4, "author": "Lin Yue", "base_version": 3})
_EXAMPLE = {"text": "outlet: cn.zj\nweights: {locality: 0.003}\n"}
OutletCode = Annotated[
    Code, Path(examples=["cn.zj.hz"], description="Code of the outlet, which contains the codes of its ancestors.")
]


class YamlQuery(RequestModel):
    """The query parameters of a policy in YAML."""

    author: Annotated[Text, Field(min_length=1, max_length=200)] = Field(
        "api", description="Author of a policy that is sent as YAML."
    )
    note: Annotated[Text, Field(max_length=2000)] = Field("", description="Note on a policy that is sent as YAML.")
    base_version: Annotated[QueryInteger, Field(ge=0, lt=2**31)] | None = Field(
        None,
        description="For a policy that is sent as YAML: the version on which the policy is based, 0 for none. If a "
        "newer version exists, the request fails with 409.",
    )


router = APIRouter(tags=["policies"], dependencies=STRICT_QUERY, route_class=EdgeRoute)


@router.get("/v1/outlets", summary="List all outlets, parents before children", responses=documented(400, 422))
def list_outlets(policies: Policies, paging: Paging, query: Annotated[PageQuery, Query()]) -> OutletList:
    page, token = paging.page("outlets", query, policies.outlets(), lambda outlet: outlet.code)
    return OutletList(outlets=page, next_page_token=token)


@router.put(
    "/v1/outlets/{outlet}",
    summary="Set the name of an outlet",
    responses=documented(401, 422, 503),
    dependencies=EDITORS_ONLY,
)
def name_outlet(outlet: OutletCode, body: OutletRequest, policies: Policies) -> OutletAnswer:
    return policies.name_outlet(outlet, body.name, body.author)


@router.get(
    "/v1/policies/{outlet}",
    summary="Get the policy of an outlet and the effective policy",
    responses=documented(404, 422, 503),
)
def policy(outlet: OutletCode, policies: Policies) -> PolicyAnswer:
    return policies.policy(outlet)


@router.get(
    "/v1/policies/{outlet}/effective",
    summary="Get the effective policy of an outlet",
    description="The effective policy combines the outlet's own policy, if it has one, with those of its ancestors.",
    responses=documented(404, 422, 503),
)
def in_force(outlet: OutletCode, policies: Policies) -> InForce:
    return policies.in_force(outlet)


@router.post(
    "/v1/policies/{outlet}/lint",
    summary="Check a policy without saving it",
    description=(
        "Reports contradictions, controls without effect, minimums that cannot be met, and controls that loosen those "
        "of a parent. Each finding names the field concerned. The body is JSON, or the policy as `application/yaml`."
    ),
    responses=documented(400, 401, 413, 422, 503),
    dependencies=EDITORS_ONLY,
    openapi_extra=_body(PolicyText, _EXAMPLE),
)
async def lint(request: Request, outlet: OutletCode, policies: Policies) -> LintAnswer:
    if _is_yaml(request):
        body = PolicyText(text=await read_text(request))
    else:
        body = _validated(PolicyText, await read_json(request))
    return LintAnswer(findings=await run_while_connected(request, policies.lint, outlet, body))


@router.post(
    "/v1/policies/{outlet}/draft",
    status_code=201,
    summary="Save a new version of a policy",
    description=(
        "Saved versions are never changed. If the policy is invalid, the status is 422 and the findings name each "
        "invalid field. The response contains the findings of lint. The body is JSON, or the policy as "
        "`application/yaml` with `author`, `note` and `base_version` as query parameters."
    ),
    responses=documented(400, 401, 409, 413, 422, 503),
    dependencies=EDITORS_ONLY,
    openapi_extra=_body(DraftRequest, {**_EXAMPLE, "author": "Lin Yue", "note": "More local items", "base_version": 3}),
)
async def draft(
    request: Request, outlet: OutletCode, policies: Policies, query: Annotated[YamlQuery, Query()]
) -> DraftAnswer:
    if _is_yaml(request):
        body = DraftRequest(text=await read_text(request), **vars(query))
    else:
        _forbid_query(request)
        body = _validated(DraftRequest, await read_json(request))
    return await run_while_connected(request, policies.draft, outlet, body)


@router.post(
    "/v1/policies/{outlet}/publish",
    summary="Publish a saved version",
    description=(
        "The version is in force in every serving process within a second, and every page and impression contains its "
        "number. A policy that is sent as `application/yaml`, with `author`, `note` and `base_version` as query "
        "parameters, is saved as the next version and published in one step. If the controls contradict each other in "
        "so many ways that pages exceed their budget, the status is 422 and nothing is published."
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
    summary="Publish an earlier version again",
    responses=documented(401, 404, 409, 422, 503),
    dependencies=EDITORS_ONLY,
)
def rollback(outlet: OutletCode, body: PublishRequest, policies: Policies) -> PolicyVersionOut:
    return policies.rollback(outlet, body)


@router.get(
    "/v1/policies/{outlet}/history",
    summary="List all saved versions, newest first",
    description="Versions include drafts, with their authors and notes.",
    responses=documented(400, 401, 422, 503),
    dependencies=EDITORS_ONLY,
)
def history(
    outlet: OutletCode, policies: Policies, paging: Paging, query: Annotated[PageQuery, Query()]
) -> VersionList:
    versions = policies.history(outlet)
    page, token = paging.page(f"versions of {outlet}", query, versions, lambda version: -version.version)
    return VersionList(outlet=outlet, versions=page, next_page_token=token)


@router.get(
    "/v1/audit",
    summary="List the audit trail",
    description=(
        "The hash of each entry covers the previous entry, so that changing or removing an entry breaks the chain of "
        "hashes."
    ),
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
    return kind_of(request.headers.get("content-type", "")) == "yaml"


def _forbid_query(request: Request) -> None:
    """Raise InvalidInput if there are query parameters in addition to a JSON body, which contains these fields."""
    if request.query_params:
        findings = (Finding(f"query.{name}", message("query_beside_json", name=name)) for name in request.query_params)
        raise InvalidInput(message("request_invalid"), findings)


def _validated(model: type[Model], body: object) -> Model:
    """Return a JSON body as a model. Raises RequestValidationError, as FastAPI does for the bodies that it parses."""
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise RequestValidationError([{**fault, "loc": ("body", *fault["loc"])} for fault in error.errors()]) from error
