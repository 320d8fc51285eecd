"""Alike in content: what nobody has played yet reaches those who like its kind, and nothing else moves."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.columns import FEATURES
from recsys.candidates.content_based import content_profile, content_similarity
from recsys.domain.catalog import Catalog
from recsys.domain.decay import HALF_LIFE_S
from recsys.domain.embeddings import Content
from recsys.domain.item_statistics import ItemStats
from recsys.domain.placement import Placement, Screen, Surface
from recsys.domain.query import Query
from recsys.domain.trace import unbalanced_stages
from recsys.domain.types import ACTIONS, F32
from recsys.domain.viewer import Recent, ViewerState
from recsys.guidance.compilation.compile import compile_policy
from recsys.models.served_model import ServedModel
from recsys.page import Page
from recsys.pipeline import Engine
from recsys.snapshot import ServingSnapshot
from tests.recsys.conftest import NOW, TOPICS, item

AT = NOW.timestamp()
NEWER = 400  # items published after the one that is looked for: so the newest alone do not hold it
FRESH = "fresh"


class ByContent:
    """A ranker that has learned that viewers play what is like what they liked, or what is popular."""

    def p(self, features: F32) -> F32:
        p = np.zeros((len(features), len(ACTIONS)), np.float32)
        column = {name: features[:, FEATURES.index(name)] for name in ("content_match", "log_popularity")}
        p[:, 0] = np.clip(0.6 * column["content_match"] + 0.02 * column["log_popularity"], 0.0, 1.0)
        return p


def vectors(catalog: Catalog) -> Content:
    """Vectors that lie close together for items of one topic; the fresh item's is of the first topic."""
    rng = np.random.default_rng(2)
    centres = np.eye(8)[[TOPICS.index(one.topic) for one in catalog.items]]
    made = centres + 0.05 * rng.normal(size=(len(catalog), 8))
    return Content("test@1", (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32))


@pytest.fixture
def news(catalog: Catalog, stats: ItemStats, model: ServedModel) -> ServingSnapshot:
    """Sixty items that are known to the model, many newer ones of other topics, and a fresh one that nobody played."""
    other = [
        item(n).model_copy(
            update={"id": f"new{n}", "topic": TOPICS[1 + n % 4], "published_at": NOW - timedelta(minutes=1)}
        )
        for n in range(0, 2 * NEWER, 2)
    ]
    said = {"id": FRESH, "topic": TOPICS[0], "labels": ("plain",), "published_at": NOW - timedelta(minutes=2)}
    grown = catalog.patched([*other, item(0).model_copy(update=said)], 1)
    grown = replace(grown, content=vectors(grown))
    return ServingSnapshot.of(grown, stats, replace(model, predictor=ByContent()), compile_policy((), grown))


def page(engine: Engine, world: ServingSnapshot) -> Page:
    liked = tuple(Recent(f"i{n}", "like", AT - 50) for n in (0, 5, 10))
    viewer = ViewerState("v", liked, finished_at={one.item_id: AT for one in liked})
    return engine.run(Query("r", "v", Placement("cn.zj", Screen.MOBILE, Surface.HOME), "cn", AT, 8), viewer, world)


def test_a_fresh_item_that_nobody_has_played_reaches_a_personal_page(engine: Engine, news: ServingSnapshot) -> None:
    row = news.catalog.row_of[FRESH]
    assert news.index.position_of_row[row] == -1
    assert news.stats.count[row].sum() == 0
    with_vectors = page(engine, news)
    assert unbalanced_stages(with_vectors.trace) == {}
    slot = next(slot for slot in with_vectors.items if slot.item_id == FRESH)
    assert slot.sources == ("content",)
    assert slot.reasons == ("about_the_same",)
    blind = replace(news, catalog=replace(news.catalog, content=Content("", np.zeros((0, 0), np.float32))))
    assert FRESH not in [slot.item_id for slot in page(engine, blind).items]


def test_a_stranger_has_no_taste(engine: Engine, news: ServingSnapshot) -> None:
    asked = Query("r", "v", Placement("cn.zj", Screen.MOBILE, Surface.HOME), "cn", AT, 8)
    answer = engine.run(asked, None, news)
    assert not any("content" in slot.sources for slot in answer.items)


ACTS = st.lists(
    st.tuples(st.integers(0, 70), st.sampled_from(["play", "like", "dislike", "hide", "open"]), st.floats(0, 1e7)),
    max_size=12,
)


@given(acts=ACTS, known=st.integers(0, 60))
def test_taste_and_match_are_what_plain_arithmetic_says(acts: list[tuple[int, str, float]], known: int) -> None:
    catalog = Catalog.of(map(item, range(60)))
    content = vectors(catalog)
    catalog = replace(catalog, content=replace(content, vectors=content.vectors[:known]))
    viewer = ViewerState("v", tuple(Recent(f"i{n}", kind, AT - ago) for n, kind, ago in acts))
    strongest: dict[int, float] = {}
    last: dict[int, float] = {}
    for n, kind, ago in acts:
        last[n] = ago
        if kind in ("dislike", "hide"):
            strongest[n] = 0.0
        elif kind != "open":
            strongest[n] = max(strongest.get(n, 0.0), {"play": 1.0, "like": 3.0}[kind])
    mean = np.zeros(8)
    for n, weight in strongest.items():
        if n < known:
            mean += weight * 2 ** (-last[n] / HALF_LIFE_S) * content.vectors[n].astype(np.float64)
    found = content_profile(viewer, catalog, AT)
    rows = np.arange(60, dtype=np.int32)
    if not mean.any():
        assert found is None
        assert not content_similarity(rows, found, catalog).any()
        return
    assert found is not None
    expected = np.zeros(60)
    expected[:known] = content.vectors[:known].astype(np.float64) @ (mean / np.linalg.norm(mean))
    np.testing.assert_allclose(content_similarity(rows, found, catalog), np.clip(expected, -1, 1), atol=1e-4)


def test_a_grown_catalogue_keeps_its_vectors_and_new_rows_have_none() -> None:
    catalog = Catalog.of(map(item, range(5)))
    catalog = replace(catalog, content=vectors(catalog))
    grown = catalog.patched([item(3), item(9)], 2)
    assert grown.content is catalog.content
    assert grown.content.of(np.array([5, 0], np.int32)).any(axis=1).tolist() == [False, True]
