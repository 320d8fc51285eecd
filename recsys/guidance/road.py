"""One problem, no relaxation: prices, search, and HiGHS where they leave the question open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from recsys.guidance.exact import any_page, best_page
from recsys.guidance.prices import adders, ascend
from recsys.guidance.problem import Problem
from recsys.guidance.search import DONE, search
from recsys.types import F64, I32, Bool


@dataclass(frozen=True)
class Effort:
    """How hard to try. Counted in steps and nodes, so that the answer does not depend on the machine."""

    steps: int  # of the prices
    nodes: int  # of one search for a better page, in the first round; later rounds search longer
    rounds: int  # of more prices and more search, while unproven
    certain: bool  # let HiGHS finish the proof


FEASIBLE_NODES = 20_000
"""Of the search for any page at all, before HiGHS is asked."""

HIGHS_NODES = 20_000
"""Of HiGHS, before a question of feasibility is left open (and reported so)."""


@dataclass(frozen=True)
class Outcome:
    """page [K] items of the problem; None: there is none, proven if `settled`, else none was found within the effort.

    dual [G]: sum of the prices of each group; adder [G, K]: what prices add to a member of a group in a slot.
    """

    page: I32 | None
    settled: bool
    value: float
    bound: float
    dual: F64
    adder: F64

    @property
    def proven(self) -> bool:
        """Whether the page is the best one."""
        return self.bound == self.value


class Road:
    """The walk over one problem: prices get better, the best page rises, the bound falls."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        groups, self.slots = problem.lower.shape
        n = len(problem.value)
        self.groups_of = _groups_of(problem.member)
        self.asks = _asking(problem)
        self.low, self.up, self.run = (np.zeros((groups, self.slots)) for _ in range(3))
        self.family, self.family_size = _families(problem)
        self.falling = bool((np.diff(problem.attention) <= 0).all())
        self.loss, self.wage = np.zeros((self.slots, n)), np.zeros(n)
        self.best = -np.inf
        self.page = np.full(self.slots, -1, np.int32)
        self.bound = self.dual_bound = np.inf

    @property
    def open(self) -> bool:
        """Whether a better page than the best known is still possible."""
        return self.bound - self.best > 1e-9 * (1.0 + abs(self.bound))

    def price(self, steps: int, fineness: float = 1.0) -> None:
        """Better prices: a lower bound, maybe a better page."""
        p = self.problem
        self.dual_bound, self.best = ascend(
            p.value, p.attention, self.groups_of, p.lower, p.upper, p.run_most, p.run_within, p.pin,
            self.asks[0], self.asks[1], self.low, self.up, self.run, steps, fineness * _stride(p),
            self.best, self.page, self.loss, self.wage,
        )  # fmt: skip
        self.bound = min(self.bound, self.dual_bound)

    def find(self) -> bool:
        """Some page, if none is known yet; whether the question is settled: a page is known or proven not to exist."""
        if self.best > -np.inf or self._search(np.inf, FEASIBLE_NODES, first_only=True) or self._priced_out():
            return True
        answer = any_page(self.problem, HIGHS_NODES)
        if answer.page is not None:
            self._take(answer.page)
        return answer.settled or answer.page is not None

    def improve(self, nodes: int, late: Callable[[], bool]) -> None:
        """Search for better pages by rising loss; the bound falls where a search was complete."""
        for part in (1 / 16, 1 / 4, 1.0):
            if late() or not self.open:
                return
            loss = part * (self.dual_bound - self.best)
            if self._search(loss, nodes):
                self.bound = max(self.best, min(self.bound, self.dual_bound - loss))

    def finish(self) -> None:
        """The proof by HiGHS, however long it takes."""
        if self.open:
            answer = best_page(self.problem)
            if answer.page is not None:
                self._take(answer.page)
            self.bound = max(self.best, min(self.bound, answer.bound))

    def outcome(self) -> Outcome:
        """What is known now; a page must be known."""
        adder = np.zeros(self.low.shape)
        adders(self.low, self.up, self.run, self.problem.run_within, adder)
        dual = (self.low + self.up + self.run).sum(axis=1)
        bound = max(self.best, self.bound) if self.open else self.best
        return Outcome(self.page, True, self.best, bound, dual, adder)

    def _take(self, page: I32) -> None:
        worth = float(self.problem.attention @ self.problem.value[page])
        if worth > self.best:
            self.best, self.page = worth, page

    def _search(self, budget: float, nodes: int, first_only: bool = False) -> bool:
        p = self.problem
        state, self.best, _ = search(
            p.value, p.attention, self.groups_of, p.member, p.lower, p.upper, p.run_most, p.run_within, p.pin, p.twin,
            self.falling or first_only, self.family, self.family_size, self.loss, self.wage,
            self.low, self.up, self.run, self.dual_bound, budget, self.best, self.page, first_only, nodes,
        )  # fmt: skip
        return bool(state == DONE)

    def _priced_out(self) -> bool:
        """Whether prices alone prove that there is no page: with all values 0, a bound below 0."""
        p = self.problem
        low, up, run = (np.zeros_like(self.low) for _ in range(3))
        bound, _ = ascend(
            np.zeros_like(p.value), np.ones_like(p.attention), self.groups_of, p.lower, p.upper, p.run_most,
            p.run_within, p.pin, self.asks[0], self.asks[1], low, up, run, 60, 1.0, 0.0,
            self.page.copy(), self.loss.copy(), self.wage.copy(),
        )  # fmt: skip
        return bool(bound < -1e-6)


def _nobody(settled: bool) -> Outcome:
    return Outcome(None, settled, -np.inf, -np.inf, np.zeros(0), np.zeros((0, 0)))


def travel(problem: Problem, effort: Effort, late: Callable[[], bool]) -> Outcome:
    """The best page of a problem, as far as the effort goes; whether there is one at all comes before all haste."""
    if not problem.possible:
        return _nobody(settled=True)
    road = Road(problem)
    if not road.slots:
        return Outcome(road.page, True, 0.0, 0.0, np.zeros(len(problem.owner)), road.low)
    road.price(effort.steps if len(problem.owner) else 0)
    settled = road.find()
    if road.best == -np.inf:
        return _nobody(settled)
    for turn in range(effort.rounds):
        if late() or not road.open:
            break
        if turn:
            road.price(3 * effort.steps, 0.4**turn)
        road.improve(effort.nodes * 4**turn, late)
    if effort.certain:
        road.finish()
    return road.outcome()


def exists(problem: Problem) -> Outcome:
    """Some page of a problem, or the proof that there is none."""
    return travel(problem, Effort(steps=15, nodes=0, rounds=0, certain=False), lambda: True)


def _groups_of(member: Bool) -> I32:
    """[n, M] groups of each item, padded with -1."""
    item, group = np.nonzero(member.T)
    sizes = member.sum(axis=0)
    table = np.full((member.shape[1], max(1, int(sizes.max(initial=0)))), -1, np.int32)
    start = np.cumsum(sizes) - sizes
    table[item, np.arange(len(item)) - start[item]] = group
    return table


def _asking(problem: Problem) -> tuple[Bool, Bool]:
    """[G, K] floors and caps that no neighbouring slot's limit implies: only these carry prices."""
    lower, upper = problem.lower, problem.upper
    groups, slots = lower.shape
    before = np.concatenate([np.zeros((groups, 1), np.int32), lower], axis=1)[:, :slots]
    after = np.concatenate([lower, np.zeros((groups, 1), np.int32)], axis=1)[:, 1:]
    low = (lower > before) & (after <= lower)
    before = np.concatenate([np.zeros((groups, 1), np.int32), upper], axis=1)[:, :slots]
    after = np.concatenate([upper, np.full((groups, 1), slots + 1, np.int32)], axis=1)[:, 1:]
    size = problem.member.sum(axis=1)[:, None]
    up = (upper <= before) & (after > upper) & (upper < np.minimum(np.arange(1, slots + 1), size))
    return low, up


def _families(problem: Problem) -> tuple[I32, I32]:
    """[n] family of items that are alike, and the size of each family."""
    family = np.arange(len(problem.twin), dtype=np.int32)
    for i, twin in enumerate(problem.twin):
        if twin >= 0:
            family[i] = family[twin]
    return family, np.bincount(family, minlength=len(family)).astype(np.int32)


def _stride(problem: Problem) -> float:
    """Length of the first price step in clicks: a quarter of what separates the page from the middling items."""
    value, slots = problem.value, len(problem.attention)
    middling = value[min(len(value) - 1, max(slots, len(value) // 2))]
    return 0.25 * max(float(value[0] - middling), 1e-3 * abs(float(value[0])), 1e-9)
