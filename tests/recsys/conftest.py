"""A small serving snapshot for whole pages: sixty items, statistics, a model and a policy."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import torch

from features.columns import FEATURES, columns
from recsys.domain.catalog import Catalog
from recsys.domain.item import Item
from recsys.domain.item_statistics import ItemStats
from recsys.domain.types import ACTIONS
from recsys.guidance.compilation.compile import CompiledPolicy, compile_policy
from recsys.guidance.policy.policy import parse_policy
from recsys.models.bundle import Bundle
from recsys.models.probe import with_probe
from recsys.models.ranker import Predictor, Ranker, tensors
from recsys.models.served_model import ServedModel
from recsys.page import Page
from recsys.pipeline import Engine
from recsys.snapshot import ServingSnapshot

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TOPICS = ("news", "film", "music", "sport", "nature")

POLICY = """
outlet: cn.zj
weights: {public_value: 0.2}
controls:
  - {id: public, action: quota, where: {label: public-service}, at_least: 0.3, prefixes: every, enforcement: mandatory}
  - {id: no-ads, action: block, where: {label: commercial}}
  - {id: one-topic, action: cap, attribute: topic, at_most: 4}
"""


def item(n: int) -> Item:
    label = ("public-service", "commercial")[n % 2] if n % 6 < 2 else "plain"
    return Item.model_validate(
        {
            "id": f"i{n}",
            "title": {"en": f"Item {n}"},
            "outlet": "cn.zj",
            "labels": [label, TOPICS[n % 5]],
            "topic": TOPICS[n % 5],
            "axes": {"public_value": float(n % 3) / 2},
            "region": "cn.zj.hz" if n % 4 == 0 else None,
            "formats": ["landscape", "audio"] if n % 3 == 0 else ["landscape"],
            "age_rating": 18 if n == 7 else 0,
            "status": "review" if n == 8 else "published",
            "published_at": NOW - timedelta(hours=n),
        }
    )


def assert_no_stage_failed(page: Page) -> None:
    """Fail if a stage of the page failed, since a fallback would hide the failure of a ranker or a source."""
    assert [f"{stage.name}: {stage.error}" for stage in page.trace if stage.error] == []


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    return Catalog.of(map(item, range(60)))


@pytest.fixture(scope="session")
def policy(catalog: Catalog) -> CompiledPolicy:
    return compile_policy([parse_policy(POLICY)], catalog)


@pytest.fixture(scope="session")
def model(catalog: Catalog) -> ServedModel:
    """Return a model with items in five clusters by topic and a ranker with random but fixed weights."""
    torch.manual_seed(5)
    rng = np.random.default_rng(5)
    vectors = 0.05 * rng.normal(size=(len(catalog), 5)).astype(np.float32)
    vectors[np.arange(len(catalog)), catalog.topic] += 1.0
    network = tensors(Ranker(len(FEATURES), len(ACTIONS), hidden=8))
    probe = rng.normal(size=(3, len(FEATURES))).astype(np.float32)
    bundle = Bundle(
        version="m1",
        created_at=0.0,
        item_ids=catalog.ids,
        item_vectors=vectors,
        retriever_params={"regularization": 0.1, "alpha": 5.0},
        popularity=rng.exponential(2, len(catalog)).astype(np.float32),
        network=network,
        feature_names=FEATURES,
        probe_features=probe,
        probe_p=Predictor.load(network).p(probe),
        metrics={},
    )
    return ServedModel.load(with_probe(bundle), FEATURES)


@pytest.fixture(scope="session")
def stats(catalog: Catalog) -> ItemStats:
    rng = np.random.default_rng(6)
    count = rng.exponential(3, (len(catalog), len(ACTIONS))).astype(np.float32)
    return ItemStats(count, 4 * count[:, 0], {"cn.zj": 9 * count[:, 1]})


@pytest.fixture
def world(catalog: Catalog, stats: ItemStats, model: ServedModel, policy: CompiledPolicy) -> ServingSnapshot:
    return ServingSnapshot.of(catalog, stats, model, policy)


@pytest.fixture(scope="session")
def engine() -> Engine:
    return Engine(columns, candidates=40)


class Bench:
    """Engine and snapshot in one fixture, with a short repr: Hypothesis prints the arguments of a failing test."""

    def __init__(self, engine: Engine, world: ServingSnapshot) -> None:
        self.engine, self.world = engine, world

    def __repr__(self) -> str:
        return "Bench()"


@pytest.fixture
def bench(engine: Engine, world: ServingSnapshot) -> Bench:
    return Bench(engine, world)
