"""Maximum-profit assignment of items to slots, warm-started from a previous solution."""

from __future__ import annotations

import numpy as np

from recsys.domain.types import F64
from recsys.guidance.solver.kernels import kernel

FAR = 1e30


@kernel
def assign(profit: F64, page: np.ndarray, slot_price: F64, item_price: F64) -> None:
    """Solve the assignment problem for profit [F, M], F <= M (Jonker and Volgenant 1987), from a warm start.

    page [F] and item_price [M] >= 0 are the warm start (-1 and 0 for none); the closer to the optimum, the faster.
    Fills page, slot_price [F] and item_price with an optimal primal and dual solution:
    profit[f, a] <= slot_price[f] + item_price[a], with equality on the page, and item_price 0 for unassigned items. The
    profit of the page is sum(slot_price) + sum(item_price).
    """
    rows, m = profit.shape
    row_of = np.full(m, -1, np.int64)
    for f in range(rows):  # keep assignments that are still optimal at these prices
        best = -FAR
        for a in range(m):
            best = max(best, profit[f, a] - item_price[a])
        slot_price[f] = best
        a = page[f]
        if a >= 0:
            if profit[f, a] - item_price[a] >= best - 1e-12 * (1.0 + abs(best)) and row_of[a] < 0:
                row_of[a] = f
            else:
                page[f] = -1
    for a in range(m):
        if row_of[a] < 0 and item_price[a] > 0.0:
            _release(profit, page, slot_price, item_price, row_of, a)
    for f in range(rows):
        if page[f] < 0:
            for a in range(m):
                if row_of[a] < 0 and profit[f, a] >= slot_price[f]:
                    row_of[a], page[f] = f, a
                    break
    distance, predecessor, closed = np.empty(m), np.empty(m, np.int64), np.empty(m)
    scanned = np.empty(m, np.int64)
    for f in range(rows):
        if page[f] >= 0:
            continue
        for a in range(m):
            distance[a], predecessor[a], closed[a] = FAR, -1, 0.0
        row, shortest, scan_count = f, 0.0, 0
        while True:
            base = shortest + slot_price[row]
            minimum = FAR
            for a in range(m):
                cost = base + item_price[a] - profit[row, a]
                closer = cost < distance[a] and closed[a] == 0.0
                distance[a] = cost if closer else distance[a]
                predecessor[a] = row if closer else predecessor[a]
                open_reach = distance[a] + closed[a]
                minimum = open_reach if open_reach < minimum else minimum
            nearest = -1
            for a in range(m):
                if closed[a] == 0.0 and distance[a] == minimum:
                    if nearest < 0 or row_of[a] < 0:
                        nearest = a
                    if row_of[a] < 0:
                        break
            shortest, closed[nearest] = minimum, FAR
            scanned[scan_count] = nearest
            scan_count += 1
            if row_of[nearest] < 0:
                break
            row = row_of[nearest]
        slot_price[f] -= shortest
        for s in range(scan_count - 1):
            a = scanned[s]
            slot_price[row_of[a]] -= shortest - distance[a]
            item_price[a] += shortest - distance[a]
        a = scanned[scan_count - 1]
        while True:
            g = predecessor[a]
            row_of[a] = g
            a, page[g] = page[g], a
            if g == f:
                break


@kernel
def _release(profit: F64, page: np.ndarray, slot_price: F64, item_price: F64, row_of: np.ndarray, item: int) -> None:
    """Restore complementary slackness for an unassigned item with a positive price.

    Lowers the price until a row takes the item, or until its price or that of another item on the path reaches 0. Uses
    the shortest augmenting path over rows that would swap their item for another.
    """
    rows = len(page)
    distance, predecessor, done = np.full(rows, FAR), np.full(rows, -1, np.int64), np.zeros(rows, np.bool_)
    current, shortest = item, 0.0
    end, cheapest = item, item_price[item]
    while True:
        nearest = -1
        for f in range(rows):
            if not done[f]:
                cost = shortest + slot_price[f] + item_price[current] - profit[f, current]
                if cost < distance[f]:
                    distance[f], predecessor[f] = cost, current
                if nearest < 0 or distance[f] < distance[nearest]:
                    nearest = f
        if nearest < 0 or cheapest <= distance[nearest]:
            shortest, nearest = cheapest, -1
            break
        shortest = max(shortest, distance[nearest])
        if page[nearest] < 0:
            break
        done[nearest] = True
        current = page[nearest]
        if shortest + item_price[current] < cheapest:
            end, cheapest = current, shortest + item_price[current]
    for f in range(rows):
        if done[f] and distance[f] < shortest:
            slot_price[f] += shortest - distance[f]
            item_price[page[f]] = max(0.0, item_price[page[f]] - (shortest - distance[f]))
    item_price[item] = max(0.0, item_price[item] - shortest)
    if nearest < 0:
        if end == item:
            return
        nearest = row_of[end]
        row_of[end], item_price[end] = -1, 0.0
    while True:
        a = predecessor[nearest]
        page[nearest], row_of[a], nearest = a, nearest, row_of[a]
        if a == item:
            return
