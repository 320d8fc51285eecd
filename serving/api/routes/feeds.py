"""Pages: POST /v1/placements/{id}:recommend."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from serving.api.auth import Credentials, check_editor
from serving.api.dependencies import Pages
from serving.api.strict_query import STRICT_QUERY
from serving.schemas.problems import documented
from serving.schemas.resources import PageAnswer, PageRequest

router = APIRouter(tags=["pages"], dependencies=STRICT_QUERY)


@router.post(
    "/v1/placements/{placement_id}:recommend",
    summary="A page for one viewer on one placement",
    description=(
        "Placement ids read OUTLET-SCREEN-SURFACE, such as `cn.zj.hz-tv-home`. The page holds every control of the "
        "outlet's policy that any page can hold; the receipt says which were met and what they cost. A part of the "
        "service that does not answer lowers `fallback_level` and is named in `degraded_parts`; it never fails the "
        "page. "
        "Pages with `guided: false` or `preview: true` are for editors."
    ),
    response_model=PageAnswer,
    responses=documented(400, 401, 404, 422),
)
def recommend(
    request: Request,
    placement_id: Annotated[str, Path(examples=["cn.zj.hz-tv-home"])],
    body: PageRequest,
    pages: Pages,
    credentials: Credentials,
) -> Response:
    """Synchronous: a page is computed, not awaited, so that it runs in a worker thread."""
    if body.preview or not body.guided:
        check_editor(request, credentials)
    answer = pages.recommend(placement_id, body)
    return Response(answer.model_dump_json(), media_type="application/json")  # once, not validated again
