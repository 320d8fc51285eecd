"""One training run, from a timeline to a bundle, on one page.

    |------- retrieval fitted -------|--- the ranker's moments ---|--- test ---|      evaluation
                                     T1                           T2           end
    |------------ retrieval fitted ---------------|--- the ranker's moments ---|      refit, shipped

The ranker learns from pages that retrieval could have proposed at their time, knowing nothing later. What is evaluated
after T2 is retrieval fitted up to T2 under that ranker; what is shipped was made the same way, all windows moved to the
end of the log.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from features.columns import FEATURES
from recsys.domain.catalog import Catalog
from recsys.domain.types import F32
from recsys.metrics.accuracy import Interval
from recsys.models.bundle import ALS, Bundle
from recsys.models.ranker import Predictor, tensors
from recsys.models.retriever import Retriever
from recsys.utility import weight_vector
from training.config import Config
from training.decision_points import iter_decision_points
from training.evaluate import Result, by_popularity, by_ranker, by_retrieval, build_cases, compare, evaluate
from training.examples import build_rows
from training.models import als as retrieval
from training.models.ranker import TrainedRanker, quality, train
from training.state_replay import StateReplay
from training.timeline import Timeline

PROBE = 64
"""Rows of the bundle's probe at most."""


@dataclass(frozen=True)
class Models:
    """Retrieval as of `until`, and a ranker whose moments lie between `since` and `until`."""

    since: float
    until: float
    retriever: Retriever
    ranker: TrainedRanker


@dataclass(frozen=True)
class TrainingResult:
    """What a run leaves behind: the bundle, each model's result and its gain over popularity."""

    bundle: Bundle
    results: tuple[Result, ...]
    gains: tuple[Interval, ...]
    viewers: int


Report = Callable[[str], None]
"""Told what the run is about to do, in one line."""


def run(
    timeline: Timeline, catalog: Catalog, config: Config, now: float, report: Report, progress: bool = False
) -> TrainingResult:
    """Train, evaluate, refit and pack. Same log, catalogue, configuration: same figures. `now` dates the bundle.

    Raises InvalidInput when the log is too small for any of the steps.
    """
    share = config.split
    t1, t2 = timeline.cut(share.ranker + share.test), timeline.cut(share.test)
    report(f"learning from {timeline.index(t2):,} events up to {_day(t2)}")
    models = fit(timeline, catalog, config, t1, t2, progress)

    at = build_cases(timeline, catalog, t2)
    report(f"evaluating on {len(at):,} viewers from {_day(t2)} on")
    predictor = Predictor(models.ranker.network)
    listers = {
        "popularity": by_popularity,
        "als": by_retrieval(catalog, models.retriever),
        "ranker": by_ranker(catalog, models.retriever, predictor, weight_vector(config.action_weights)),
    }
    results = tuple(
        evaluate(name, lister, at, len(catalog), config.evaluation, progress) for name, lister in listers.items()
    )
    gains = tuple(compare(result, results[0], config.evaluation, config.seed) for result in results)
    metrics = summary_metrics(results, gains, len(at), config) | _calibration(
        timeline, catalog, config, models, progress
    )

    if config.refit:
        report(f"learning again from all {len(timeline.events):,} events")
        models = fit(timeline, catalog, config, timeline.cut(share.ranker), timeline.end, progress)
    return TrainingResult(_bundle(timeline, catalog, config, models, metrics, now), results, gains, len(at))


def fit(
    timeline: Timeline, catalog: Catalog, config: Config, since: float, until: float, progress: bool = False
) -> Models:
    """A ranker on moments in [since, until) over retrieval as of `since`, then retrieval as of `until` for it."""
    before = retrieval.fit(retrieval.interactions(timeline.before(since), catalog), config.als, config.seed)
    at = iter_decision_points(timeline, catalog, since, until, config.examples)
    rows = build_rows(timeline, catalog, before, at, config.examples.negatives, config.seed, progress)
    ranker = train(rows, config.network, config.seed, progress)
    retriever = retrieval.fit(retrieval.interactions(timeline.before(until), catalog), config.als, config.seed)
    return Models(since, until, retriever, ranker)


def summary_metrics(
    results: tuple[Result, ...], gains: tuple[Interval, ...], viewers: int, config: Config
) -> dict[str, float]:
    """All figures of the evaluation by name, as bundle and registry keep them."""
    named = {"test_viewers": float(viewers)}
    for result, over in zip(results, gains, strict=True):
        named[f"{result.name}_ndcg_at_{config.evaluation.ndcg_at}"] = float(result.ndcg.mean())
        named[f"{result.name}_recall_at_{config.evaluation.recall_at}"] = float(result.recall.mean())
        named[f"{result.name}_coverage"] = result.coverage
        if result is not results[0]:
            named[f"{result.name}_gain"], named[f"{result.name}_gain_low"] = over.mean, over.low
            named[f"{result.name}_gain_high"] = over.high
    return named


def _calibration(
    timeline: Timeline, catalog: Catalog, config: Config, models: Models, progress: bool
) -> dict[str, float]:
    """How well the evaluated ranker's probabilities hold on moments after the split."""
    sizes = config.examples.model_copy(update={"max_moments": config.evaluation.calibration_moments})
    at = iter_decision_points(timeline, catalog, models.until, timeline.end, sizes)
    rows = build_rows(timeline, catalog, models.retriever, at, config.examples.negatives, config.seed, progress)
    return quality(models.ranker.network, rows)


def _bundle(
    timeline: Timeline, catalog: Catalog, config: Config, models: Models, metrics: dict[str, float], now: float
) -> Bundle:
    """Everything serving needs, with a probe of rows that no weight was learned from."""
    replay = StateReplay(timeline, catalog)
    replay.advance(timeline.index(models.until))
    retriever, held_out = models.retriever, models.ranker.held_out
    popularity: F32 = replay.stats(models.until).popularity()[catalog.rows(retriever.item_ids)]
    probe = held_out.features[np.linspace(0, len(held_out.features) - 1, PROBE).astype(int)]
    return Bundle(
        version=datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ"),
        created_at=now,
        item_ids=retriever.item_ids,
        item_vectors=retriever.vectors,
        retriever_params={"regularization": config.als.regularization, "alpha": config.als.alpha},
        popularity=popularity,
        network=tensors(models.ranker.network),
        feature_names=FEATURES,
        probe_features=probe,
        probe_p=Predictor(models.ranker.network).p(probe),
        metrics={name: figure for name, figure in metrics.items() if math.isfinite(figure)},
        encoder=catalog.content.encoder,
        action_weights=dict(config.action_weights),
        model_kind=ALS,
    )


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
