"""Export and erasure of viewer data: GET /v1/viewers/{id}/export and DELETE /v1/viewers/{id}."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from recsys.domain.fields import normalize
from serving.api.auth import EDITORS_OR_LOOPBACK
from serving.api.dependencies import Viewers
from serving.api.strict_query import STRICT_QUERY
from serving.edge.route import EdgeRoute
from serving.schemas.problems import documented
from serving.viewer_data import ErasureResult

router = APIRouter(
    prefix="/v1/viewers", tags=["viewers"], dependencies=[*EDITORS_OR_LOOPBACK, *STRICT_QUERY], route_class=EdgeRoute
)


@router.get(
    "/{viewer_id:path}/export",
    summary="Export all data of a viewer",
    description=(
        "Returns JSON lines: the state of the viewer, then quarantined states and dead letters, then each event of the "
        "event log. Messages that are still in the stream and not processed yet are not included."
    ),
    response_class=StreamingResponse,
    responses=documented(401, 404, 503),
)
def export(viewer_id: str, viewers: Viewers) -> StreamingResponse:
    return StreamingResponse(viewers.export(normalize(viewer_id)), media_type="application/x-ndjson")


@router.delete(
    "/{viewer_id:path}",
    summary="Erase a viewer permanently",
    description=(
        "Deletes all data of the viewer up to now from the online store and the event log; a replay does not restore "
        "it. The request takes as long as the files of the event log take to be rewritten. If the status is 503, send "
        "the request again. Events that are not delivered to the stream yet remain in the spool until they are "
        "delivered, and delivered events remain there for up to a day; workers ignore both."
    ),
    responses=documented(401, 404, 429, 503),
)
def erase(viewer_id: str, viewers: Viewers) -> ErasureResult:
    return viewers.erase(normalize(viewer_id))
