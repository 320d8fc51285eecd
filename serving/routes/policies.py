"""Outlets, policies and the audit trail."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from recsys.catalog import Code
from recsys.errors import Finding, InvalidInput
from recsys.messages import message
from serving.access import editors_only
from serving.body import read_json, read_text
from serving.control import ControlPlane
from serving.desk import PolicyDesk
from serving.problems import documented
from serving.queries import known_queries
from serving.schemas import (
    AuditAnswer,
    AuditOut,
    DraftAnswer,
    DraftRequest,
    History,
    InForce,
    LintAnswer,
    OutletAnswer,
    OutletRequest,
    PolicyAnswer,
    PolicyText,
    PolicyVersionOut,
    PublishRequest,
    rfc3339,
)

Form = TypeVar("Form", bound=BaseModel)


def _body(form: type[BaseModel], example: dict[str, Any]) -> dict[str, Any]:
    """What OpenAPI says of a body that is JSON of this form, or a policy as YAML."""
    yaml = {"schema": {"type": "string"}, "example": "outlet: cn.zj\nweights: {locality: 0.003}\n"}
    said = {"application/json": {"schema": form.model_json_schema(), "example": example}, "application/yaml": yaml}
    return {"requestBody": {"required": True, "content": said}}


PUBLISH_BODY = _body(PublishRequest, {"version": 4, "author": "Lin Yue", "base_version": 3})
_EXAMPLE = {"text": "outlet: cn.zj\nweights: {locality: 0.003}\n"}
Who = Annotated[str, Query(min_length=1, max_length=200, description="of a policy sent as YAML")]
Note = Annotated[str, Query(max_length=2000, description="of a policy sent as YAML")]
Base = Annotated[
    int | None,
    Query(
        ge=0,
        description="of a policy sent as YAML: the newest version the author has seen, 0 for none; another one saved "
        "since is then a conflict",
    ),
]


OutletCode = Annotated[Code, Path(examples=["cn.zj.hz"], description="code of the outlet in the tree")]


def routes(desk: PolicyDesk, control: ControlPlane, admin_token: str) -> APIRouter:
    """The policy routes; all that write, and the audit trail, are for editors."""
    router = APIRouter(tags=["policies"], dependencies=[Depends(known_queries)])
    editors = [Depends(editors_only(admin_token))]

    @router.get("/v1/outlets", summary="Every outlet, parents before children")
    def outlets() -> list[OutletAnswer]:
        return desk.outlets()

    @router.put(
        "/v1/outlets/{outlet}",
        summary="Name an outlet",
        responses=documented(401, 422, 503),
        dependencies=editors,
    )
    def name_outlet(outlet: OutletCode, body: OutletRequest) -> OutletAnswer:
        return desk.name_outlet(outlet, body.name, body.author)

    @router.get(
        "/v1/policies/{outlet}",
        summary="What an outlet says, and what is in force there",
        responses=documented(404, 422, 503),
    )
    def policy(outlet: OutletCode) -> PolicyAnswer:
        return desk.policy(outlet)

    @router.get(
        "/v1/policies/{outlet}/effective",
        summary="What is in force at an outlet, whether or not it says anything itself",
        responses=documented(404, 422, 503),
    )
    def in_force(outlet: OutletCode) -> InForce:
        return desk.in_force(outlet)

    @router.post(
        "/v1/policies/{outlet}/lint",
        summary="Check a policy without saving it",
        description="Contradictions, dead rules, unmeetable floors, loosened parents: each finding at its field. "
        "Takes `application/yaml` too.",
        responses=documented(400, 401, 413, 422, 503),
        dependencies=editors,
        openapi_extra=_body(PolicyText, _EXAMPLE),
    )
    async def lint(request: Request, outlet: OutletCode) -> LintAnswer:
        if _is_yaml(request):
            said = PolicyText(text=await read_text(request))
        else:
            said = _said(PolicyText, await read_json(request))
        return LintAnswer(findings=await run_in_threadpool(desk.lint, outlet, said))

    @router.post(
        "/v1/policies/{outlet}/draft",
        status_code=201,
        summary="Save a new version",
        description="Versions are only ever appended. 422 names every field that is wrong; lint's findings come along. "
        "Takes `application/yaml` too, with `author`, `note` and `base_version` in the query.",
        responses=documented(400, 401, 409, 413, 422, 503),
        dependencies=editors,
        openapi_extra=_body(
            DraftRequest, {**_EXAMPLE, "author": "Lin Yue", "note": "a little nearer", "base_version": 3}
        ),
    )
    async def draft(
        request: Request, outlet: OutletCode, author: Who = "api", note: Note = "", base_version: Base = None
    ) -> DraftAnswer:
        if _is_yaml(request):
            said = DraftRequest(text=await read_text(request), author=author, note=note, base_version=base_version)
        else:
            _no_queries(request)
            said = _said(DraftRequest, await read_json(request))
        return await run_in_threadpool(desk.draft, outlet, said)

    @router.post(
        "/v1/policies/{outlet}/publish",
        summary="Put a saved version in force",
        description=(
            "In force in every serving process within a second; every page and impression names it. A policy sent as "
            "`application/yaml` is saved as the next version and put in force in one step, with `author`, `note` and "
            "`base_version` in the query."
        ),
        responses=documented(400, 401, 404, 409, 413, 422, 503),
        dependencies=editors,
        openapi_extra=PUBLISH_BODY,
    )
    async def publish(
        request: Request, outlet: OutletCode, author: Who = "api", note: Note = "", base_version: Base = None
    ) -> PolicyVersionOut:
        if _is_yaml(request):
            sent = DraftRequest(text=await read_text(request), author=author, note=note, base_version=base_version)
            return await run_in_threadpool(desk.publish_text, outlet, sent)
        _no_queries(request)
        said = _said(PublishRequest, await read_json(request))
        return await run_in_threadpool(desk.publish, outlet, said)

    @router.post(
        "/v1/policies/{outlet}/rollback",
        summary="Put an earlier version in force again",
        responses=documented(401, 404, 409, 422, 503),
        dependencies=editors,
    )
    def rollback(outlet: OutletCode, body: PublishRequest) -> PolicyVersionOut:
        return desk.rollback(outlet, body)

    @router.get(
        "/v1/policies/{outlet}/history",
        summary="Every version ever saved, newest first",
        responses=documented(422, 503),
    )
    def history(outlet: OutletCode) -> History:
        return History(outlet=outlet, versions=desk.history(outlet))

    @router.get(
        "/v1/audit",
        summary="Who did what when",
        description="Each row is hashed over the row before, so altering or removing one breaks the chain.",
        responses=documented(401, 422, 503),
        dependencies=editors,
    )
    def audit(
        after: Annotated[int, Query(ge=0, description="`next` of the page before, oldest first")] = 0,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        before: Annotated[int | None, Query(ge=1, description="`next` of the page before, newest first")] = None,
        order: Literal["oldest", "newest"] = "oldest",
    ) -> AuditAnswer:
        rows = control.audit(after, limit, before, newest_first=order == "newest")
        return AuditAnswer(
            rows=[AuditOut(**{**vars(row), "at": rfc3339(row.at)}) for row in rows],
            next=rows[-1].seq if len(rows) == limit else None,
        )

    return router


def _is_yaml(request: Request) -> bool:
    return "yaml" in request.headers.get("content-type", "")


def _no_queries(request: Request) -> None:
    """Raises InvalidInput for what a body in JSON says itself: in the query nobody would read it."""
    if request.query_params:
        findings = [Finding(f"query.{name}", message("query_beside_json", name=name)) for name in request.query_params]
        raise InvalidInput(message("request_invalid"), findings)


def _said(form: type[Form], body: object) -> Form:
    """The body in JSON, with FastAPI's own words when it is not valid."""
    try:
        return form.model_validate(body)
    except ValidationError as error:
        raise RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in error.errors()]) from error
