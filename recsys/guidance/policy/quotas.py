"""Convert quotas and caps to counts of items per page prefix: rounding, prefixes, earlier pages of the session."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, floor

import numpy as np

from recsys.domain.types import I32
from recsys.guidance.policy.controls import Quota


def min_counts(quota: Quota, slots: int, shown: int = 0, counted: int = 0) -> I32:
    """Return the [slots] minimum number of members in the first k slots; 0 without a minimum.

    If earlier pages had `shown` slots, `counted` of them with members, a share must also be met over all pages
    together, as far as the first k slots can compensate.
    """
    minimum = np.zeros(slots, np.int32)
    for k in _prefixes(quota, slots):
        if isinstance(quota.at_least, int):
            minimum[k - 1] = quota.at_least
        elif quota.at_least is not None:
            up = k == slots or quota.rounding == "strict"
            overall = _rounded(quota.at_least * (shown + k), up) - counted
            minimum[k - 1] = max(_rounded(quota.at_least * k, up), min(overall, k))
    return minimum


def max_counts(quota: Quota, slots: int, shown: int = 0, counted: int = 0) -> I32:
    """Return the [slots] maximum number of members in the first k slots; k without a maximum.

    Earlier pages count as in `min_counts`.
    """
    maximum = np.arange(1, slots + 1, dtype=np.int32)
    for k in _prefixes(quota, slots):
        if quota.at_most is not None:
            up = not (k == slots or quota.rounding == "strict")
            maximum[k - 1] = count_of(quota.at_most, k, up, shown, counted)
    return maximum


def _prefixes(quota: Quota, slots: int) -> Iterator[int]:
    """Yield the lengths of the prefixes to which the quota applies; the whole page is always the last."""
    named = range(1, slots) if quota.prefixes == "every" else {k for k in quota.prefixes if k < slots}
    yield from named
    if slots:
        yield slots


def count_of(amount: float, slots: int, up: bool, shown: int, counted: int) -> int:
    """Return how many members `slots` slots may hold, given a maximum number (int) or share (float).

    Earlier pages had `shown` slots, `counted` of them with members.
    """
    if isinstance(amount, int):
        return min(amount, slots)
    overall = _rounded(amount * (shown + slots), up) - counted
    return min(slots, _rounded(amount * slots, up), max(overall, 0))


def _rounded(amount: float, up: bool) -> int:
    """Round up or down, with a tolerance for floating-point products: 0.07 x 100 is 7, not 7.000000000000001."""
    return ceil(amount - 1e-9) if up else floor(amount + 1e-9)
