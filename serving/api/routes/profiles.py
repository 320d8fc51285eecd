"""The built-in profiles: GET /v1/profiles."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from recsys.guidance.policy.profiles import Duty, Profile
from serving.api.dependencies import Paging, Profiles
from serving.api.pagination import ListAnswer, PageQuery
from serving.api.strict_query import STRICT_QUERY
from serving.edge.route import EdgeRoute
from serving.schemas.problems import documented


class ProfileOut(BaseModel):
    """A built-in set of controls for a public rule. A policy applies it with `profile: NAME`."""

    name: str = Field(examples=["mainstream-guidance"])
    version: int
    title: dict[str, str]
    about: str
    labels: dict[str, str] = Field(description="Labels that items must have for these controls, with their meaning.")
    weights: dict[str, float]
    controls: list[dict[str, Any]] = Field(
        description="The controls, each with its `legal_ref`. A policy may tighten them."
    )
    duties: list[Duty] = Field(
        description="Duties of the rule that page controls do not cover, and the party responsible for each."
    )


class ProfileList(ListAnswer):
    """Profiles, sorted by name."""

    profiles: list[ProfileOut]


router = APIRouter(tags=["policies"], dependencies=STRICT_QUERY, route_class=EdgeRoute)


@router.get("/v1/profiles", summary="List the built-in profiles for public rules", responses=documented(400, 422))
def list_profiles(profiles: Profiles, paging: Paging, query: Annotated[PageQuery, Query()]) -> ProfileList:
    page, token = paging.page("profiles", query, list(profiles.values()), lambda profile: profile.name)
    return ProfileList(profiles=[_out(profile) for profile in page], next_page_token=token)


def _out(profile: Profile) -> ProfileOut:
    controls = [c.model_dump(mode="json", by_alias=True, exclude_defaults=True) for c in profile.controls]
    return ProfileOut(**{**dict(profile), "controls": controls})
