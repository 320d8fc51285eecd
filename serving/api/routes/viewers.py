"""Viewers' rights over what is held of them: GET /v1/viewers/{id}/export, DELETE /v1/viewers/{id}."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from serving.api.auth import EDITORS_OR_LOOPBACK
from serving.api.dependencies import Viewers
from serving.api.strict_query import STRICT_QUERY
from serving.schemas.problems import documented
from serving.viewer_data import Erased

router = APIRouter(prefix="/v1/viewers", tags=["viewers"], dependencies=[*EDITORS_OR_LOOPBACK, *STRICT_QUERY])


@router.get(
    "/{viewer_id:path}/export",
    summary="All that is held of a viewer",
    description=(
        "JSON lines: the state, messages set aside as unreadable or from the future, then each event of the log. "
        "What else is still in the stream is not in it yet."
    ),
    response_class=StreamingResponse,
    responses=documented(401, 503),
)
def export(viewer_id: str, viewers: Viewers) -> StreamingResponse:
    return StreamingResponse(viewers.export(viewer_id), media_type="application/x-ndjson")


@router.delete(
    "/{viewer_id:path}",
    summary="Forget a viewer for good",
    description=(
        "All that the viewer did until now leaves online store and event log, and comes back from no replay. "
        "It takes as long as the log's files need to be written anew. 503: say it again. What a process has taken "
        "and not sent to the stream yet waits in its spool, and what it has sent stays there for a day; nobody "
        "folds it."
    ),
    responses=documented(401, 429, 503),
)
def erase(viewer_id: str, viewers: Viewers) -> Erased:
    return viewers.erase(viewer_id)
