"""What shares and caps ask of a page, in items: rounding, prefixes, and earlier pages of the session."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, floor

import numpy as np

from recsys.domain.types import I32
from recsys.guidance.policy.controls import Quota


def min_counts(share: Quota, slots: int, shown: int = 0, counted: int = 0) -> I32:
    """[slots] least number of members in the first k slots; 0 where nothing is asked.

    With `shown` slots of earlier pages of which `counted` were members, a share is also asked of all of them together,
    as far as the first k slots can make up for it.
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
    """[slots] largest number of members in the first k slots; k where nothing is asked. Sessions as in `floors`."""
    most = np.arange(1, slots + 1, dtype=np.int32)
    for k in _prefixes(share, slots):
        if share.at_most is not None:
            up = not (k == slots or share.rounding == "strict")
            most[k - 1] = count_of(share.at_most, k, up, shown, counted)
    return most


def _prefixes(share: Quota, slots: int) -> Iterator[int]:
    """Lengths on which the share is asked; the whole page is always one."""
    named = range(1, slots) if share.prefixes == "every" else {k for k in share.prefixes if k < slots}
    yield from named
    if slots:
        yield slots


def count_of(amount: float, slots: int, up: bool, shown: int, counted: int) -> int:
    """Items of which `slots` slots may hold so many (int) or such a share, after `counted` in `shown` slots before."""
    if isinstance(amount, int):
        return min(amount, slots)
    overall = _rounded(amount * (shown + slots), up) - counted
    return min(slots, _rounded(amount * slots, up), max(overall, 0))


def _rounded(amount: float, up: bool) -> int:
    """Rounded up or down, forgiving the last digits of a product: 0.07 x 100 is 7, not 7.000000000000001."""
    return ceil(amount - 1e-9) if up else floor(amount + 1e-9)
