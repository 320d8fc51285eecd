"""Baselines for the same page. Each returns K candidates; the caller checks the constraints.

look-ahead greedy   the best item within all limits so far, with minimums propagated over the remaining slots
DetGreedy           Geyik, Ambler and Kenthapadi 2019 (LinkedIn): minimums that are due, then the best below maximums
MMR with filters    Carbonell and Goldstein 1998 on overlaps of groups; items filtered by maximums, no minimums
fixed positions     as in Alibaba's PAI-Rec: slots reserved for each label in advance, filled with its best item
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.guidance.instances import Instance
from recsys.domain.types import I32
from recsys.guidance.solver.presolve import ReducedProblem, presolve

MMR_BALANCE = 0.7


def look_ahead_greedy(instance: Instance) -> I32:
    """Fill slot by slot, with limits propagated over later slots, so that each minimum alone stays reachable."""
    problem = presolve(*instance)
    return _greedy(problem, problem.lower, problem.upper)


def det_greedy(instance: Instance) -> I32:
    """Fill slot by slot: an item of a minimum that is due, else the best item that no maximum forbids."""
    problem = presolve(*instance)
    members = problem.member.sum(axis=1, keepdims=True)
    raw_low, raw_up = np.zeros_like(problem.lower), np.full_like(problem.upper, problem.upper.shape[1])
    due = np.diff(problem.lower, axis=1, prepend=0) > 0
    raw_low = np.where(due | (problem.lower > 0), problem.lower, raw_low)
    for k in range(problem.lower.shape[1] - 1):  # undo the propagation: a minimum applies only from its own slot
        implied = (problem.lower[:, k] > 0) & (problem.lower[:, k + 1] == problem.lower[:, k] + 1)
        raw_low[implied, k] = raw_low[implied, k - 1] if k else 0
    raw_up = np.where(problem.upper < members, problem.upper, raw_up)
    return _greedy(problem, raw_low, raw_up)


def _greedy(problem: ReducedProblem, lower: I32, upper: I32) -> I32:
    slots = len(problem.attention)
    count = np.zeros(len(problem.owner), np.int64)
    used = np.zeros(len(problem.value), np.bool_)
    used[problem.pin[problem.pin >= 0]] = True
    page: list[int] = []
    for k in range(slots):
        if problem.pin[k] >= 0:
            choice = int(problem.pin[k])
        else:
            need, full = count < lower[:, k], count >= upper[:, k]
            for g in np.flatnonzero(problem.window_length > 1):
                recent = page[max(0, k - int(problem.window_length[g]) + 1) :]
                full[g] |= problem.member[g, recent].sum() >= problem.window_limit[g]
            short = need @ (1 - problem.member.astype(np.int64))  # due minimums that the item does not serve
            over = full @ problem.member.astype(np.int64)
            choice = int(np.lexsort((-problem.value, short, over + 10_000 * used))[0])
        page.append(choice)
        used[choice] = True
        count += problem.member[:, choice]
    return problem.item[np.array(page)]


def mmr(instance: Instance) -> I32:
    """Rank by value minus similarity to the items on the page; items of full groups are filtered."""
    value, _, bounds = instance
    member = bounds.member.astype(np.float64)
    size = np.sqrt(np.maximum(member.sum(axis=0), 1.0))
    used, count = np.zeros(len(value), np.bool_), np.zeros(len(member), np.int64)
    similarity = np.zeros(len(value))
    page = []
    for k in range(bounds.slots):
        full = count >= bounds.upper[:, min(k, bounds.slots - 1)]
        barred = used | (full.astype(np.int64) @ bounds.member > 0)
        score = MMR_BALANCE * value - (1 - MMR_BALANCE) * similarity * value.mean()
        pick = int(np.where(barred, -np.inf, score).argmax()) if not barred.all() else int(np.flatnonzero(~used)[0])
        page.append(pick)
        used[pick] = True
        count += bounds.member[:, pick]
        similarity = np.maximum(similarity, member[:, pick] @ member / (size * size[pick]))
    return np.array(page, np.int32)


def fixed_positions(instance: Instance) -> I32:
    """Reserve slots for each minimum in advance, regardless of other controls; fill the rest by value."""
    value, _, bounds = instance
    slots = bounds.slots
    reserved = np.full(slots, -1, np.int64)
    for r in np.argsort(-bounds.lower[:, -1], kind="stable"):
        for n in range(int(bounds.lower[r, -1])):
            due = int(np.argmax(bounds.lower[r] > n))
            free = np.flatnonzero(reserved[: due + 1] < 0)
            if not len(free):
                free = np.flatnonzero(reserved < 0)
            if len(free):
                reserved[free[-1]] = r
    used = np.zeros(len(value), np.bool_)
    page = []
    for k in range(slots):
        allowed = ~used & (bounds.member[reserved[k]] if reserved[k] >= 0 else np.ones(len(value), np.bool_))
        allowed = allowed if allowed.any() else ~used
        choice = int(np.where(allowed, value, -np.inf).argmax())
        page.append(choice)
        used[choice] = True
    return np.array(page, np.int32)


BASELINES: dict[str, Callable[[Instance], I32]] = {
    "look-ahead greedy": look_ahead_greedy,
    "DetGreedy": det_greedy,
    "MMR with filters": mmr,
    "fixed positions": fixed_positions,
}
