"""The vocabulary: terms that policies can use. GET /v1/vocabulary."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from recsys.domain.catalog import Catalog
from recsys.domain.item import KINDS, STATUSES
from recsys.domain.types import Bool
from serving.api.dependencies import Paging, Snapshots
from serving.api.pagination import ListAnswer, PageQuery
from serving.api.strict_query import STRICT_QUERY
from serving.edge.route import EdgeRoute
from serving.schemas.problems import documented

TermField = Literal["label", "axis", "outlet", "region", "kind", "topic", "provider", "series"]
FIELDS: tuple[TermField, ...] = get_args(TermField)


class Term(BaseModel):
    """A term and the number of published items that have it."""

    field: TermField
    name: str = Field(examples=["public-service/health"])
    items: int = Field(description="Number of published items with this term. For an axis, items with a value above 0.")
    largest: float | None = Field(None, description="For an axis: the largest value of a published item.")


class VocabularyQuery(PageQuery):
    """The filter of the vocabulary."""

    field: TermField | None = Field(None, description="Return only terms of this field.")


class VocabularyAnswer(ListAnswer):
    """Terms by field, most frequent first. In a policy, a label, outlet or region includes its descendants."""

    published_items: int
    terms: list[Term]


router = APIRouter(tags=["policies"], dependencies=STRICT_QUERY, route_class=EdgeRoute)


@router.get(
    "/v1/vocabulary",
    summary="List the terms that policies can use, with their number of items",
    responses=documented(400, 422),
)
def vocabulary(holders: Snapshots, paging: Paging, query: Annotated[VocabularyQuery, Query()]) -> VocabularyAnswer:
    catalog = holders.current.catalog
    published = catalog.status == STATUSES.index("published")
    fields = (query.field,) if query.field else FIELDS
    terms = sorted((term for field in fields for term in _terms(catalog, published, field)), key=_order)
    page, token = paging.page(f"terms of {query.field or 'all'}", query, terms, _order)
    return VocabularyAnswer(published_items=int(published.sum()), terms=page, next_page_token=token)


def _order(term: Term) -> list[object]:
    return [FIELDS.index(term.field), -term.items, term.name]


def _terms(catalog: Catalog, published: Bool, field: TermField) -> Iterator[Term]:
    """Yield the terms of one field. An axis is included even if no published item has a value above 0."""
    if field == "axis":
        values = catalog.axis[published]
        for code, name in enumerate(catalog.axes.names):
            value = values[:, code]
            yield Term(field=field, name=name, items=int((value > 0).sum()), largest=float(value.max(initial=0)))
        return
    names, counts = _counts(catalog, published, field)
    for name, items in zip(names, counts.tolist(), strict=True):
        if items:
            yield Term(field=field, name=name, items=items)


def _counts(catalog: Catalog, published: Bool, field: TermField) -> tuple[tuple[str, ...], npt.NDArray[Any]]:
    """Return the names of a field, and the number of published items with each name."""
    if field == "label":
        return catalog.labels.names, catalog.label[published].sum(axis=0)
    columns: dict[TermField, tuple[tuple[str, ...], npt.NDArray[Any]]] = {
        "outlet": (catalog.outlets.names, catalog.outlet),
        "region": (catalog.regions.names, catalog.region),
        "kind": (KINDS, catalog.kind),
        "topic": (catalog.topics.names, catalog.topic),
        "provider": (catalog.providers.names, catalog.provider),
        "series": (catalog.series_names.names, catalog.series),
    }
    names, codes = columns[field]
    used = codes[published]
    return names, np.bincount(used[used >= 0], minlength=len(names))
