"""Fit the multi-action ranker: weighted log loss, early stopping and calibration on held-out decision points.

Decision points are split by time: the oldest train the network, newer ones stop it, the newest calibrate it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from tqdm import tqdm

from features.columns import FEATURES
from recsys.domain.errors import InvalidInput
from recsys.domain.types import ACTIONS, F32, F64
from recsys.metrics.accuracy import calibration_error, normalised_entropy
from recsys.models.ranker import EXCLUDED_VALUE, Predictor, Ranker
from training.config import Network
from training.examples import Rows

ROUNDING = 1e-3
"""A feature with a standard deviation below this share of its mean counts as constant: it is rounding noise."""


@dataclass(frozen=True)
class TrainedRanker:
    """A fitted ranker.

    network   the calibrated network
    held_out  the newest rows, used for calibration only
    epochs    the best epoch
    loss      its loss on the rows for early stopping
    """

    network: Ranker
    held_out: Rows
    epochs: int
    loss: float


def train(rows: Rows, config: Network, seed: int, progress: bool = False) -> TrainedRanker:
    """Fit on the oldest decision points, stop early on newer ones, calibrate on the newest.

    The same rows and seed give the same network. Raises InvalidInput when there are too few decision points to hold
    any out.
    """
    training, stop, calibrate = _split_by_time(rows, config)
    threads, generator = torch.get_num_threads(), torch.Generator().manual_seed(seed)
    torch.set_num_threads(1)  # a fixed order of summation, for the same results on machines with the same float formats
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = Ranker(rows.features.shape[1], rows.label.shape[1], config.hidden)
        _standardise(network, training, config.excluded_features)
        epochs, loss = _fit(network, training, stop, config, generator, progress)
        _calibrate(network, calibrate)
    finally:
        torch.set_num_threads(threads)
    network.eval()
    return TrainedRanker(network, calibrate, epochs, loss)


def _split_by_time(rows: Rows, config: Network) -> tuple[Rows, Rows, Rows]:
    """Split whole decision points by time, into rows for training, early stopping and calibration."""
    n_points = int(rows.point[-1]) + 1
    first_stop = int(n_points * (1.0 - config.stop - config.calibrate))
    first_calibrate = int(n_points * (1.0 - config.calibrate))
    if not 0 < first_stop < first_calibrate < n_points:
        raise InvalidInput(
            f"{n_points} decision points are too few to split into training, early stopping and calibration"
        )
    return (
        rows.take(rows.point < first_stop),
        rows.take((rows.point >= first_stop) & (rows.point < first_calibrate)),
        rows.take(rows.point >= first_calibrate),
    )


def _standardise(network: Ranker, rows: Rows, excluded: Sequence[str]) -> None:
    """Set the centre and scale of the inputs, and the bias of each head to the base rate of its action.

    excluded  names of features that the ranker ignores
    """
    mean = np.average(rows.features, axis=0, weights=rows.weight)
    std = np.sqrt(np.average((rows.features - mean) ** 2, axis=0, weights=rows.weight))
    rate = np.average(rows.label, axis=0, weights=rows.weight).clip(1e-5, 1 - 1e-5)
    with torch.no_grad():
        network.mean.copy_(torch.from_numpy(mean))
        varies = std > ROUNDING * np.maximum(np.abs(mean), ROUNDING)
        used = varies & ~np.isin(FEATURES, excluded) if excluded else varies
        network.std.copy_(torch.from_numpy(np.where(used, std, EXCLUDED_VALUE)))
        network.head.bias.copy_(torch.from_numpy(np.log(rate / (1.0 - rate))))


def _fit(
    network: Ranker, training: Rows, stop: Rows, config: Network, generator: torch.Generator, progress: bool
) -> tuple[int, float]:
    """Run AdamW until the held-out loss has not improved for `patience` epochs, and restore the best weights.

    Returns the best epoch and its held-out loss.
    """
    features, label, weight = (
        torch.from_numpy(column) for column in (training.features, training.label, training.weight)
    )
    held_out = tuple(torch.from_numpy(column) for column in (stop.features, stop.label, stop.weight))
    optimizer = torch.optim.AdamW(network.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    best, best_loss, best_epoch = _copy(network), math.inf, 0
    with tqdm(range(1, config.epochs + 1), desc="ranker", unit="epoch", leave=False, disable=not progress) as epochs:
        for epoch in epochs:
            network.train()
            for batch in torch.split(torch.randperm(len(weight), generator=generator), config.batch):
                optimizer.zero_grad()
                _loss(network, features[batch], label[batch], weight[batch]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            network.eval()
            with torch.inference_mode():
                loss = float(_loss(network, *held_out))
            epochs.set_postfix(held_out=f"{loss:.5f}")
            if loss < best_loss:
                best, best_loss, best_epoch = _copy(network), loss, epoch
            elif epoch - best_epoch >= config.patience:
                break
    network.load_state_dict(best)
    return best_epoch, best_loss


def _copy(network: Ranker) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def _loss(network: Ranker, features: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted mean log loss per candidate, summed over actions."""
    losses = binary_cross_entropy_with_logits(network.raw(features), label, reduction="none").sum(dim=1)
    return (losses * weight).sum() / weight.sum()


def _calibrate(network: Ranker, rows: Rows) -> None:
    """Set scale and shift of each action's logit (Platt 1999); an action that never happened keeps the identity."""
    with torch.inference_mode():
        logits = network.raw(torch.from_numpy(rows.features)).numpy().astype(np.float64)
    for action in range(rows.label.shape[1]):
        scale, shift = platt(logits[:, action], rows.label[:, action], rows.weight)
        network.scale[action], network.shift[action] = scale, shift


def platt(logit: F64, happened: F32, weight: F32, steps: int = 50) -> tuple[float, float]:
    """Return the (scale, shift) that minimise the weighted log loss of sigmoid(scale * logit + shift).

    logit, happened, weight  [N]

    Newton's method is used. A quadratic penalty towards (1, 0) keeps the result finite if the cases are separable. The
    scale is never negative, so calibration never reverses an order.

    >>> logit = np.repeat([-2.0, 2.0], 1000)
    >>> tuple(round(part, 2) for part in platt(logit, (logit > 0).astype(np.float32), np.ones(2000, np.float32)))[0] > 1
    True
    """
    if not 0 < float(happened @ weight) < float(weight.sum()):
        return 1.0, 0.0
    x = np.column_stack([logit, np.ones(len(logit))])
    identity, params = np.array([1.0, 0.0]), np.array([1.0, 0.0])

    def loss(point: F64) -> float:
        z = x @ point
        return float(weight @ (np.logaddexp(0.0, z) - happened * z) + 0.5 * ((point - identity) ** 2).sum())

    for _ in range(steps):
        p = 0.5 * (1.0 + np.tanh(0.5 * (x @ params)))
        gradient = x.T @ (weight * (p - happened)) + (params - identity)
        hessian = (x.T * (weight * p * (1.0 - p))) @ x + np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        length = 1.0
        while loss(params - length * step) > loss(params) and length > 1e-6:
            length /= 2.0
        params = params - length * step
        if float(np.abs(length * step).max()) < 1e-9:
            break
    return (float(params[0]), float(params[1])) if params[0] > 0 else (0.0, _base_logit(happened, weight))


def _base_logit(happened: F32, weight: F32) -> float:
    rate = float(np.average(happened, weights=weight))
    return math.log(rate / (1.0 - rate))


def quality(network: Ranker, rows: Rows) -> dict[str, float]:
    """Return calibration error and normalised entropy on these rows, for each action that occurs in them."""
    p = Predictor(network).p(rows.features)
    metrics = {}
    for action, name in enumerate(ACTIONS):
        happened = rows.label[:, action]
        if 0 < happened.sum() < len(happened):
            metrics[f"calibration_error_{name}"] = calibration_error(p[:, action], happened, rows.weight)
            metrics[f"normalised_entropy_{name}"] = normalised_entropy(p[:, action], happened, rows.weight)
    return metrics
