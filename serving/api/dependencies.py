"""The dependencies of routes. Each one reads a service from `app.state.services`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from fastapi import Depends, Request

from features.control.plane import ControlPlane
from features.state.online.port import OnlineStore
from features.state.quarantine import CorruptStateCounter
from recsys.guidance.policy.profiles import Profile
from serving.api.pagination import Pagination
from serving.editorial.policy_service import PolicyService
from serving.editorial.preview.service import PreviewService
from serving.editorial.target_service import TargetService
from serving.pages.event_intake import EventIntake
from serving.pages.page_service import PageService
from serving.prometheus import Metrics
from serving.services import Services
from serving.snapshot.holders import SnapshotHolder
from serving.viewer_data import ViewerData


def _provided(read: Callable[[Services], object]) -> Any:
    async def provide(request: Request) -> object:  # async, because FastAPI runs synchronous dependencies in a thread
        return read(request.app.state.services)

    return Depends(provide)


AllServices = Annotated[Services, _provided(lambda services: services)]
Paging = Annotated[Pagination, _provided(lambda services: Pagination(services.tokens))]
Pages = Annotated[PageService, _provided(lambda services: services.pages)]
Intake = Annotated[EventIntake, _provided(lambda services: services.event_intake)]
Control = Annotated[ControlPlane, _provided(lambda services: services.control)]
Snapshots = Annotated[SnapshotHolder, _provided(lambda services: services.holders)]
Policies = Annotated[PolicyService, _provided(lambda services: services.policy_service)]
Targets = Annotated[TargetService, _provided(lambda services: services.target_service)]
PolicyPreviews = Annotated[PreviewService, _provided(lambda services: services.previews)]
Viewers = Annotated[ViewerData, _provided(lambda services: services.viewer_data)]
Profiles = Annotated[Mapping[str, Profile], _provided(lambda services: services.profiles)]
Online = Annotated[OnlineStore, _provided(lambda services: services.online)]
CorruptStates = Annotated[CorruptStateCounter, _provided(lambda services: services.corrupt_states)]
Meters = Annotated[Metrics, _provided(lambda services: services.metrics)]
