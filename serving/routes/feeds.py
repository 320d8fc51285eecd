"""Pages: POST /v1/placements/{id}:recommend."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from serving.access import Credentials, is_editor
from serving.feed import FeedService
from serving.problems import documented
from serving.schemas import PageAnswer, PageRequest


def routes(feed: FeedService, admin_token: str) -> APIRouter:
    """The page route. It is synchronous: a page is computing, not waiting, and runs in a worker thread."""
    router = APIRouter(tags=["pages"])

    @router.post(
        "/v1/placements/{placement_id}:recommend",
        summary="A page for one viewer on one placement",
        description=(
            "Placement ids read OUTLET-SCREEN-SURFACE, such as `cn.zj.hz-tv-home`. The page holds every control of the "
            "outlet's policy that any page can hold; the receipt says which were met and what they cost. A part of the "
            "service that does not answer lowers the rung and is named in `missing`; it never fails the page. "
            "Pages with `guided: false` or `preview: true` are for editors."
        ),
        response_model=PageAnswer,
        responses=documented(400, 401, 404, 422),
    )
    def recommend(
        placement_id: Annotated[str, Path(examples=["cn.zj.hz-tv-home"])], body: PageRequest, credentials: Credentials
    ) -> Response:
        if body.preview or not body.guided:
            is_editor(admin_token, credentials)
        answer = feed.recommend(placement_id, body)
        return Response(answer.model_dump_json(), media_type="application/json")  # once, not validated again

    return router
