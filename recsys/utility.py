"""Utility: the expected value of an item to its viewer, in play equivalents (docs/reference/utility.md)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from recsys.domain.types import ACTIONS, F32, F64
from recsys.models.probabilities import PLAY

DEFAULT_WEIGHTS: Mapping[str, float] = MappingProxyType({"play": 1.0, "complete": 1.0, "like": 2.0, "dislike": -3.0})
"""Weight of each action in play equivalents: the default in training, and the weights without a model."""

MAX_WEIGHT = 1000.0
"""Largest absolute weight. Beyond it, the rounding error of one action hides all other actions."""


def weight_faults(weights: Mapping[str, object], actions: Sequence[str] = ACTIONS) -> list[str]:
    """Return the faults of action weights; empty if the weights are valid.

    Each action has exactly one weight, a finite number of at most MAX_WEIGHT in size. A play weighs 1: it is the unit.

    >>> weight_faults(DEFAULT_WEIGHTS)
    []
    >>> weight_faults({**DEFAULT_WEIGHTS, "play": 2.0})
    ['the weight of play is 2, expected 1: the unit is one play, so divide all weights by 2']
    """
    faults = [f"no weight for {action}" for action in actions if action not in weights]
    faults += [f"a weight for {name}, which is not an action" for name in weights if name not in actions]
    for name, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not abs(weight) <= MAX_WEIGHT:
            faults.append(
                f"the weight of {name} is {weight!r}, expected a number from {-MAX_WEIGHT:g} to {MAX_WEIGHT:g}"
            )
        elif name == "play" and weight <= 0:
            faults.append(f"the weight of play is {weight:g}, expected 1: the unit is one play")
        elif name == "play" and weight != 1:
            remedy = f"the unit is one play, so divide all weights by {weight:g}"
            faults.append(f"the weight of play is {weight:g}, expected 1: {remedy}")
    return faults


def weight_vector(weights: Mapping[str, float] = DEFAULT_WEIGHTS) -> F64:
    """Return valid weights [A] in the order of `recsys.domain.types.ACTIONS`."""
    return np.array([weights[action] for action in ACTIONS], np.float64)


def utility(p: F32, weight: F64) -> F64:
    """Return the expected utility of each candidate for its viewer.

    p       [N, A]  calibrated probability of each action, in [0, 1]
    weight  [A]     weight of each action, in play equivalents; negative for harm
    return  [N]     in play equivalents

    >>> utility(np.array([[0.5, 0.1]]), np.array([1.0, -2.0])).round(2)
    array([0.3])
    """
    return np.asarray(p @ weight, np.float64)


def expected_plays(p: F32, attention: F64) -> float:
    """Return the expected number of plays of a page of K items: the sum of attention x p(play).

    p          [K, A]  calibrated probability of each action of the item in each slot
    attention  [K]     chance that each slot is looked at

    >>> round(expected_plays(np.array([[0.5, 0.1, 0.0, 0.0], [0.25, 0.0, 0.0, 0.0]]), np.array([1.0, 0.8])), 3)
    0.7
    """
    return math.fsum(attention * p[:, PLAY].astype(np.float64))
