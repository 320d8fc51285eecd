"""Forward-decayed sums as of any time: sorted once, then looked up (for the decay, see Cormode et al. 2009)."""

from __future__ import annotations

import numpy as np

from recsys.domain.decay import FAST_HALF_LIFE_S, HALF_LIFE_S, LANDMARK
from recsys.domain.types import F64, I64

WINDOW_S = 200 * FAST_HALF_LIFE_S
"""Length of the windows in which fast decay is computed, since doubles would overflow over months. Amounts older than
the previous window weigh less than 2^-200 and are ignored."""


class DecayedSums:
    """Sums of timed amounts by group: the sum of a group before a time, decayed to that time."""

    def __init__(
        self, group: I64, at: F64, amount: F64, half_life_s: float = HALF_LIFE_S, since: float = LANDMARK
    ) -> None:
        """Sort the amounts.

        group, at, amount  [V] group, unix second and size of each amount
        since              the unix second at which an amount weighs 1
        """
        order = np.lexsort((at, group))
        self._half_life_s, self._since = half_life_s, since
        self._group, self._at = group[order], at[order]
        self._times = np.unique(self._at)
        self._key = self._group * (len(self._times) + 1) + np.searchsorted(self._times, self._at)
        weighted = amount[order] * np.exp2((self._at - since) / half_life_s)
        self._until = np.concatenate([[0.0], _running(self._group, weighted)])

    def before(self, group: I64, at: F64) -> F64:
        """Return [Q] sums of the amounts strictly before `at` [Q], decayed to `at`; 0 for a group without amounts."""
        order = np.lexsort((at, group))  # sorted lookups are close to each other in memory
        group, at = group[order], at[order]
        index = np.searchsorted(self._key, group * (len(self._times) + 1) + np.searchsorted(self._times, at))
        has_earlier = index > np.searchsorted(self._group, group)
        weight = np.exp2((at - self._since) / self._half_life_s)
        nonzero = has_earlier & (weight > np.finfo(np.float64).tiny)  # before 1987 all counts are zero, as in serving
        sums = np.empty(len(at))
        sums[order] = np.where(nonzero, self._until[index], 0.0) / np.where(nonzero, weight, 1.0)
        return sums


class FastDecayedSums:
    """Sums as `DecayedSums` with the short half-life FAST_HALF_LIFE_S."""

    def __init__(self, group: I64, at: F64, amount: F64) -> None:
        window = np.floor(at / WINDOW_S).astype(np.int64)
        self._first = int(window.min(initial=0))
        self._count = int(window.max(initial=0)) - self._first + 2
        inside = at - window * WINDOW_S
        self._sums = DecayedSums(self._window_sums(group, window), inside, amount, FAST_HALF_LIFE_S, since=0.0)

    def before(self, group: I64, at: F64) -> F64:
        """Return [Q] sums as `DecayedSums.before`."""
        window = np.floor(at / WINDOW_S).astype(np.int64)
        inside = at - window * WINDOW_S
        current = np.where(self._has_window(window), self._sums.before(self._window_sums(group, window), inside), 0.0)
        previous_total = self._sums.before(self._window_sums(group, window - 1), np.full(len(at), WINDOW_S))
        previous = np.where(self._has_window(window - 1), previous_total, 0.0) * np.exp2(-inside / FAST_HALF_LIFE_S)
        total: F64 = current + previous
        return total

    def _has_window(self, window: I64) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        return (window >= self._first) & (window < self._first + self._count)

    def _window_sums(self, group: I64, window: I64) -> I64:
        return group * self._count + np.clip(window - self._first, 0, self._count - 1)


def _running(group: I64, amount: F64) -> F64:
    """Return the running sum of each group, whose entries are contiguous."""
    sums = np.empty_like(amount)
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(group)], strict=False):
        # Sum per group: the large weights of a late group would drown those of an early group.
        np.cumsum(amount[start:end], out=sums[start:end])
    return sums
