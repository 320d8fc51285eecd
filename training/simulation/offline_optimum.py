"""The offline optimum of a day, with full knowledge of its traffic: a linear program, solved to a proven gap.

    maximise    sum over pages of  attention x utility
    subject to  for each target:   delivered attention >= (or <=) its amount

A page may be a mixture of pages. This relaxation is negligible for thousands of pages. The program has millions of
variables and is solved by column generation (Dantzig and Wolfe, 1960): HiGHS mixes blocks of pages that were served at
different prices, and the next columns are served at its dual prices. The mixture is feasible and bounds the optimum
from below; the pages served at prices bound it from above (weak duality). The bounds converge.

`optimum` requires the amounts by the end of the day, `smooth_optimum` the planned delivery in each of several blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.optimize import linprog  # type: ignore[import-untyped]
from scipy.sparse import block_diag, csr_matrix, hstack, vstack  # type: ignore[import-untyped]

from recsys.domain.types import F64
from training.simulation.pages import Pages
from training.simulation.world import Scenario


@dataclass(frozen=True)
class OfflineOptimum:
    """The solution for a day.

    value           utility of the best mixture found
    bound           proven upper bound of the utility
    price      [C]  dual prices, in play equivalents per unit of attention
    shortfall  [C]  attention that cannot be delivered at any price; 0 for a feasible amount
    """

    value: float
    bound: float
    price: F64
    shortfall: F64

    @property
    def gap(self) -> float:
        """Return the relative gap, (bound - value) / value."""
        return (self.bound - self.value) / max(abs(self.value), 1e-9)


def optimum(
    day: Scenario,
    amount: F64,
    *,
    blocks: int = 16,
    rounds: int = 40,
    gap: float = 2e-4,
    initial_price: F64 | None = None,
) -> OfflineOptimum:
    """Solve for the pages of `day` with these amounts ([C], attention), in at most `rounds` iterations.

    blocks         number of blocks of pages that are mixed as a whole
    gap            relative gap at which to stop
    initial_price  [C] prices of the first iteration
    """
    pages, c = Pages(day), len(amount)
    edges = np.linspace(0, len(day.at), blocks + 1).astype(int)
    penalty = 10.0  # play equivalents per unit of missing attention; far above any sensible price
    utility: list[list[float]] = [[] for _ in range(blocks)]
    delivered: list[list[F64]] = [[] for _ in range(blocks)]
    price = np.full(c, 0.02) if initial_price is None else initial_price.copy()
    best_price, bound, value = price, np.inf, None
    for iteration in range(rounds):
        priced = 0.0
        for b in range(blocks):
            served = pages.serve(int(edges[b]), int(edges[b + 1]), price)
            utility[b].append(served.utility)
            delivered[b].append(served.credit)
            priced += served.priced_utility
        dual = priced - float((day.sign * price * amount).sum())
        if dual < bound:
            bound, best_price = dual, price
        value, master_price, shortfall = _master(utility, delivered, day.sign, amount, penalty)
        if bound - value <= gap * abs(bound):
            break
        # between the best prices so far and those of the master, which oscillate at first
        mix = 0.5 if iteration < 12 else 0.8
        price = (1 - mix) * best_price + mix * np.minimum(master_price, 1.0)
    assert value is not None
    return OfflineOptimum(value, float(bound), best_price, shortfall)


def _master(
    utility: list[list[float]], delivered: list[list[F64]], sign: F64, amount: F64, penalty: float
) -> tuple[float, F64, F64]:
    """Solve the master problem over the columns so far: value of the best mixture, dual prices [C], shortfall [C]."""
    value = np.concatenate([np.array(w) for w in utility])
    credit = np.concatenate([np.array(x) for x in delivered])
    c = len(amount)
    scale = max(float(np.abs(amount).max()), 1.0)
    amounts = hstack([csr_matrix(-(credit * sign).T / scale), -csr_matrix(np.eye(c))])
    mixes = block_diag([np.ones((1, len(w))) for w in utility])
    convexity = hstack([mixes, csr_matrix((len(utility), c))])
    cost = np.concatenate([-value / scale, np.full(c, penalty)])
    result = linprog(
        cost,
        A_ub=vstack([amounts]),
        b_ub=-sign * amount / scale,
        A_eq=convexity,
        b_eq=np.ones(len(utility)),
        method="highs",
    )
    if not result.success:
        raise ValueError(f"the linear program with {len(value)} columns failed: {result.message}")
    shortfall = result.x[-c:] * scale
    return float(-result.fun * scale), -np.asarray(result.ineqlin.marginals), shortfall


def smooth_optimum(day: Scenario, plan: F64, initial_price: F64 | None = None) -> float:
    """Return the utility of the optimum that follows the plan in every block.

    plan           [B + 1, C]  planned attention of each target at the edges of B blocks with the same number of pages
    initial_price  [C]         prices of the first iteration in each block
    """
    blocks = len(plan) - 1
    edges = np.linspace(0, len(day.at), blocks + 1).astype(int)
    return sum(
        optimum(day.slice(int(a), int(b)), plan[n + 1] - plan[n], blocks=4, initial_price=initial_price).bound
        for n, (a, b) in enumerate(pairwise(edges))
    )
