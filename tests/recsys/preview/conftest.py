"""A small study: forty requests of ten viewers on two screens, with an active and a draft policy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from recsys.domain.catalog import Catalog
from recsys.domain.item_statistics import ItemStats
from recsys.domain.placement import Placement, Screen, Surface
from recsys.domain.query import Query
from recsys.domain.viewer import Recent, ViewerState
from recsys.guidance.compilation.compile import compile_policy
from recsys.guidance.policy.policy import parse_policy
from recsys.models.served_model import ServedModel
from recsys.pipeline import Engine
from recsys.preview.study import ReplayRequest, Study
from recsys.snapshot import ServingSnapshot

NOW = 1_772_366_400.0  # 2026-03-01T12:00:00Z
ACTIVE = """
outlet: cn.zj
weights: {public_value: 0.2}
controls:
  - {id: public, action: quota, where: {label: public-service}, at_least: 0.3, prefixes: every, enforcement: mandatory}
  - {id: one-topic, action: cap, attribute: topic, at_most: 4}
"""
DRAFT = """
outlet: cn.zj
weights: {public_value: 0.3}
controls:
  - {id: public, action: quota, where: {label: public-service}, at_least: 0.4, prefixes: every, enforcement: mandatory}
  - {id: music, action: quota, where: {label: music}, at_least: 0.3}
  - {id: too-much, action: quota, where: {all: [{label: news}, {label: public-service}]}, at_least: 0.5}
  - {id: one-topic, action: cap, attribute: topic, at_most: 3}
  - {id: no-ads, action: block, where: {label: commercial}}
"""


@pytest.fixture(scope="session")
def study_of(catalog: Catalog, stats: ItemStats, model: ServedModel, engine: Engine) -> Callable[..., Study]:
    """Return a factory `study_of(before, after, requests)` of studies with policies as text."""

    def build(before: str = ACTIVE, after: str = DRAFT, requests: int = 40) -> Study:
        none = compile_policy((), catalog)
        policies = [{"cn.zj": compile_policy([parse_policy(text)], catalog)} for text in (before, after)]
        return Study(
            engine, ServingSnapshot.of(catalog, stats, model, none), *policies, tuple(map(_request, range(requests)))
        )

    return build


@pytest.fixture(scope="session")
def study(study_of: Callable[..., Study]) -> Study:
    return study_of()


def _request(n: int) -> ReplayRequest:
    viewer = n % 10
    rng = np.random.default_rng(viewer)
    recent = tuple(Recent(f"i{i}", "like", NOW - 100.0 + k) for k, i in enumerate(rng.choice(60, 4, replace=False)))
    state = ViewerState(f"v{viewer}", recent) if viewer else None
    placement = Placement("cn.zj", (Screen.MOBILE, Screen.TV)[n // 10 % 2], Surface.HOME)
    region = ("cn.zj.hz", "cn.zj.nb")[n % 2]
    return ReplayRequest(Query(f"r{n}", f"v{viewer}", placement, region, NOW + n, 10, seed=n), state)
