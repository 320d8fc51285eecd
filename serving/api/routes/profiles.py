"""The ready profiles: GET /v1/profiles."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from recsys.guidance.policy.profiles import Duty, Profile
from serving.api.dependencies import Paging, Profiles
from serving.api.pagination import ListAnswer, PageQuery
from serving.api.strict_query import STRICT_QUERY
from serving.schemas.problems import documented


class ProfileOut(BaseModel):
    """One ready set of controls; a policy takes it up with `profile: NAME`."""

    name: str = Field(examples=["mainstream-guidance"])
    version: int
    title: dict[str, str]
    about: str
    labels: dict[str, str] = Field(description="labels that items must carry, and what they mean")
    weights: dict[str, float]
    controls: list[dict[str, Any]] = Field(description="each with its `legal_ref`; a policy may tighten them")
    duties: list[Duty] = Field(description="what the rule asks beyond page controls, and who keeps it")


class ProfileList(ListAnswer):
    """Profiles by name."""

    profiles: list[ProfileOut]


router = APIRouter(tags=["policies"], dependencies=STRICT_QUERY)


@router.get("/v1/profiles", summary="Ready sets of controls for public rules", responses=documented(400, 422))
def list_profiles(profiles: Profiles, paging: Paging, query: Annotated[PageQuery, Query()]) -> ProfileList:
    page, token = paging.page("profiles", query, list(profiles.values()), lambda profile: profile.name)
    return ProfileList(profiles=[_out(profile) for profile in page], next_page_token=token)


def _out(profile: Profile) -> ProfileOut:
    controls = [c.model_dump(mode="json", by_alias=True, exclude_defaults=True) for c in profile.controls]
    return ProfileOut(**{**dict(profile), "controls": controls})
