"""A small synthetic data set with known structure: each viewer prefers one of a few clusters of items."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import pytest

from features.events.schema import ViewerEvent
from recsys.domain.catalog import Catalog
from recsys.domain.item import Item
from recsys.domain.placement import Screen
from training.config import Config, Evaluation, Examples, Network

START = 1_780_000_000.0
CLUSTERS, PER_CLUSTER = 4, 40

MakeEvents = Callable[..., list[ViewerEvent]]


@pytest.fixture(scope="session")
def items() -> list[Item]:
    """Return 160 films; film `i` and its label belong to cluster `i % 4`."""
    published = datetime(2026, 1, 1, tzinfo=UTC)
    return [
        Item(
            id=f"film-{n}",
            kind="film",
            title={"en": f"Film {n}"},
            outlet="cn.zj",
            labels=(f"genre/{n % CLUSTERS}",),
            published_at=published,
            duration_s=5400.0,
        )
        for n in range(CLUSTERS * PER_CLUSTER)
    ]


@pytest.fixture(scope="session")
def catalog(items: list[Item]) -> Catalog:
    return Catalog.of(items)


@pytest.fixture(scope="session")
def make_events() -> MakeEvents:
    """Return a function (viewers, actions, seed) -> events in time order.

    Each viewer has one session of about an hour and acts on `actions` different items. Five sixths of them are in the
    viewer's own cluster and are liked or completed; the rest are mostly disliked. Low item numbers are popular in all
    clusters.
    """

    def make(viewers: int = 120, actions: int = 30, seed: int = 1) -> list[ViewerEvent]:
        rng = np.random.default_rng(seed)
        events = []
        for viewer, arrival in enumerate(np.sort(rng.uniform(0.0, 30 * 86_400.0, viewers))):
            own = int(rng.integers(CLUSTERS))
            fits = np.arange(CLUSTERS * PER_CLUSTER) % CLUSTERS == own
            fame = 1.0 / (5.0 + np.arange(CLUSTERS * PER_CLUSTER))
            odds = fame * np.where(fits, 5.0 / (fame * fits).sum(), 1.0 / (fame * ~fits).sum())
            chosen = rng.choice(len(odds), actions, replace=False, p=odds / odds.sum())
            for n, item in enumerate(chosen):
                if fits[item]:
                    kind = "like" if rng.random() < 0.5 else "complete"
                else:
                    kind = "dislike" if rng.random() < 0.8 else "complete"
                events.append(
                    ViewerEvent(
                        id=f"e{viewer}-{n}",
                        kind=kind,
                        viewer_id=f"v{viewer}",
                        at=float(START + arrival + 120.0 * n),
                        item_id=f"film-{item}",
                        screen=Screen.TV if viewer % 2 else Screen.MOBILE,
                        region="cn.zj.hz" if viewer % 3 else "cn.zj.nb",
                    )
                )
        return sorted(events, key=lambda event: event.at)

    return make


@pytest.fixture(scope="session")
def small() -> Config:
    """Return a configuration for small logs."""
    return Config(
        examples=Examples(session_actions=6, negatives=30, max_moments=400),
        network=Network(epochs=15, batch=256),
        evaluation=Evaluation(rounds=200, calibration_moments=60),
    )
