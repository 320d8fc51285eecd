"""Exposure targets: their status, and the operations on them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from recsys.domain.fields import Code, Id
from serving.api.auth import EDITORS_ONLY
from serving.api.dependencies import Paging, Targets
from serving.api.strict_query import STRICT_QUERY
from serving.edge.route import EdgeRoute
from serving.schemas.lists import TargetList, TargetsQuery
from serving.schemas.problems import documented
from serving.schemas.resources import DraftAnswer
from serving.schemas.targets import AmountChange, CloneRequest, TargetChange, TargetReport

OutletCode = Annotated[Code, Path(examples=["cn.zj.hz"], description="Outlet whose policy defines the target.")]
TargetId = Annotated[Id, Path(examples=["harvest"])]
ERRORS = documented(401, 404, 422, 503)


router = APIRouter(tags=["targets"], dependencies=STRICT_QUERY, route_class=EdgeRoute)


@router.get(
    "/v1/targets", summary="List the exposure targets in force and their status", responses=documented(400, 422)
)
def list_targets(targets: Targets, paging: Paging, query: Annotated[TargetsQuery, Query()]) -> TargetList:
    name = f"targets of {query.outlet or 'all'}"
    page, token = paging.page(name, query, targets.all(query.outlet), lambda target: f"{target.outlet}/{target.id}")
    return TargetList(targets=page, next_page_token=token)


@router.get(
    "/v1/targets/{outlet}/{target:path}",
    summary="Get the report of a target",
    responses=documented(404, 422),
)
def report(outlet: OutletCode, target: TargetId, targets: Targets) -> TargetReport:
    return targets.report(outlet, target)


@router.post(
    "/v1/targets/{outlet}/{target:path}/pause", summary="Pause a target", responses=ERRORS, dependencies=EDITORS_ONLY,
    status_code=204,
)  # fmt: skip
def pause(outlet: OutletCode, target: TargetId, body: TargetChange, targets: Targets) -> None:
    targets.pause(outlet, target, body)


@router.post(
    "/v1/targets/{outlet}/{target:path}/resume",
    summary="Resume a paused target",
    description="The rest of the plan is computed again from the amount delivered so far.",
    responses=ERRORS,
    dependencies=EDITORS_ONLY,
    status_code=204,
)
def resume(outlet: OutletCode, target: TargetId, body: TargetChange, targets: Targets) -> None:
    targets.resume(outlet, target, body)


@router.post(
    "/v1/targets/{outlet}/{target:path}/stop", summary="Stop a target permanently", responses=ERRORS,
    dependencies=EDITORS_ONLY, status_code=204,
)  # fmt: skip
def stop(outlet: OutletCode, target: TargetId, body: TargetChange, targets: Targets) -> None:
    targets.stop(outlet, target, body)


@router.post(
    "/v1/targets/{outlet}/{target:path}/amount",
    summary="Change the amount of a running target",
    responses=ERRORS,
    dependencies=EDITORS_ONLY,
    status_code=204,
)
def amount(outlet: OutletCode, target: TargetId, body: AmountChange, targets: Targets) -> None:
    targets.amount(outlet, target, body)


@router.post(
    "/v1/targets/{outlet}/{target:path}/clone",
    status_code=201,
    summary="Draft a copy of a target",
    description="The copy is saved as a draft: the next version of the outlet's policy, which can then be published.",
    responses=documented(401, 404, 409, 422, 503),
    dependencies=EDITORS_ONLY,
)
def clone(outlet: OutletCode, target: TargetId, body: CloneRequest, targets: Targets) -> DraftAnswer:
    return targets.clone(outlet, target, body)
