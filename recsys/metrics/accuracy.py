"""Accuracy and calibration metrics, each with its formula and a doctest.

A ranked list holds the item rows or ids of one viewer, best first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np

from recsys.domain.types import F32, F64


def ndcg(ranked: Sequence[int], targets: Collection[int], k: int) -> float:
    """Return the normalised discounted cumulative gain of a list with binary gains (Järvelin & Kekäläinen 2002).

    DCG@k is the sum over hits at position i = 1..k of 1 / log2(i + 1). It is divided by the DCG of an ideal list, which
    has min(k, |targets|) hits at the top, so the result is in [0, 1]. Raises ValueError without targets.

    >>> round(ndcg([7, 3, 9], {3, 9}, k=3), 4)     # (0.6309 + 0.5) / (1 + 0.6309)
    0.6934
    """
    if not targets:
        raise ValueError("nDCG needs at least one target")
    relevant = set(targets)
    discount = 1.0 / np.log2(np.arange(2, k + 2))
    hits = np.array([item in relevant for item in ranked[:k]], np.float64)
    return float(hits @ discount[: len(hits)] / discount[: len(relevant)].sum())


def recall(ranked: Sequence[int], targets: Collection[int], k: int) -> float:
    """Return the share of the targets among the first k, scaled so that k hits score 1 (Liang et al. 2018).

    recall@k = |first k and targets| / min(k, |targets|), in [0, 1]. Raises ValueError without targets.

    >>> recall([7, 3, 9], {3, 5, 6, 8}, k=3)
    0.3333333333333333
    """
    if not targets:
        raise ValueError("recall needs at least one target")
    relevant = set(targets)
    return len(relevant.intersection(ranked[:k])) / min(k, len(relevant))


def coverage(lists: Iterable[Sequence[int]], items: int) -> float:
    """Return the share of a catalog of `items` items that appears in at least one list, in [0, 1].

    >>> coverage([[1, 2], [2, 3]], items=6)
    0.5
    """
    return len(set().union(*map(set, lists))) / max(items, 1)


def calibration_error(p: F64 | F32, happened: F64 | F32, weight: F64 | F32, bins: int = 15) -> float:
    """Return the expected calibration error over bins of equal weight, in [0, 1] (Naeini et al. 2015).

    p         [N]  predicted probability
    happened  [N]  0 or 1
    weight    [N]  number of cases that each row represents
    return    sum over bins of (weight of bin / weight of all) * |mean of p - mean of happened|

    >>> calibration_error(np.array([0.2, 0.2, 0.9, 0.9]), np.array([0.0, 1.0, 1.0, 1.0]), np.ones(4), bins=2)
    0.2
    """
    order = np.argsort(p, kind="stable")
    p, happened, weight = (np.asarray(column, np.float64)[order] for column in (p, happened, weight))
    # A row belongs to the bin that contains the midpoint of its weight; bins are consecutive runs of the sorted rows.
    middle = np.cumsum(weight) - weight / 2.0
    bin_of = np.minimum((middle / weight.sum() * bins).astype(int), bins - 1)
    gap = np.bincount(bin_of, weight * (p - happened), bins)
    return float(round(np.abs(gap).sum() / weight.sum(), 12))


def normalised_entropy(p: F64 | F32, happened: F64 | F32, weight: F64 | F32) -> float:
    """Return the log loss relative to always predicting the base rate; below 1 is better than that (He et al. 2014).

    p, happened, weight  [N]  as in `calibration_error`

    NaN if no case or every case happened, since the base rate then has no loss.

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
