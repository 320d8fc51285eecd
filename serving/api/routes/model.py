"""The model in service and the action weights of its utility: GET /v1/model."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter
from pydantic import BaseModel, Field

from recsys.utility import DEFAULT_WEIGHTS
from serving.api.dependencies import Snapshots
from serving.api.strict_query import STRICT_QUERY
from serving.edge.route import EdgeRoute
from serving.schemas.resources import rfc3339


class ModelAnswer(BaseModel):
    """The model in service, and the weight of each action in the utility of an item."""

    version: str | None = Field(description="Version of the model in service; null if there is none.")
    created_at: datetime | None = Field(description="Time at which the model was trained; null if there is none.")
    unit: str = Field(description="Unit of utility, weights and prices. The weight of a play is 1.")
    action_weights: dict[str, float] = Field(
        description="Weight of each action, in play equivalents. If there is no model, these are the default weights.",
        examples=[dict(DEFAULT_WEIGHTS)],
    )


router = APIRouter(tags=["pages"], dependencies=STRICT_QUERY, route_class=EdgeRoute)


@router.get("/v1/model", summary="Get the model in service and its action weights")
def model_in_service(snapshots: Snapshots) -> ModelAnswer:
    current = snapshots.current.model
    bundle = current.bundle if current else None
    return ModelAnswer(
        version=bundle.version if bundle else None,
        created_at=rfc3339(bundle.created_at) if bundle else None,
        unit="play equivalent",
        action_weights=dict(bundle.action_weights if bundle else DEFAULT_WEIGHTS),
    )
