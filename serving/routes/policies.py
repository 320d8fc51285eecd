"""Outlets, policies and the audit trail."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from recsys.catalog import Code
from serving.access import editors_only
from serving.body import read_json, read_text
from serving.control import ControlPlane
from serving.desk import PolicyDesk
from serving.problems import documented
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

PUBLISH_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": PublishRequest.model_json_schema(),
                "example": {"version": 4, "author": "Lin Yue", "base_version": 3},
            },
            "application/yaml": {"schema": {"type": "string"}, "example": "outlet: cn.zj\nweights: {locality: 0.2}\n"},
        },
    }
}


OutletCode = Annotated[Code, Path(examples=["cn.zj.hz"], description="code of the outlet in the tree")]


def routes(desk: PolicyDesk, control: ControlPlane, admin_token: str) -> APIRouter:
    """The policy routes; all that write, and the audit trail, are for editors."""
    router = APIRouter(tags=["policies"])
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
        description="Contradictions, dead rules, unmeetable floors, loosened parents: each finding at its field.",
        responses=documented(401, 422, 503),
        dependencies=editors,
    )
    def lint(outlet: OutletCode, body: PolicyText) -> LintAnswer:
        return LintAnswer(findings=desk.lint(outlet, body))

    @router.post(
        "/v1/policies/{outlet}/draft",
        status_code=201,
        summary="Save a new version",
        description="Versions are only ever appended. 422 names every field that is wrong; lint's findings come along.",
        responses=documented(401, 409, 422, 503),
        dependencies=editors,
    )
    def draft(outlet: OutletCode, body: DraftRequest) -> DraftAnswer:
        return desk.draft(outlet, body)

    @router.post(
        "/v1/policies/{outlet}/publish",
        summary="Put a saved version in force",
        description=(
            "In force in every serving process within a second; every page and impression names it. A policy sent as "
            "`application/yaml` is saved as the next version and put in force in one step."
        ),
        responses=documented(400, 401, 404, 409, 413, 422, 503),
        dependencies=editors,
        openapi_extra=PUBLISH_BODY,
    )
    async def publish(
        request: Request,
        outlet: OutletCode,
        author: Annotated[str, Query(min_length=1, max_length=200, description="of a policy sent as YAML")] = "api",
        note: Annotated[str, Query(max_length=2000)] = "",
    ) -> PolicyVersionOut:
        if "yaml" in request.headers.get("content-type", ""):
            text = await read_text(request)
            return await run_in_threadpool(desk.publish_text, outlet, text, author, note)
        said = _publish_request(await read_json(request))
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


def _publish_request(body: object) -> PublishRequest:
    """The body of a publish in JSON, with FastAPI's own words when it is not valid."""
    try:
        return PublishRequest.model_validate(body)
    except ValidationError as error:
        raise RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in error.errors()]) from error
