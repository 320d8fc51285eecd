"""Exposure targets: how they stand, and orders to them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query

from recsys.catalog import Code, Id
from serving.access import editors_only
from serving.problems import documented
from serving.schemas import DraftAnswer
from serving.target_schemas import AmountOrder, CloneOrder, TargetOrder, TargetOut, TargetReport
from serving.targets import TargetDesk

OutletCode = Annotated[Code, Path(examples=["cn.zj.hz"], description="outlet whose policy says the target")]
TargetId = Annotated[Id, Path(examples=["harvest"])]
FAULTS = documented(401, 404, 422, 503)


def routes(desk: TargetDesk, admin_token: str) -> APIRouter:
    """The target routes; orders are for editors, are on the audit trail and in force within two seconds."""
    router = APIRouter(tags=["targets"])
    editors = [Depends(editors_only(admin_token))]

    @router.get("/v1/targets", summary="Exposure targets in force, and how they stand")
    def targets(
        outlet: Annotated[Code | None, Query(description="of this outlet's own policy")] = None,
    ) -> list[TargetOut]:
        return desk.all(outlet)

    @router.get(
        "/v1/targets/{outlet}/{target}",
        summary="One target: its course, its price, its forecast",
        responses=documented(404, 422),
    )
    def report(outlet: OutletCode, target: TargetId) -> TargetReport:
        return desk.report(outlet, target)

    @router.post(
        "/v1/targets/{outlet}/{target}/pause", summary="Do not push it", responses=FAULTS, dependencies=editors,
        status_code=204,
    )  # fmt: skip
    def pause(outlet: OutletCode, target: TargetId, body: TargetOrder) -> None:
        desk.pause(outlet, target, body)

    @router.post(
        "/v1/targets/{outlet}/{target}/resume",
        summary="Push it again, the rest planned anew",
        responses=FAULTS,
        dependencies=editors,
        status_code=204,
    )
    def resume(outlet: OutletCode, target: TargetId, body: TargetOrder) -> None:
        desk.resume(outlet, target, body)

    @router.post(
        "/v1/targets/{outlet}/{target}/stop", summary="End it for good", responses=FAULTS, dependencies=editors,
        status_code=204,
    )  # fmt: skip
    def stop(outlet: OutletCode, target: TargetId, body: TargetOrder) -> None:
        desk.stop(outlet, target, body)

    @router.post(
        "/v1/targets/{outlet}/{target}/amount",
        summary="Ask for another amount in flight",
        responses=FAULTS,
        dependencies=editors,
        status_code=204,
    )
    def amount(outlet: OutletCode, target: TargetId, body: AmountOrder) -> None:
        desk.amount(outlet, target, body)

    @router.post(
        "/v1/targets/{outlet}/{target}/clone",
        status_code=201,
        summary="Draft a new target like it",
        description="Saved as the next version of the outlet's policy, to be published like any other.",
        responses=documented(401, 404, 409, 422, 503),
        dependencies=editors,
    )
    def clone(outlet: OutletCode, target: TargetId, body: CloneOrder) -> DraftAnswer:
        return desk.clone(outlet, target, body)

    return router
