"""Converts quotas and caps to counts of items per page prefix: rounding, prefixes, earlier pages of the session."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, floor

import numpy as np

from recsys.domain.types import I32
from recsys.guidance.policy.controls import Quota


def min_counts(share: Quota, slots: int, shown: int = 0, counted: int = 0) -> I32:
    """Return the [slots] minimum number of members in the first k slots; 0 without a minimum.

    If earlier pages had `shown` slots, `counted` of them with members, a share must also be met over all pages
    together, as far as the first k slots can compensate.
    """
    least = np.zeros(slots, np.int32)
    for k in _prefixes(share, slots):
        if isinstance(share.at_least, int):
            least[k - 1] = share.at_least
        elif share.at_least is not None:
            up = k == slots or share.rounding == "strict"
            overall = _rounded(share.at_least * (shown + k), up) - counted
            least[k - 1] = max(_rounded(share.at_least * k, up), min(overall, k))
    return least


def max_counts(share: Quota, slots: int, shown: int = 0, counted: int = 0) -> I32:
    """Return the [slots] maximum number of members in the first k slots; k without a maximum.

    Earlier pages count as in `min_counts`.
    """
    most = np.arange(1, slots + 1, dtype=np.int32)
    for k in _prefixes(share, slots):
        if share.at_most is not None:
            up = not (k == slots or share.rounding == "strict")
            most[k - 1] = count_of(share.at_most, k, up, shown, counted)
    return most


def _prefixes(share: Quota, slots: int) -> Iterator[int]:
    """Yield the lengths of the prefixes to which the quota applies; the whole page is always the last."""
    named = range(1, slots) if share.prefixes == "every" else {k for k in share.prefixes if k < slots}
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
