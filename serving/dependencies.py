"""The services that routes depend on, each read from `app.state.services`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from fastapi import Depends, Request

from features.online import OnlineStore
from features.unreadable import Unreadable
from recsys.guidance.profiles import Profile
from serving.control import ControlPlane
from serving.desk import PolicyDesk
from serving.feed import FeedService
from serving.holders import Holders
from serving.ingest import Ingest
from serving.metrics import Metrics
from serving.pagination import Pagination
from serving.preview.service import Previews
from serving.services import Services
from serving.targets import TargetDesk
from serving.viewers import ViewerData


def _provided(read: Callable[[Services], object]) -> Any:
    async def provide(request: Request) -> object:  # asynchronous: FastAPI runs others in a thread of their own
        return read(request.app.state.services)

    return Depends(provide)


AllServices = Annotated[Services, _provided(lambda services: services)]
Paging = Annotated[Pagination, _provided(lambda services: Pagination(services.tokens))]
Pages = Annotated[FeedService, _provided(lambda services: services.feed)]
EventIntake = Annotated[Ingest, _provided(lambda services: services.event_intake)]
Control = Annotated[ControlPlane, _provided(lambda services: services.control)]
Snapshots = Annotated[Holders, _provided(lambda services: services.holders)]
Policies = Annotated[PolicyDesk, _provided(lambda services: services.policy_service)]
Targets = Annotated[TargetDesk, _provided(lambda services: services.target_service)]
PolicyPreviews = Annotated[Previews, _provided(lambda services: services.previews)]
Viewers = Annotated[ViewerData, _provided(lambda services: services.viewer_data)]
Profiles = Annotated[Mapping[str, Profile], _provided(lambda services: services.profiles)]
Online = Annotated[OnlineStore, _provided(lambda services: services.online)]
CorruptStates = Annotated[Unreadable, _provided(lambda services: services.unreadable)]
Meters = Annotated[Metrics, _provided(lambda services: services.metrics)]
