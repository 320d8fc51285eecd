"""The words that policies can use: GET /v1/vocabulary."""

from __future__ import annotations

import numpy as np
from fastapi import APIRouter
from pydantic import BaseModel, Field

from recsys.catalog import KINDS, STATUSES, Catalog, Vocabulary
from recsys.types import I16, I32
from serving.dependencies import Snapshots
from serving.queries import STRICT_QUERY


class Word(BaseModel):
    """A word, and how many published items have it."""

    name: str = Field(examples=["public-service/health"])
    items: int


class Axis(Word):
    """An editorial value; `items` have more than 0 of it."""

    largest: float = Field(description="largest value that an item has")


class VocabularyAnswer(BaseModel):
    """Every word of the catalogue, the commonest first. A label, outlet or region also stands for those below it."""

    items: int = Field(description="published items")
    labels: list[Word]
    axes: list[Axis]
    outlets: list[Word]
    regions: list[Word]
    kinds: list[Word]
    topics: list[Word]
    providers: list[Word]
    series: list[Word]


router = APIRouter(tags=["policies"], dependencies=STRICT_QUERY)


@router.get("/v1/vocabulary", summary="Labels, axes and other words that policies can use, with counts")
def vocabulary(holders: Snapshots) -> VocabularyAnswer:
    return _counted(holders.current.catalog)


def _counted(catalog: Catalog) -> VocabularyAnswer:
    out = catalog.status == STATUSES.index("published")
    axis = catalog.axis[out]
    axes = [
        Axis(name=name, items=int((axis[:, code] > 0).sum()), largest=float(axis[:, code].max(initial=0)))
        for code, name in enumerate(catalog.axes.names)
    ]

    def of(words: Vocabulary | tuple[str, ...], codes: I32 | I16) -> list[Word]:
        names = words.names if isinstance(words, Vocabulary) else words
        here = codes[out]
        return _sorted(names, np.bincount(here[here >= 0], minlength=len(names)).tolist())

    return VocabularyAnswer(
        items=int(out.sum()),
        labels=_sorted(catalog.labels.names, catalog.label[out].sum(axis=0).tolist()),
        axes=axes,
        outlets=of(catalog.outlets, catalog.outlet),
        regions=of(catalog.regions, catalog.region),
        kinds=of(KINDS, catalog.kind),
        topics=of(catalog.topics, catalog.topic),
        providers=of(catalog.providers, catalog.provider),
        series=of(catalog.series_names, catalog.series),
    )


def _sorted(names: tuple[str, ...], counts: list[int]) -> list[Word]:
    words = [Word(name=name, items=items) for name, items in zip(names, counts, strict=True) if items]
    return sorted(words, key=lambda word: (-word.items, word.name))
