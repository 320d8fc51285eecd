"""Content-based similarity: a new item without plays reaches viewers who like similar items."""

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
NEWER = 400  # items published after the new item, so that the source `newest` does not find it
NEW = "fresh"


class ByContent:
    """A ranker by content similarity and popularity."""

    def p(self, features: F32) -> F32:
        p = np.zeros((len(features), len(ACTIONS)), np.float32)
        column = {name: features[:, FEATURES.index(name)] for name in ("content_match", "log_popularity")}
        p[:, 0] = np.clip(0.6 * column["content_match"] + 0.02 * column["log_popularity"], 0.0, 1.0)
        return p


def vectors(catalog: Catalog) -> Content:
    """Return vectors in clusters by topic; the new item belongs to the first topic."""
    rng = np.random.default_rng(2)
    centres = np.eye(8)[[TOPICS.index(item.topic) for item in catalog.items]]
    vectors = centres + 0.05 * rng.normal(size=(len(catalog), 8))
    return Content("test@1", (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32))


@pytest.fixture
def news(catalog: Catalog, stats: ItemStats, model: ServedModel) -> ServingSnapshot:
    """Return sixty items of the model, many newer items of other topics, and a new item without plays."""
    newer = [
        item(n).model_copy(
            update={"id": f"new{n}", "topic": TOPICS[1 + n % 4], "published_at": NOW - timedelta(minutes=1)}
        )
        for n in range(0, 2 * NEWER, 2)
    ]
    fields = {"id": NEW, "topic": TOPICS[0], "labels": ("plain",), "published_at": NOW - timedelta(minutes=2)}
    grown = catalog.patched([*newer, item(0).model_copy(update=fields)], 1)
    grown = replace(grown, content=vectors(grown))
    return ServingSnapshot.of(grown, stats, replace(model, predictor=ByContent()), compile_policy((), grown))


def page(engine: Engine, world: ServingSnapshot) -> Page:
    liked = tuple(Recent(f"i{n}", "like", AT - 50) for n in (0, 5, 10))
    viewer = ViewerState("v", liked, finished_at={action.item_id: AT for action in liked})
    return engine.run(Query("r", "v", Placement("cn.zj", Screen.MOBILE, Surface.HOME), "cn", AT, 8), viewer, world)


def test_a_new_item_without_plays_reaches_a_personal_page(engine: Engine, news: ServingSnapshot) -> None:
    row = news.catalog.row_of[NEW]
    assert news.index.position_of_row[row] == -1
    assert news.stats.count[row].sum() == 0
    with_vectors = page(engine, news)
    assert unbalanced_stages(with_vectors.trace) == {}
    slot = next(slot for slot in with_vectors.items if slot.item_id == NEW)
    assert slot.sources == ("content",)
    assert slot.reasons == ("about_the_same",)
    without_vectors = replace(news, catalog=replace(news.catalog, content=Content("", np.zeros((0, 0), np.float32))))
    assert NEW not in [slot.item_id for slot in page(engine, without_vectors).items]


def test_an_unknown_viewer_gets_no_content_based_items(engine: Engine, news: ServingSnapshot) -> None:
    query = Query("r", "v", Placement("cn.zj", Screen.MOBILE, Surface.HOME), "cn", AT, 8)
    result = engine.run(query, None, news)
    assert not any("content" in slot.sources for slot in result.items)


ACTIONS_OF_A_VIEWER = st.lists(
    st.tuples(st.integers(0, 70), st.sampled_from(["play", "like", "dislike", "hide", "open"]), st.floats(0, 1e7)),
    max_size=12,
)


@given(actions=ACTIONS_OF_A_VIEWER, encoded=st.integers(0, 60))
def test_profile_and_similarity_agree_with_plain_arithmetic(
    actions: list[tuple[int, str, float]], encoded: int
) -> None:
    catalog = Catalog.of(map(item, range(60)))
    content = vectors(catalog)
    catalog = replace(catalog, content=replace(content, vectors=content.vectors[:encoded]))
    viewer = ViewerState("v", tuple(Recent(f"i{n}", kind, AT - age_s) for n, kind, age_s in actions))
    strongest: dict[int, float] = {}
    last_age_s: dict[int, float] = {}
    for n, kind, age_s in actions:
        last_age_s[n] = age_s
        if kind in ("dislike", "hide"):
            strongest[n] = 0.0
        elif kind != "open":
            strongest[n] = max(strongest.get(n, 0.0), {"play": 1.0, "like": 3.0}[kind])
    mean = np.zeros(8)
    for n, weight in strongest.items():
        if n < encoded:
            mean += weight * 2 ** (-last_age_s[n] / HALF_LIFE_S) * content.vectors[n].astype(np.float64)
    profile = content_profile(viewer, catalog, AT)
    rows = np.arange(60, dtype=np.int32)
    if not mean.any():
        assert profile is None
        assert not content_similarity(rows, profile, catalog).any()
        return
    assert profile is not None
    expected = np.zeros(60)
    expected[:encoded] = content.vectors[:encoded].astype(np.float64) @ (mean / np.linalg.norm(mean))
    np.testing.assert_allclose(content_similarity(rows, profile, catalog), np.clip(expected, -1, 1), atol=1e-4)


def test_a_patched_catalog_keeps_its_vectors_and_new_rows_have_none() -> None:
    catalog = Catalog.of(map(item, range(5)))
    catalog = replace(catalog, content=vectors(catalog))
    grown = catalog.patched([item(3), item(9)], 2)
    assert grown.content is catalog.content
    assert grown.content.of(np.array([5, 0], np.int32)).any(axis=1).tolist() == [False, True]
