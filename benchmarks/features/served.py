"""E8: compares features logged while serving with features recomputed from the event log.

    python -m benchmarks.features.served [--rows N] [--seed S]

The real service and worker run in one process, on the embedded stream, with synthetic viewers. Events, folds, polls of
statistics and page requests happen at random times, so that pages lag behind the stream by zero to some hundred events.
The same pages are also compared with plain point-in-time features (all events before the page), to show the effect of
the lag. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np

from features.columns import FEATURES
from features.events.decode import encode
from features.events.schema import Kind, ViewerEvent
from features.events.stream.port import Record
from features.history.event_log import EventLog
from features.point_in_time.query import EntityRows, get_historical_features
from features.point_in_time.skew_audit import recompute_features, served_pages
from features.settings import Settings
from features.worker.worker import Worker
from recsys.domain.item import Item
from recsys.domain.types import ACTIONS
from recsys.models.bundle import Bundle
from recsys.models.probe import with_probe
from recsys.models.ranker import Predictor, Ranker, tensors
from recsys.models.served_model import ServedModel
from serving.app import build
from serving.schemas.resources import PageRequest
from serving.services import Services

START = datetime(2026, 3, 1, tzinfo=UTC).timestamp()
ITEMS, VIEWERS, TTL_DAYS = 200, 60, 1
REGIONS, SCREENS = ("cn", "cn.zj", "cn.zj.hz", "cn.sh"), ("tv", "mobile", "web")
KINDS = ("play", "complete", "like", "dislike", "hide", "click", "open", "ping", "share", "survey")


def main() -> None:
    """Serve, fold, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        figures = run(Path(home), args.rows, args.seed)
    for name, figure in figures.items():
        shown = f"{figure:>12,.6g}" if isinstance(figure, int | float) else ", ".join(figure) or "none"
        print(f"{name.replace('_', ' '):<44} {shown:>12}")
    print(json.dumps(figures))


def run(home: Path, rows: int, seed: int) -> dict[str, Any]:
    """Serve pages until they contain `rows` items, then compare; returns the figures."""
    began = time.perf_counter()
    with serving(home) as (services, clock):
        model, log = _model(seed), EventLog(home / "log")
        services.holders.poll_control()  # migrates the database
        services.control.upsert_items([_item(n) for n in range(ITEMS)], "benchmark")
        services.holders.poll_control()
        services.holders.set_model(model)
        _simulate(services, log, clock, rows, random.Random(seed))
        catalog = services.holders.current.catalog
    served_s, began = time.perf_counter() - began, time.perf_counter()
    pages = list(served_pages(log))
    ttl_s = TTL_DAYS * 86_400.0
    features = np.concatenate([page.features for page in pages])
    recomputed = recompute_features(log, catalog, pages, {model.bundle.version: model.retriever}, ttl_s=ttl_s)
    difference, scale = np.abs(features - np.concatenate(recomputed)), np.maximum(np.abs(features), 1.0)
    took_s = time.perf_counter() - began
    entities = EntityRows(
        [page.event.viewer_id for page in pages for _ in page.event.items],
        [item for page in pages for item in page.event.items],
        np.array([page.event.at for page in pages for _ in page.event.items]),
        [page.event.region for page in pages for _ in page.event.items],
        [page.event.placement.split("-")[1] for page in pages for _ in page.event.items],
    )
    plain = get_historical_features(log, catalog, entities, ttl_s=ttl_s, retriever=model.retriever)
    lag = np.abs(features - plain)
    worst = np.unravel_index(np.argmax(difference / scale), difference.shape)[1]
    return {
        "rows": len(difference),
        "pages": len(pages),
        "pages_of_known_viewers": sum(bool(page.lineage.viewer) for page in pages),
        "events": sum(len(list(log.by_offset(source))) for source in log.sources()),
        "largest_difference": float((difference / scale).max()),
        "rows_that_differ": int((difference / scale > 1e-6).any(axis=1).sum()),
        "rows_that_differ_from_plain_point_in_time": int((lag > 1e-6).any(axis=1).sum()),
        "worst_feature": len(FEATURES) if difference.max() == 0 else int(worst),
        "constant_features": [FEATURES[n] for n in np.flatnonzero(np.ptp(features, axis=0) == 0)],
        "seconds_serving": round(served_s, 1),
        "seconds_recomputing": round(took_s, 1),
    }


class Clock:
    """A clock that the benchmark advances."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


@contextmanager
def serving(home: Path) -> Iterator[tuple[Services, Clock]]:
    """Yield the services of an app, wired as in production, and their clock. Pollers are run by the caller."""
    clock = Clock()
    settings = {"home": str(home), "stream": "memory://", "online": "memory://", "viewer_ttl_days": TTL_DAYS}
    services = build(Settings.model_validate(settings), clock=clock).state.services
    services.spool.start()
    services.publisher.start()
    try:
        yield services, clock
    finally:
        services.publisher.stop()
        services.spool.close()
        services.stream.close()
        services.control.close()


def _simulate(services: Services, log: EventLog, clock: Clock, rows: int, rng: random.Random) -> None:
    """Let viewers act and request pages; the worker and the statistics follow at random times."""
    topic = services.settings.topic
    worker = Worker(
        services.stream, services.online, log, topic=topic, group="g", viewer_ttl_s=TTL_DAYS * 86_400.0, batch=50
    )
    served = number = 0
    services.holders.poll_stats()
    while served < rows:
        clock.now += round(rng.expovariate(1 / 300), 3)
        viewer, dice = f"viewer-{int(rng.paretovariate(0.6)) % VIEWERS}", rng.random()
        if dice < 0.6:
            kinds = (
                ("play", "play") if dice > 0.4 else (rng.choice(KINDS),)
            )  # an item left for another one counts as skipped
            for kind in kinds:
                number, clock.now = number + 1, clock.now + 5
                services.stream.publish(topic, [_event_record(viewer, f"e{number}", kind, clock.now, rng)])
        elif dice < 0.75:
            placement = f"{rng.choice(('cn.zj', 'cn.sh'))}-{rng.choice(SCREENS)}-home"
            request = PageRequest(viewer_id=viewer, region=rng.choice(REGIONS), slots=10)
            served += len(services.pages.recommend(placement, request).items)
        elif dice < 0.9:
            worker.step(wait_s=0)
        else:
            services.holders.poll_stats()
    services.publisher.stop()
    while worker.step(wait_s=0):
        pass
    worker.close()


def _event_record(viewer: str, id: str, kind: str, at: float, rng: random.Random) -> Record:
    details: dict[str, Any] = {
        "item_id": f"item-{int(rng.paretovariate(0.5)) % ITEMS}",
        "position_s": 9.0,
        "duration_s": rng.choice((None, 60.0)),
    }
    details = {"rating": rng.random()} if kind == "survey" else details
    screen = rng.choice(SCREENS)
    event = ViewerEvent(
        id=id,
        kind=cast(Kind, kind),
        viewer_id=viewer,
        at=at,
        region=rng.choice(REGIONS),
        placement=f"cn.zj-{screen}-home",
        **details,
    )
    return Record(viewer, encode(event))


def _item(n: int) -> Item:
    return Item.model_validate(
        {
            "id": f"item-{n}",
            "title": {"en": f"Item {n}"},
            "outlet": ("cn.zj", "cn.sh", "cn")[n % 3],
            "labels": [f"topic/{n % 7}", "film"][: n % 3],
            "series": f"s{n % 11}" if n % 2 else "",
            "axes": {"public_value": n % 5 / 4, "locality": n % 3 / 2},
            "kind": ("film", "article", "live")[n % 3],
            "formats": (["landscape"], ["text", "image"], ["landscape", "portrait"])[n % 3],
            "region": REGIONS[n % 4],
            "published_at": datetime.fromtimestamp(START - 3_600.0 * n, UTC),
            "duration_s": 60.0 * (n % 50),
        }
    )


def _model(seed: int) -> ServedModel:
    """Return a model with random factors and weights."""
    rng = np.random.default_rng(seed)
    network = Ranker(len(FEATURES), len(ACTIONS), hidden=8)
    probe = rng.normal(size=(3, len(FEATURES))).astype(np.float32)
    bundle = Bundle(
        version="random",
        created_at=0.0,
        item_ids=tuple(f"item-{n}" for n in range(ITEMS - 20)),
        item_vectors=rng.normal(size=(ITEMS - 20, 8)).astype(np.float32),
        retriever_params={"regularization": 0.1, "alpha": 10.0},
        popularity=np.zeros(ITEMS - 20, np.float32),
        network=tensors(network),
        feature_names=FEATURES,
        probe_features=probe,
        probe_p=Predictor(network).p(probe),
        metrics={},
    )
    return ServedModel.load(with_probe(bundle), FEATURES)


if __name__ == "__main__":
    main()
