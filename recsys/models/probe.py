"""The probe of a bundle: predictions and pages that the loaded models must reproduce before they take traffic.

Its viewers are made up of items that the retrieval model places close together, so a bundle holds no history of a
person, and erasing a viewer changes no bundle.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from recsys.domain.errors import BundleError
from recsys.domain.types import F32, F64, I32
from recsys.domain.viewer import Recent, ViewerState
from recsys.models.bundle import Bundle, ProbePage
from recsys.models.retriever import Retriever, load_retriever

VIEWERS, HISTORY, PAGE = 8, 5, 20
"""Number of made-up viewers, of items in the history of each, and of items on the page of each."""

TOLERANCE = 1e-3
"""Largest accepted difference of a score, relative to the largest score of the page, or to 1 if that is smaller."""

RECALL = 0.5
"""Smallest accepted share of a page's items that the retrieval model finds again; an approximate index loses some."""

MAX_LOSS, CALIBRATION_PENALTY = 1.02, 10.0
"""Largest accepted log loss of the ranker on the labels of the probe, relative to that of their mean; and the loss,
over all rows, that calibration may give up to stay near the identity (`training.models.ranker.platt`)."""


def with_probe(bundle: Bundle, labels: F32 | None = None, weights: F32 | None = None) -> Bundle:
    """Return the bundle with labels for its probe, and with the pages that its retrieval model gives now.

    labels   [P, A]  what the viewers did; `bundle.probe_p` by default
    weights  [P]     weights of the probe's rows; 1 by default
    """
    p = bundle.probe_p
    probed = replace(
        bundle,
        probe_labels=p if labels is None else labels,
        probe_weights=np.ones(len(p), np.float32) if weights is None else weights,
        probe_pages=tuple(_probe_pages(load_retriever(bundle))),
    )
    return replace(probed, probe_loss=label_loss(p, probed) if len(p) else 0.0)


def _probe_pages(retriever: Retriever) -> Iterable[ProbePage]:
    ids, count = retriever.item_ids, len(retriever.item_ids)
    for position in np.unique(np.linspace(0, count - 1, VIEWERS).astype(int)):
        neighbours = retriever.nearest(retriever.vectors[position], HISTORY)
        history = tuple(ids[n] for n in dict.fromkeys([int(position), *neighbours.tolist()]))[:HISTORY]
        vector = retriever.viewer_vector(probe_viewer(history))
        if vector is not None:
            positions = retriever.nearest(vector, PAGE)
            scores = retriever.scores(vector, positions).tolist()
            yield ProbePage(history=history, items=tuple(ids[n] for n in positions), scores=tuple(scores))


def probe_viewer(history: Iterable[str], at: float = 0.0) -> ViewerState:
    """Return the state of a viewer who liked these items at unix second `at`. No viewer of the service has its id."""
    return ViewerState(" probe", recent=tuple(Recent(item_id, "like", at) for item_id in history))


def check_pages(pages: Iterable[ProbePage], retriever: Retriever) -> None:
    """Check that a retrieval model gives these pages. Raises BundleError."""
    for number, page in enumerate(pages):
        if unknown := {*page.history, *page.items}.difference(retriever.position_of):
            raise BundleError(f"probe page {number} holds {min(unknown)!r}, which is not an item of the model")
        vector = retriever.viewer_vector(probe_viewer(page.history))
        if vector is None or not np.isfinite(vector).all():
            raise BundleError(f"probe page {number}: the retrieval model has no finite vector for its viewer")
        positions: I32 = np.array([retriever.position_of[item_id] for item_id in page.items], np.int32)
        expected: F64 = np.array(page.scores)
        difference = float(np.abs(retriever.scores(vector, positions) - expected).max())
        if not difference <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
            raise BundleError(
                f"probe page {number}: the retrieval model's scores differ from those in training by {difference:.2g};"
                " its items, vectors or parameters do not belong together"
            )
        recall = np.isin(positions, retriever.nearest(vector, PAGE)).mean()
        if recall < RECALL:
            raise BundleError(f"probe page {number}: the retrieval model finds {recall:.0%} of its items")


def check_labels(p: F32, bundle: Bundle) -> None:
    """Check a ranker by what the viewers of the probe did. Raises BundleError.

    p  [P, A]  the ranker's output for `bundle.probe_features`

    Its log loss must be that of the training run, so that outputs which were rewritten together with the weights are
    found, and it must not exceed the loss of the labels' mean.
    """
    if not len(p):
        return
    loss, baseline = label_loss(p, bundle), label_loss(_mean(bundle), bundle)
    if not abs(loss - bundle.probe_loss) <= TOLERANCE * max(bundle.probe_loss, TOLERANCE):
        raise BundleError(
            f"the ranker predicts the labels of its probe with a log loss of {loss:.6g}, in training it was"
            f" {bundle.probe_loss:.6g}: its weights are not those that were trained"
        )
    if loss > MAX_LOSS * baseline + CALIBRATION_PENALTY / max(float(bundle.probe_weights.sum()), 1.0):
        raise BundleError(
            f"the ranker predicts the labels of its probe worse than their mean does: log loss {loss:.4g}, mean"
            f" {baseline:.4g}"
        )


def label_loss(p: F32 | F64, bundle: Bundle) -> float:
    """Return the log loss of predictions of the probe's labels, summed over actions, per unit of weight.

    Actions that never or always happened are left out: their mean is a perfect prediction.
    """
    labels, rate = bundle.probe_labels, _mean(bundle)[0]
    varies = (rate > 0) & (rate < 1)
    if not varies.any():
        return 0.0
    p, y = np.clip(p[:, varies].astype(np.float64), 1e-7, 1 - 1e-7), labels[:, varies]
    losses = -(y * np.log(p) + (1 - y) * np.log1p(-p)).sum(axis=1)
    return float(np.average(losses, weights=bundle.probe_weights))


def _mean(bundle: Bundle) -> F64:
    """Return [P, A] the weighted mean of the probe's labels, in each row."""
    rate = np.average(bundle.probe_labels.astype(np.float64), axis=0, weights=bundle.probe_weights)
    return np.broadcast_to(rate, bundle.probe_labels.shape)
