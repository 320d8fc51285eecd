"""Fast pages with target prices: the best K items by utility plus bonus, for tens of thousands of pages per second.

Without page controls this is the optimal page. Scenarios with hard controls use the real page solver instead
(`training.simulation.guided`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from recsys.domain.types import F32, F64, I32, Bool
from training.simulation.world import I64, Scenario


@dataclass(frozen=True)
class ServedPages:
    """The outcome of a batch of pages.

    utility         sum of play equivalents x attention
    priced_utility  the same with bonuses included
    credit  [C]     attention delivered to each target
    """

    utility: float
    priced_utility: float
    credit: F64


class Pages:
    """A page server for a scenario; it counts impressions per viewer and target for frequency caps."""

    def __init__(self, day: Scenario, cap: I64 | None = None) -> None:
        """`cap` [C]: maximum impressions of a target's items per viewer and day; 0 for no cap."""
        self.day = day
        self.cap = np.zeros(day.member.shape[1], np.int64) if cap is None else cap
        self.shown = np.zeros((day.config.viewers, day.member.shape[1]), np.int32)
        self._weight = np.ascontiguousarray((day.member * day.sign).astype(np.float64))

    def serve(self, first: int, last: int, price: F64) -> ServedPages:
        """Serve pages `first` up to `last` with target prices.

        price  [C]  play equivalents per unit of attention, >= 0; caps push their items down
        """
        return self.serve_with_bonus(first, last, self._weight @ price)

    def serve_with_bonus(self, first: int, last: int, bonus: F64) -> ServedPages:
        """Serve pages `first` up to `last` with a bonus per item ([I], play equivalents)."""
        day, credit = self.day, np.zeros(self.day.member.shape[1])
        utility_sum, priced_sum = _serve(
            day.utility, bonus, day.at, day.embargo, day.attention, day.member, day.viewer, self.cap, self.shown,
            first, last, credit,
        )  # fmt: skip
        return ServedPages(utility_sum, priced_sum, credit)

    def serve_day(self, price: F64) -> ServedPages:
        """Serve the whole day with constant prices; items of a target that has not started are embargoed."""
        return self.serve(0, len(self.day.at), price)


@njit(cache=True)
def _serve(
    utility: F32, bonus: F64, at: F64, embargo: F64, attention: F64, member: Bool, viewer: I64, cap: I64, shown: I32,
    first: int, last: int, credit: F64,
) -> tuple[float, float]:  # fmt: skip
    items, targets, slots = utility.shape[1], member.shape[1], len(attention)
    capped = cap.max() > 0
    best, chosen = np.empty(slots), np.empty(slots, np.int64)
    utility_sum, priced_sum = 0.0, 0.0
    for t in range(first, last):
        n, threshold = 0, -1e30
        for i in range(items):
            x = utility[t, i] + bonus[i]
            if (n == slots and x <= threshold) or at[t] < embargo[i]:
                continue
            if capped:
                full = False
                for c in range(targets):
                    if cap[c] > 0 and member[i, c] and shown[viewer[t], c] >= cap[c]:
                        full = True
                if full:
                    continue
            z = n if n < slots else slots - 1
            while z > 0 and best[z - 1] < x:
                best[z], chosen[z] = best[z - 1], chosen[z - 1]
                z -= 1
            best[z], chosen[z] = x, i
            n = min(n + 1, slots)
            threshold = best[n - 1] if n == slots else -1e30
        for k in range(n):
            utility_sum += attention[k] * utility[t, chosen[k]]
            priced_sum += attention[k] * best[k]
            for c in range(targets):
                if member[chosen[k], c]:
                    credit[c] += attention[k]
                    shown[viewer[t], c] += 1
    return utility_sum, priced_sum
