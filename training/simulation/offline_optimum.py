"""The best that could have been done, had the day been known: a linear programme, solved to a proven gap.

    maximise   sum over pages of  attention x utility
    subject to for each target:   attention won  >= (or <=) its amount

where a page may be a mixture of pages (that is the relaxation, and with thousands of pages it gives nothing away). The
programme has millions of variables, so it is solved by column generation (Dantzig and Wolfe, 1960): HiGHS mixes whole
blocks of pages that were served under different prices; its dual prices serve the next ones. The mixture is feasible,
so it bounds the optimum from below; the priced pages bound it from above (weak duality); both meet.

Free: amounts by the end of the day, at any time. Smooth: in each of several blocks, what the plan asks of it.
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
    """value: utility of the optimal mixture; bound: proven, no plan is worth more; price [C]: dual prices;
    short [C]: attention that cannot be won at all, whatever the price (0 where the amount is feasible)."""

    value: float
    bound: float
    price: F64
    shortfall: F64

    @property
    def gap(self) -> float:
        """(bound - value) / value."""
        return (self.bound - self.value) / max(abs(self.value), 1e-9)


def optimum(
    day: Scenario, amount: F64, *, blocks: int = 16, rounds: int = 40, gap: float = 2e-4, first: F64 | None = None
) -> OfflineOptimum:
    """The optimum over the pages of `day` for these amounts ([C], attention)."""
    pages, c = Pages(day), len(amount)
    edges = np.linspace(0, len(day.at), blocks + 1).astype(int)
    dear = 10.0  # play equivalents per attention: what missing attention costs; far above any price that makes sense
    worth: list[list[float]] = [[] for _ in range(blocks)]
    won: list[list[F64]] = [[] for _ in range(blocks)]
    price = np.full(c, 0.02) if first is None else first.copy()
    best_price, bound, answer = price, np.inf, None
    for turn in range(rounds):
        priced = 0.0
        for b in range(blocks):
            served = pages.serve(int(edges[b]), int(edges[b + 1]), price)
            worth[b].append(served.utility)
            won[b].append(served.credit)
            priced += served.priced_utility
        dual = priced - float((day.sign * price * amount).sum())
        if dual < bound:
            bound, best_price = dual, price
        answer, master_price, short = _master(worth, won, day.sign, amount, dear)
        if bound - answer <= gap * abs(bound):
            break
        # in between the master's wish and the best prices known: the master alone jumps about at first
        mix = 0.5 if turn < 12 else 0.8
        price = (1 - mix) * best_price + mix * np.minimum(master_price, 1.0)
    assert answer is not None
    return OfflineOptimum(answer, float(bound), best_price, short)


def _master(
    worth: list[list[float]], won: list[list[F64]], sign: F64, amount: F64, dear: float
) -> tuple[float, F64, F64]:
    """The best mixture of what was tried: its value, the prices, and what is missing."""
    value = np.concatenate([np.array(w) for w in worth])
    credit = np.concatenate([np.array(x) for x in won])
    c = len(amount)
    scale = max(float(np.abs(amount).max()), 1.0)
    over = hstack([csr_matrix(-(credit * sign).T / scale), -csr_matrix(np.eye(c))])
    mixes = block_diag([np.ones((1, len(w))) for w in worth])
    one = hstack([mixes, csr_matrix((len(worth), c))])
    cost = np.concatenate([-value / scale, np.full(c, dear)])
    solved = linprog(
        cost, A_ub=vstack([over]), b_ub=-sign * amount / scale, A_eq=one, b_eq=np.ones(len(worth)), method="highs"
    )
    if not solved.success:
        raise ValueError(f"the linear programme of {len(value)} columns failed: {solved.message}")
    short = solved.x[-c:] * scale
    return float(-solved.fun * scale), -np.asarray(solved.ineqlin.marginals), short


def smooth_optimum(day: Scenario, plan: F64, first: F64 | None = None) -> float:
    """Utility of the optimum that keeps the plan in every block.

    plan  [B + 1, C]  attention that each target should have at the edges of B blocks of equally many pages
    """
    blocks = len(plan) - 1
    edges = np.linspace(0, len(day.at), blocks + 1).astype(int)
    return sum(
        optimum(day.slice(int(a), int(b)), plan[n + 1] - plan[n], blocks=4, first=first).bound
        for n, (a, b) in enumerate(pairwise(edges))
    )
