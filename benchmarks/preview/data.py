"""Data of the preview benchmark: MovieLens films, the demo's newsroom items, and every viewer's real history.

Item factors are a truncated SVD of the ratings and the ranker is untrained: the cost of a page does not depend on the
quality of the model.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import svds

from features.columns import FEATURES
from features.state.fold import deduplicate_and_fold
from features.state.item_columns import ItemColumns
from features.state.votes import LoggedEvent
from recsys.domain.catalog import Catalog
from recsys.domain.item_statistics import ItemStats
from recsys.domain.types import ACTIONS
from recsys.domain.viewer import ViewerState
from recsys.guidance.policy.policy import Policy, parse_policy
from recsys.models.bundle import Bundle
from recsys.models.probe import with_probe
from recsys.models.ranker import Predictor, Ranker, tensors
from serving.demo.movielens import MovieLens
from serving.demo.policies import newsroom_items

ANCHOR = 1_780_000_000.0
FACTORS = 64
OUTLETS = ("cn", "cn.zj", "cn.zj.hz")


@dataclass(frozen=True)
class PreviewData:
    """The inputs of a snapshot, before a policy is compiled."""

    catalog: Catalog
    stats: ItemStats
    bundle: Bundle
    viewers: dict[str, ViewerState]
    policies: tuple[Policy, ...]


def load_data(seed: int = 7) -> PreviewData:
    """Load the data and make a model; takes a few seconds."""
    movielens = MovieLens.read(ANCHOR)
    catalog = Catalog.of(movielens.items() + newsroom_items(ANCHOR))
    columns, events_by_viewer, pairs = (
        ItemColumns(catalog),
        defaultdict[str, list[LoggedEvent]](list),
        list[tuple[int, int]](),
    )
    names = {viewer: n for n, viewer in enumerate(movielens.viewers)}
    for offset, event in enumerate(movielens.events()):
        events_by_viewer[event.viewer_id].append(LoggedEvent("bench/0", offset, event))
        pairs.append((names[event.viewer_id], catalog.row_of[event.item_id or ""]))
    folded = {viewer: deduplicate_and_fold(ViewerState(viewer), events) for viewer, events in events_by_viewer.items()}
    for result in folded.values():
        for weighted in result.new_events:
            columns.add(weighted)
    viewers = {viewer: result.state for viewer, result in folded.items()}
    return PreviewData(catalog, columns.at(ANCHOR), _bundle(catalog, np.array(pairs), seed), viewers, policies())


def policies() -> tuple[Policy, ...]:
    """Return the demo's three policies, root first."""
    folder = files("serving.demo").joinpath("policies")
    return tuple(parse_policy(folder.joinpath(f"{outlet}.yaml").read_text("utf-8")) for outlet in OUTLETS)


def _bundle(catalog: Catalog, pairs: np.ndarray, seed: int) -> Bundle:
    rows, position = np.unique(pairs[:, 1], return_inverse=True)
    acted = csr_matrix((np.ones(len(pairs)), (pairs[:, 0], position)))
    _, weight, right = svds(acted, FACTORS, rng=np.random.default_rng(seed))
    vectors = (right.T * np.sqrt(weight) / np.sqrt(weight.max())).astype(np.float32)
    import torch

    torch.manual_seed(seed)
    network = tensors(Ranker(len(FEATURES), len(ACTIONS)))
    probe = np.random.default_rng(seed).normal(size=(4, len(FEATURES))).astype(np.float32)
    bundle = Bundle(
        version="bench",
        created_at=ANCHOR,
        item_ids=tuple(catalog.ids[row] for row in rows),
        item_vectors=vectors,
        retriever_params={"regularization": 0.1, "alpha": 5.0},
        popularity=np.bincount(position).astype(np.float32),
        network=network,
        feature_names=FEATURES,
        probe_features=probe,
        probe_p=Predictor.load(network).p(probe),
        metrics={},
    )
    return with_probe(bundle)
