"""The effects of exposure targets on one page: which items their prices moved, and what each of them costs.

Prices act before the page is solved, so the effects are read from the best pages without controls: with all weights and
prices, and without the price of one target.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from recsys.domain.types import F64, I32, I64


class TargetPrice(NamedTuple):
    """The price of an exposure target on one page.

    control  index of the target among the controls of the policy
    price    play equivalents per unit of attention; negative for a target with a maximum
    bonus    [N] what the price adds to the value of each candidate
    """

    control: int
    price: float
    bonus: F64


@dataclass(frozen=True)
class TargetEffects:
    """The effects of the priced targets that have items among the candidates of a page.

    rank     [N]     place of each candidate on the best page without controls, from 0
    without  [T, N]  the same without the price of one target
    neither  [N]     the same without the prices of all targets
    cost     T       utility that the best page without controls would gain without the price of the target, in play
                     equivalents; with other weights it can be negative
    """

    prices: tuple[TargetPrice, ...]
    rank: I64
    without: tuple[I64, ...]
    neither: I64
    cost: tuple[float, ...]

    @classmethod
    def of(cls, prices: Sequence[TargetPrice], utility: F64, bonus: F64, tie: I64, attention: F64) -> TargetEffects:
        """Return the effects of prices that are part of `bonus`.

        utility, bonus, tie  [N] as solved
        attention            [K] attention of each slot
        """
        acting = tuple(price for price in prices if price.price and price.bonus.any())
        if not acting:
            none = np.zeros(len(utility), np.int64)
            return cls((), none, (), none, ())
        value = utility + bonus
        orders = [np.lexsort((tie, -value)), *(np.lexsort((tie, price.bonus - value)) for price in acting)]
        total = np.sum([price.bonus for price in acting], axis=0)
        ranks = [_inverse(order) for order in (*orders, np.lexsort((tie, -(value - total))))]
        pages = [math.fsum(attention * utility[order[: len(attention)]]) for order in orders]
        return cls(acting, ranks[0], tuple(ranks[1:-1]), ranks[-1], tuple(page - pages[0] for page in pages[1:]))

    def moved(self, candidate: int, up: bool) -> tuple[int, ...]:
        """Return the controls of the targets that raised (or lowered) a candidate.

        If only several targets together moved it, those that count the candidate, or else all of them.
        """
        sign, rank = (1 if up else -1), self.rank[candidate]
        alone = [n for n, ranks in enumerate(self.without) if sign * (ranks[candidate] - rank) > 0]
        if not alone and sign * (self.neither[candidate] - rank) > 0:
            counting = [n for n, price in enumerate(self.prices) if sign * price.bonus[candidate] > 0]
            alone = counting or list(range(len(self.prices)))
        return tuple(self.prices[n].control for n in alone)

    def serving(self, candidate: int) -> tuple[int, ...]:
        """Return the controls of the targets that count a candidate and raised it."""
        raised = self.moved(candidate, True)
        return tuple(p.control for p in self.prices if p.control in raised and p.bonus[candidate] > 0)

    def delivered(self, chosen: I32, attention: F64) -> tuple[float, ...]:
        """Return the attention that the items of each target have on a page."""
        return tuple(float(attention[: len(chosen)] @ (price.bonus[chosen] != 0)) for price in self.prices)


NO_EFFECTS = TargetEffects.of((), np.zeros(0), np.zeros(0), np.zeros(0, np.int64), np.zeros(0))
"""The effects on a page without priced targets."""


def _inverse(order: I64) -> I64:
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank
