"""Coherence of action probabilities, which every ranker and every fallback level guarantees."""

from __future__ import annotations

import numpy as np

from recsys.domain.types import ACTIONS, F32

PLAY, COMPLETE = ACTIONS.index("play"), ACTIONS.index("complete")


def coherent(p: F32) -> F32:
    """Return coherent probabilities: all in [0, 1], and p(complete) at most p(play).

    p       [N, A]  estimated probability of each action of `recsys.domain.types.ACTIONS`
    return  [N, A]

    Whoever completes an item has played it, but actions are calibrated one by one, so an estimate of p(complete) can
    exceed that of p(play). It is then clipped to p(play), the better estimate of the two because it has more positive
    examples. A model of p(complete | play) would be coherent by itself, but it would have to be trained and calibrated
    on plays alone, which are few, and its error would be multiplied by that of p(play).

    Raises FloatingPointError if an estimate is not a number.

    >>> coherent(np.array([[0.2, 0.3, 0.1, 0.0], [0.5, 0.25, 1.5, -1.0]])).tolist()
    [[0.2, 0.2, 0.1, 0.0], [0.5, 0.25, 1.0, 0.0]]
    """
    if np.isnan(p).any():
        raise FloatingPointError("an estimated probability is not a number")
    clipped: F32 = np.clip(p, 0.0, 1.0)
    clipped[:, COMPLETE] = np.minimum(clipped[:, COMPLETE], clipped[:, PLAY])
    return clipped
