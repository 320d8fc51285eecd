"""Training rows for the ranker: the candidates of each decision point with their features and the viewer's actions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from features.columns import FEATURES
from recsys.domain.catalog import Catalog
from recsys.domain.errors import InvalidInput
from recsys.domain.types import ACTIONS, F32, I32, Bool
from recsys.models.retriever import Retriever
from training.candidate_generation import CandidateGenerator
from training.decision_points import DecisionPoint
from training.state_replay import StateReplay
from training.timeline import Timeline


@dataclass(frozen=True)
class Rows:
    """R training rows in time order.

    features  [R, F]  as in `features.columns.FEATURES`
    label     [R, A]  1 where the viewer took the action of `recsys.domain.types.ACTIONS`, else 0
    weight    [R]     number of candidates the row represents: 1 for a positive, 1 / sampling rate for a negative
    point     [R]     number of the row's decision point, ascending
    """

    features: F32
    label: F32
    weight: F32
    point: I32

    def take(self, keep: Bool) -> Rows:
        """Return the rows selected by a mask [R]."""
        return Rows(self.features[keep], self.label[keep], self.weight[keep], self.point[keep])


def build_rows(
    timeline: Timeline,
    catalog: Catalog,
    retriever: Retriever,
    points: Sequence[DecisionPoint],
    negatives: int,
    seed: int,
    progress: bool = False,
) -> Rows:
    """Return all positives and `negatives` sampled negatives of each decision point.

    The timeline is replayed in time order, so no row uses an event from its decision point on. The retriever must have
    been fitted on the events before the first decision point. The sample depends only on the seed and the decision
    point, so later events change no row. Raises InvalidInput when no candidate was acted on.
    """
    replay, generator = StateReplay(timeline, catalog), CandidateGenerator(catalog, retriever)
    features, labels, weights, numbers = [], [], [], []
    for number, point in enumerate(tqdm(points, desc="examples", unit="page", leave=False, disable=not progress)):
        replay.advance(point.index)
        event = point.event
        viewer, stats = replay.viewer(event.viewer_id, event.at), replay.stats(event.at)
        candidates = generator.generate(event, event.at, viewer, stats, replay.acted(event.viewer_id))
        bits = np.zeros(len(candidates.row), np.int32)
        for row, actions in point.actions.items():
            bits[candidates.row == row] = actions
        sampled, weight = _sample(bits > 0, negatives, np.random.default_rng([seed, point.index]))
        features.append(candidates.features[sampled])
        labels.append((bits[sampled, None] >> np.arange(len(ACTIONS))) & 1)
        weights.append(weight)
        numbers.append(np.full(len(sampled), number))
    if not any(label.any() for label in labels):
        raise InvalidInput("no ranker can be trained: viewers acted on none of the candidates that retrieval proposed")
    return Rows(
        np.concatenate(features).reshape(-1, len(FEATURES)),
        np.concatenate(labels).astype(np.float32),
        np.concatenate(weights).astype(np.float32),
        np.concatenate(numbers).astype(np.int32),
    )


def _sample(is_positive: Bool, negatives: int, rng: np.random.Generator) -> tuple[I32, F32]:
    """Return the indices of all positives and of sampled negatives, and their weights (Horvitz & Thompson 1952)."""
    negative_rows = np.flatnonzero(~is_positive)
    drawn = rng.choice(negative_rows, min(negatives, len(negative_rows)), replace=False)
    sampled = np.concatenate([np.flatnonzero(is_positive), drawn]).astype(np.int32)
    weight = np.ones(len(sampled), np.float32)
    weight[int(is_positive.sum()) :] = len(negative_rows) / max(len(drawn), 1)
    return sampled, weight
