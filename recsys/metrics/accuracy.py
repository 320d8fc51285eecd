"""What the figures mean: one formula, one doctest each. Lists of one viewer are rows or ids, best first."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np

from recsys.domain.types import F32, F64


def ndcg(ranked: Sequence[int], targets: Collection[int], k: int) -> float:
    """Normalised discounted cumulative gain of one list with binary gains, in [0, 1] (Järvelin & Kekäläinen 2002).

    DCG@k = sum over hits at position i = 1..k of 1 / log2(i + 1), divided by the DCG of the best list there is, which
    has min(k, |targets|) hits on top. Raises ValueError without targets: such a viewer has nothing to be measured by.

    >>> round(ndcg([7, 3, 9], {3, 9}, k=3), 4)     # (0.6309 + 0.5) / (1 + 0.6309)
    0.6934
    """
    if not targets:
        raise ValueError("nDCG needs at least one target")
    wanted = set(targets)
    discount = 1.0 / np.log2(np.arange(2, k + 2))
    hits = np.array([item in wanted for item in ranked[:k]], np.float64)
    return float(hits @ discount[: len(hits)] / discount[: len(wanted)].sum())


def recall(ranked: Sequence[int], targets: Collection[int], k: int) -> float:
    """Share of the targets in the first k, capped so that a full list of hits is 1 (Liang et al. 2018).

    recall@k = |first k and targets| / min(k, |targets|), in [0, 1]. Raises ValueError without targets.

    >>> recall([7, 3, 9], {3, 5, 6, 8}, k=3)
    0.3333333333333333
    """
    if not targets:
        raise ValueError("recall needs at least one target")
    wanted = set(targets)
    return len(wanted.intersection(ranked[:k])) / min(k, len(wanted))


def coverage(lists: Iterable[Sequence[int]], items: int) -> float:
    """Share of a catalogue of `items` that stands in at least one list, in [0, 1].

    >>> coverage([[1, 2], [2, 3]], items=6)
    0.5
    """
    return len(set().union(*map(set, lists))) / max(items, 1)


def calibration_error(p: F64 | F32, happened: F64 | F32, weight: F64 | F32, bins: int = 15) -> float:
    """Expected calibration error over bins of equal weight, in probability (Naeini et al. 2015).

    p         [N]  predicted probability
    happened  [N]  0 or 1
    weight    [N]  how many cases each row stands for
    return    sum over bins of (weight of bin / weight of all) * |mean of p - mean of happened|

    >>> calibration_error(np.array([0.2, 0.2, 0.9, 0.9]), np.array([0.0, 1.0, 1.0, 1.0]), np.ones(4), bins=2)
    0.2
    """
    order = np.argsort(p, kind="stable")
    p, happened, weight = (np.asarray(column, np.float64)[order] for column in (p, happened, weight))
    # A row belongs to the bin in which the middle of its weight falls; a bin is a stretch of the sorted rows.
    middle = np.cumsum(weight) - weight / 2.0
    bin_of = np.minimum((middle / weight.sum() * bins).astype(int), bins - 1)
    gap = np.bincount(bin_of, weight * (p - happened), bins)
    return float(round(np.abs(gap).sum() / weight.sum(), 12))


def normalised_entropy(p: F64 | F32, happened: F64 | F32, weight: F64 | F32) -> float:
    """Log loss relative to always answering the base rate; below 1 is better than that (He et al. 2014).

    p, happened, weight  [N]  as in `calibration_error`. NaN where nothing or everything happened: no base rate to beat.

    >>> normalised_entropy(np.array([0.5, 0.5]), np.array([0.0, 1.0]), np.ones(2))
    1.0
    """
    rate = float(np.average(happened, weights=weight))
    if not 0.0 < rate < 1.0:
        return float("nan")

    def loss(answer: F64) -> float:
        answer = np.clip(answer, 1e-12, 1 - 1e-12)
        surprise = -(happened * np.log(answer) + (1.0 - happened) * np.log(1.0 - answer))
        return float(np.average(surprise, weights=weight))

    return loss(np.asarray(p, np.float64)) / loss(np.full(len(p), rate))
