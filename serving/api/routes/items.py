"""The catalog: POST and GET /v1/items."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from recsys.domain.fields import normalize
from serving.api.auth import EDITORS_ONLY
from serving.api.body import read_json
from serving.api.dependencies import Control, Intake, Paging
from serving.api.pagination import PageQuery
from serving.api.routes.events import batch_response
from serving.api.strict_query import STRICT_QUERY
from serving.edge.header_text import HeaderText
from serving.edge.route import EdgeRoute
from serving.schemas.batch_result import BatchResult
from serving.schemas.lists import ItemList
from serving.schemas.problems import documented
from serving.schemas.resources import ItemAnswer

ITEM: dict[str, Any] = {
    "id": "desk-1",
    "kind": "video",
    "title": {"zh": "钱塘江大潮", "en": "The Qiantang tide"},
    "outlet": "cn.zj.hz",
    "labels": ["news/local", "public-service"],
    "axes": {"public_value": 0.8, "locality": 0.9},
    "region": "cn.zj.hz",
    "published_at": "2026-10-01T08:00:00+08:00",
}
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "items": {"type": "array", "maxItems": 1000, "items": {"$ref": "#/components/schemas/Item"}}
                    },
                },
                "example": {"items": [ITEM]},
            }
        },
    }
}
Actor = Annotated[
    HeaderText,
    Header(alias="X-Author", description="Author of the change in UTF-8, for the audit trail.", max_length=200),
]


router = APIRouter(tags=["catalog"], dependencies=STRICT_QUERY, route_class=EdgeRoute)


@router.post(
    "/v1/items",
    summary="Create or replace items of the catalog",
    description=(
        "Each item replaces the stored item with the same id completely. The response contains one result for each "
        "item, in order. Valid items are stored even if other items of the batch are invalid; if all are invalid, the "
        "status is 422. Changes are in effect in every serving process within a second.\n\n"
        "An item has at most 100 labels, 100 axes and 50 languages; a title has at most 1,000 characters and a summary "
        "20,000. A catalog has at most 1,000 different axes and 20,000 different labels."
    ),
    response_model=BatchResult,
    responses=documented(400, 401, 413, 422, 503),
    openapi_extra=BODY,
    dependencies=EDITORS_ONLY,
)
async def upsert(request: Request, intake: Intake, author: Actor = "api") -> Response:
    body = await read_json(request)
    return batch_response(request, await run_in_threadpool(intake.items, body, author), "items", 200)


@router.get(
    "/v1/items",
    summary="List the items of the catalog",
    description=(
        "Items are sorted by their last change. An item that changes between two pages is listed again, so that a "
        "client that reads all pages has the latest version of every item."
    ),
    responses=documented(400, 422, 503),
)
def list_items(control: Control, paging: Paging, query: Annotated[PageQuery, Query()]) -> ItemList:
    stored = control.items_since(paging.position("items", query) or 0, query.page_size + 1)
    page, token = paging.cut("items", query, stored, lambda item: item.revision)
    return ItemList(items=[item.item for item in page], next_page_token=token)


@router.get("/v1/items/{item_id:path}", summary="Get an item", responses=documented(404, 503))
def item(item_id: str, control: Control) -> ItemAnswer:
    stored = control.item(normalize(item_id))
    return ItemAnswer(revision=stored.revision, item=stored.item)
