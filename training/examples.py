"""Rows for the ranker: at each moment, what retrieval proposed and what came of it, with serving's own features."""

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
    """R rows in time order.

    features  [R, F]  as in `features.columns.FEATURES`
    label     [R, A]  1 where the viewer took the action of `recsys.domain.types.ACTIONS`, else 0
    weight    [R]     how many candidates the row stands for: 1 if acted on, else 1 / sampling rate of its moment
    moment    [R]     number of the moment it belongs to, rising
    """

    features: F32
    label: F32
    weight: F32
    point: I32

    def take(self, keep: Bool) -> Rows:
        """The rows under a mask [R]."""
        return Rows(self.features[keep], self.label[keep], self.weight[keep], self.point[keep])


def build_rows(
    timeline: Timeline,
    catalog: Catalog,
    retriever: Retriever,
    at: Sequence[DecisionPoint],
    negatives: int,
    seed: int,
    progress: bool = False,
) -> Rows:
    """Every candidate that was acted on, and `negatives` of the others, of every moment, replayed in time order.

    The retriever must have been fitted on what was before the first moment. Which candidates are drawn depends on the
    seed and the moment alone, so later events change no row. Raises InvalidInput when retrieval proposed nothing that
    anybody acted on.
    """
    replay, proposer = StateReplay(timeline, catalog), CandidateGenerator(catalog, retriever)
    features, labels, weights, numbers = [], [], [], []
    for number, moment in enumerate(tqdm(at, desc="examples", unit="page", leave=False, disable=not progress)):
        replay.advance(moment.index)
        event = moment.event
        viewer, stats = replay.viewer(event.viewer_id, event.at), replay.stats(event.at)
        proposals = proposer.generate(event, event.at, viewer, stats, replay.acted(event.viewer_id))
        bits = np.zeros(len(proposals.row), np.int32)
        for row, taken in moment.actions.items():
            bits[proposals.row == row] = taken
        kept, weight = _sample(bits > 0, negatives, np.random.default_rng([seed, moment.index]))
        features.append(proposals.features[kept])
        labels.append((bits[kept, None] >> np.arange(len(ACTIONS))) & 1)
        weights.append(weight)
        numbers.append(np.full(len(kept), number))
    if not any(label.any() for label in labels):
        raise InvalidInput("nothing that retrieval proposed was acted on: there is nothing to train a ranker with")
    return Rows(
        np.concatenate(features).reshape(-1, len(FEATURES)),
        np.concatenate(labels).astype(np.float32),
        np.concatenate(weights).astype(np.float32),
        np.concatenate(numbers).astype(np.int32),
    )


def _sample(acted: Bool, negatives: int, chance: np.random.Generator) -> tuple[I32, F32]:
    """Indices of all rows acted on and of some others, and how many rows each stands for (Horvitz & Thompson 1952)."""
    others = np.flatnonzero(~acted)
    drawn = chance.choice(others, min(negatives, len(others)), replace=False)
    kept = np.concatenate([np.flatnonzero(acted), drawn]).astype(np.int32)
    stands_for = np.ones(len(kept), np.float32)
    stands_for[int(acted.sum()) :] = len(others) / max(len(drawn), 1)
    return kept, stands_for
