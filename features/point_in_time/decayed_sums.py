"""Forward-decayed sums as of any moment: sorted once, then looked up (Cormode et al. 2009 for the decay)."""

from __future__ import annotations

import numpy as np

from recsys.domain.decay import FAST_HALF_LIFE_S, HALF_LIFE_S, LANDMARK
from recsys.domain.types import F64, I64

WINDOW_S = 200 * FAST_HALF_LIFE_S
"""Fast decay is counted from the beginning of windows this long, since doubles would not hold it for months; what is
older than the window before counts less than 2^-200 of anything."""


class DecayedSums:
    """Amounts that came at moments, each to one of many groups: what a group had before a moment, as it weighs then."""

    def __init__(
        self, group: I64, at: F64, amount: F64, half_life_s: float = HALF_LIFE_S, since: float = LANDMARK
    ) -> None:
        """group, at, amount [V]; `since` is where an amount weighs 1."""
        order = np.lexsort((at, group))
        self._half_life_s, self._since = half_life_s, since
        self._group, self._at = group[order], at[order]
        self._times = np.unique(self._at)
        self._key = self._group * (len(self._times) + 1) + np.searchsorted(self._times, self._at)
        weighed = amount[order] * np.exp2((self._at - since) / half_life_s)
        self._until = np.concatenate([[0.0], _running(self._group, weighed)])

    def before(self, group: I64, at: F64) -> F64:
        """[Q] sums of what came strictly before `at` [Q], decayed to `at`; 0 for a group that nothing came to."""
        order = np.lexsort((at, group))  # looked up in their order: neighbours are near each other in memory
        group, at = group[order], at[order]
        place = np.searchsorted(self._key, group * (len(self._times) + 1) + np.searchsorted(self._times, at))
        found = place > np.searchsorted(self._group, group)
        weight = np.exp2((at - self._since) / self._half_life_s)
        some = found & (weight > np.finfo(np.float64).tiny)  # before 1987 all counts are zero, here as online
        sums = np.empty(len(at))
        sums[order] = np.where(some, self._until[place], 0.0) / np.where(some, weight, 1.0)
        return sums


class FastDecayedSums:
    """The same with the half-life of what happens lately."""

    def __init__(self, group: I64, at: F64, amount: F64) -> None:
        window = np.floor(at / WINDOW_S).astype(np.int64)
        self._first = int(window.min(initial=0))
        self._count = int(window.max(initial=0)) - self._first + 2
        inside = at - window * WINDOW_S
        self._sums = DecayedSums(self._window_sums(group, window), inside, amount, FAST_HALF_LIFE_S, since=0.0)

    def before(self, group: I64, at: F64) -> F64:
        """[Q] as `Sums.before`."""
        window = np.floor(at / WINDOW_S).astype(np.int64)
        inside = at - window * WINDOW_S
        this = np.where(self._has_window(window), self._sums.before(self._window_sums(group, window), inside), 0.0)
        ended = self._sums.before(self._window_sums(group, window - 1), np.full(len(at), WINDOW_S))
        earlier = np.where(self._has_window(window - 1), ended, 0.0) * np.exp2(-inside / FAST_HALF_LIFE_S)
        both: F64 = this + earlier
        return both

    def _has_window(self, window: I64) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        return (window >= self._first) & (window < self._first + self._count)

    def _window_sums(self, group: I64, window: I64) -> I64:
        return group * self._count + np.clip(window - self._first, 0, self._count - 1)


def _running(group: I64, amount: F64) -> F64:
    """Sums up to and including each place within its group; groups stand together."""
    sums = np.empty_like(amount)
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(group)], strict=False):
        np.cumsum(amount[start:end], out=sums[start:end])  # by group: a late one's weights would drown an early one's
    return sums
