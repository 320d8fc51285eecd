"""A training run, from a timeline to a bundle.

    |------- retrieval fitted -------|--- ranker's decision points ---|--- test ---|      evaluation
                                     T1                               T2           end
    |-------------- retrieval fitted ---------------|--- ranker's decision points -|      refit, registered

The ranker is fitted on candidates of a retriever fitted on earlier events only. The evaluation after T2 combines this
ranker with a retriever fitted up to T2. The registered models are fitted in the same way, with all windows moved to the
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
from recsys.models.bundle import ALS, Bundle
from recsys.models.probe import with_probe
from recsys.models.ranker import Predictor, tensors
from recsys.models.retriever import Retriever
from recsys.utility import weight_vector
from training.confidence import Interval
from training.config import Config
from training.decision_points import iter_decision_points
from training.evaluate import Result, build_cases, by_popularity, by_ranker, by_retrieval, compare, evaluate
from training.examples import build_rows
from training.models import als as retrieval
from training.models.ranker import TrainedRanker, quality, train
from training.state_replay import StateReplay
from training.timeline import Timeline

PROBE = 8192
"""Largest number of rows of the bundle's probe."""


@dataclass(frozen=True)
class Models:
    """A retriever fitted on the events before `until`, and a ranker on decision points between `since` and `until`."""

    since: float
    until: float
    retriever: Retriever
    ranker: TrainedRanker


@dataclass(frozen=True)
class TrainingResult:
    """The result of a run: the bundle, and each model's evaluation and its gain over popularity."""

    bundle: Bundle
    results: tuple[Result, ...]
    gains: tuple[Interval, ...]
    viewers: int


Report = Callable[[str], None]
"""A function that is called with a line of text before each stage of the run."""


def run(
    timeline: Timeline, catalog: Catalog, config: Config, now: float, report: Report, progress: bool = False
) -> TrainingResult:
    """Train, evaluate, refit and pack a bundle that is dated `now` (unix seconds).

    The same log, catalog and configuration give the same metrics. Raises InvalidInput when the log is too small for any
    of the stages.
    """
    split = config.split
    t1, t2 = timeline.cut(split.ranker + split.test), timeline.cut(split.test)
    report(f"training on {timeline.index(t2):,} events up to {_day(t2)}")
    models = fit(timeline, catalog, config, t1, t2, progress)

    test_cases = build_cases(timeline, catalog, t2)
    report(f"evaluating on {len(test_cases):,} viewers from {_day(t2)} on")
    predictor = Predictor(models.ranker.network)
    recommenders = {
        "popularity": by_popularity,
        "als": by_retrieval(catalog, models.retriever),
        "ranker": by_ranker(catalog, models.retriever, predictor, weight_vector(config.action_weights)),
    }
    results = tuple(
        evaluate(name, recommender, test_cases, len(catalog), config.evaluation, progress)
        for name, recommender in recommenders.items()
    )
    gains = tuple(compare(result, results[0], config.evaluation, config.seed) for result in results)
    metrics = summary_metrics(results, gains, len(test_cases), config) | _calibration(
        timeline, catalog, config, models, progress
    )

    if config.refit:
        report(f"refitting on all {len(timeline.events):,} events")
        models = fit(timeline, catalog, config, timeline.cut(split.ranker), timeline.end, progress)
    return TrainingResult(_bundle(timeline, catalog, config, models, metrics, now), results, gains, len(test_cases))


def fit(
    timeline: Timeline, catalog: Catalog, config: Config, since: float, until: float, progress: bool = False
) -> Models:
    """Fit a ranker on decision points in [since, until) with a retriever as of `since`, then one as of `until`."""
    earlier = retrieval.fit(retrieval.interactions(timeline.before(since), catalog), config.als, config.seed)
    points = iter_decision_points(timeline, catalog, since, until, config.examples)
    rows = build_rows(timeline, catalog, earlier, points, config.examples.negatives, config.seed, progress)
    ranker = train(rows, config.network, config.seed, progress)
    retriever = retrieval.fit(retrieval.interactions(timeline.before(until), catalog), config.als, config.seed)
    return Models(since, until, retriever, ranker)


def summary_metrics(
    results: tuple[Result, ...], gains: tuple[Interval, ...], viewers: int, config: Config
) -> dict[str, float]:
    """Return all metrics of the evaluation by name, as stored in the bundle and in the registry."""
    metrics = {"test_viewers": float(viewers)}
    for result, over in zip(results, gains, strict=True):
        metrics[f"{result.name}_ndcg_at_{config.evaluation.ndcg_at}"] = float(result.ndcg.mean())
        metrics[f"{result.name}_recall_at_{config.evaluation.recall_at}"] = float(result.recall.mean())
        metrics[f"{result.name}_coverage"] = result.coverage
        if result is not results[0]:
            metrics[f"{result.name}_gain"], metrics[f"{result.name}_gain_low"] = over.mean, over.low
            metrics[f"{result.name}_gain_high"] = over.high
    return metrics


def _calibration(
    timeline: Timeline, catalog: Catalog, config: Config, models: Models, progress: bool
) -> dict[str, float]:
    """Return the calibration metrics of the evaluated ranker on decision points after the split."""
    limits = config.examples.model_copy(update={"max_moments": config.evaluation.calibration_moments})
    points = iter_decision_points(timeline, catalog, models.until, timeline.end, limits)
    rows = build_rows(timeline, catalog, models.retriever, points, config.examples.negatives, config.seed, progress)
    return quality(models.ranker.network, rows)


def _bundle(
    timeline: Timeline, catalog: Catalog, config: Config, models: Models, metrics: dict[str, float], now: float
) -> Bundle:
    """Pack everything that serving needs, with sample rows for a check that were not used in the fit."""
    replay = StateReplay(timeline, catalog)
    replay.advance(timeline.index(models.until))
    retriever, held_out = models.retriever, models.ranker.held_out
    popularity: F32 = replay.stats(models.until).popularity()[catalog.rows(retriever.item_ids)]
    sample = np.zeros(len(held_out.weight), np.bool_)
    sample[np.linspace(0, len(sample) - 1, PROBE).astype(int)] = True
    rows = held_out.take(sample)
    bundle = Bundle(
        version=datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ"),
        created_at=now,
        item_ids=retriever.item_ids,
        item_vectors=retriever.vectors,
        retriever_params={"regularization": config.als.regularization, "alpha": config.als.alpha},
        popularity=popularity,
        network=tensors(models.ranker.network),
        feature_names=FEATURES,
        probe_features=rows.features,
        probe_p=Predictor(models.ranker.network).p(rows.features),
        metrics={name: value for name, value in metrics.items() if math.isfinite(value)},
        encoder=catalog.content.encoder,
        action_weights=dict(config.action_weights),
        model_kind=ALS,
    )
    return with_probe(bundle, rows.label, rows.weight)


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
