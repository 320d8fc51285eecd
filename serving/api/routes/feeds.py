"""Pages: POST /v1/placements/{id}:recommend."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from serving.api.auth import Credentials, check_editor
from serving.api.dependencies import Pages
from serving.api.strict_query import STRICT_QUERY
from serving.edge.route import EdgeRoute
from serving.schemas.problems import documented
from serving.schemas.resources import PageAnswer, PageRequest

router = APIRouter(tags=["pages"], dependencies=STRICT_QUERY, route_class=EdgeRoute)


@router.post(
    "/v1/placements/{placement_id}:recommend",
    summary="Recommend a page for a viewer on a placement",
    description=(
        "A placement id has the form OUTLET-SCREEN-SURFACE, for example `cn.zj.hz-tv-home`. The page meets every "
        "control of the outlet's policy that can be met; the receipt lists the status and the cost of each control. "
        "If a part of the service is unavailable, the page is still returned, with a lower `fallback_level`, and the "
        "part is listed in `degraded_parts`. Requests with `guided: false` or `preview: true` require the token of "
        "the editors."
    ),
    response_model=PageAnswer,
    responses=documented(400, 401, 404, 422),
)
def recommend(
    request: Request,
    placement_id: Annotated[str, Path(examples=["cn.zj.hz-tv-home"])],
    body: PageRequest,
    pages: Pages,
    _: Credentials,
) -> Response:
    """Return a page. The route is synchronous, so that the computation runs in a worker thread."""
    if body.preview or not body.guided:
        check_editor(request)
    page = pages.recommend(placement_id, body)
    return Response(page.model_dump_json(), media_type="application/json")  # a Response is not validated again
