"""Pages under prices, fast: the best K items by utility plus bonus, for tens of thousands of pages in a second.

This is the page solve without page controls (where the best page is simply the best items in order). Worlds with hard
controls use the real solver instead (`training.simulation.guided`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from recsys.domain.types import F32, F64, I32, Bool
from training.simulation.world import I64, Scenario


@dataclass(frozen=True)
class ServedPages:
    """Of some pages: `utility` in play equivalents x attention, `priced` the same plus bonuses, `credit` [C]
    attention won."""

    utility: float
    priced_utility: float
    credit: F64


class Pages:
    """Serves the pages of a world in order. Counts, per viewer and target, what was shown, for frequency caps."""

    def __init__(self, day: Scenario, cap: I64 | None = None) -> None:
        """`cap` [C]: impressions of a target's items per viewer and day, 0 = no cap."""
        self.day = day
        self.cap = np.zeros(day.member.shape[1], np.int64) if cap is None else cap
        self.shown = np.zeros((day.config.viewers, day.member.shape[1]), np.int32)
        self._weight = np.ascontiguousarray((day.member * day.sign).astype(np.float64))

    def serve(self, first: int, last: int, price: F64) -> ServedPages:
        """Pages `first` up to `last` under prices ([C], play equivalents per attention, >= 0; at-most
        targets push down)."""
        return self.serve_with_bonus(first, last, self._weight @ price)

    def serve_with_bonus(self, first: int, last: int, bonus: F64) -> ServedPages:
        """The same with a bonus per item ([I], play equivalents)."""
        day, credit = self.day, np.zeros(self.day.member.shape[1])
        worth, priced = _serve(
            day.utility, bonus, day.at, day.embargo, day.attention, day.member, day.viewer, self.cap, self.shown,
            first, last, credit,
        )  # fmt: skip
        return ServedPages(worth, priced, credit)

    def serve_day(self, price: F64) -> ServedPages:
        """The whole day under constant prices; targets that have not begun are not credited (their items wait)."""
        return self.serve(0, len(self.day.at), price)


@njit(cache=True)
def _serve(
    utility: F32, bonus: F64, at: F64, embargo: F64, attention: F64, member: Bool, viewer: I64, cap: I64, shown: I32,
    first: int, last: int, credit: F64,
) -> tuple[float, float]:  # fmt: skip
    items, targets, slots = utility.shape[1], member.shape[1], len(attention)
    capped = cap.max() > 0
    best, chosen = np.empty(slots), np.empty(slots, np.int64)
    worth, priced = 0.0, 0.0
    for t in range(first, last):
        n, least = 0, -1e30
        for i in range(items):
            x = utility[t, i] + bonus[i]
            if (n == slots and x <= least) or at[t] < embargo[i]:
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
            least = best[n - 1] if n == slots else -1e30
        for k in range(n):
            worth += attention[k] * utility[t, chosen[k]]
            priced += attention[k] * best[k]
            for c in range(targets):
                if member[chosen[k], c]:
                    credit[c] += attention[k]
                    shown[viewer[t], c] += 1
    return worth, priced
