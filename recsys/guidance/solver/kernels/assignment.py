"""The most profitable assignment of items to slots, from wherever the last one stood."""

from __future__ import annotations

import numpy as np

from recsys.domain.types import F64
from recsys.guidance.solver.kernels import kernel

FAR = 1e30


@kernel
def assign(profit: F64, page: np.ndarray, rent: F64, wage: F64) -> None:
    """The most profitable items for the rows of profit [F, M], F <= M (Jonker and Volgenant 1987), from a good start.

    page [F], wage [M] >= 0: any start (-1 and 0 for none), the nearer to the answer the quicker. Fills page, rent [F]
    and wage with profit[f, a] <= rent[f] + wage[a], equal on the page; wage is 0 for items left over. So
    sum(rent) + sum(wage) is the profit of the page.
    """
    rows, m = profit.shape
    holder = np.full(m, -1, np.int64)
    for f in range(rows):  # whoever still has the best of it keeps it
        best = -FAR
        for a in range(m):
            best = max(best, profit[f, a] - wage[a])
        rent[f] = best
        a = page[f]
        if a >= 0:
            if profit[f, a] - wage[a] >= best - 1e-12 * (1.0 + abs(best)) and holder[a] < 0:
                holder[a] = f
            else:
                page[f] = -1
    for a in range(m):
        if holder[a] < 0 and wage[a] > 0.0:
            _release(profit, page, rent, wage, holder, a)
    for f in range(rows):
        if page[f] < 0:
            for a in range(m):
                if holder[a] < 0 and profit[f, a] >= rent[f]:
                    holder[a], page[f] = f, a
                    break
    reach, via, done = np.empty(m), np.empty(m, np.int64), np.empty(m)
    seen = np.empty(m, np.int64)
    for f in range(rows):
        if page[f] >= 0:
            continue
        for a in range(m):
            reach[a], via[a], done[a] = FAR, -1, 0.0
        here, spent, settled = f, 0.0, 0
        while True:
            base = spent + rent[here]
            low = FAR
            for a in range(m):
                cost = base + wage[a] - profit[here, a]
                closer = cost < reach[a] and done[a] == 0.0
                reach[a] = cost if closer else reach[a]
                via[a] = here if closer else via[a]
                open_reach = reach[a] + done[a]
                low = open_reach if open_reach < low else low
            nearest = -1
            for a in range(m):
                if done[a] == 0.0 and reach[a] == low:
                    if nearest < 0 or holder[a] < 0:
                        nearest = a
                    if holder[a] < 0:
                        break
            spent, done[nearest] = low, FAR
            seen[settled] = nearest
            settled += 1
            if holder[nearest] < 0:
                break
            here = holder[nearest]
        rent[f] -= spent
        for s in range(settled - 1):
            a = seen[s]
            rent[holder[a]] -= spent - reach[a]
            wage[a] += spent - reach[a]
        a = seen[settled - 1]
        while True:
            g = via[a]
            holder[a] = g
            a, page[g] = page[g], a
            if g == f:
                break


@kernel
def _release(profit: F64, page: np.ndarray, rent: F64, wage: F64, holder: np.ndarray, item: int) -> None:
    """Nobody pays for an item that nobody holds: its wage sinks until a row wants it, or it or another's reaches 0.

    The shortest way over rows that would rather have an item of the way and the items that they leave.
    """
    rows = len(page)
    reach, via, done = np.full(rows, FAR), np.full(rows, -1, np.int64), np.zeros(rows, np.bool_)
    at, spent = item, 0.0
    end, cheapest = item, wage[item]
    while True:
        near = -1
        for f in range(rows):
            if not done[f]:
                way = spent + rent[f] + wage[at] - profit[f, at]
                if way < reach[f]:
                    reach[f], via[f] = way, at
                if near < 0 or reach[f] < reach[near]:
                    near = f
        if near < 0 or cheapest <= reach[near]:
            spent, near = cheapest, -1
            break
        spent = max(spent, reach[near])
        if page[near] < 0:
            break
        done[near] = True
        at = page[near]
        if spent + wage[at] < cheapest:
            end, cheapest = at, spent + wage[at]
    for f in range(rows):
        if done[f] and reach[f] < spent:
            rent[f] += spent - reach[f]
            wage[page[f]] = max(0.0, wage[page[f]] - (spent - reach[f]))
    wage[item] = max(0.0, wage[item] - spent)
    if near < 0:
        if end == item:
            return
        near = holder[end]
        holder[end], wage[end] = -1, 0.0
    while True:
        a = via[near]
        page[near], holder[a], near = a, near, holder[a]
        if a == item:
            return
