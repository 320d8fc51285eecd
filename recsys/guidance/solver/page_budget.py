"""The budget of one page, shared by the solver, the relaxation, its causes and the receipt.

While a page is served, the budget is processor time of its thread. Where the result must not depend on time, as in the
check before a policy is published, it is counted work: every stage charges an estimate that depends only on the size of
its input. One unit is about a microsecond, so both kinds of budget have the same limit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, get_args

from recsys.guidance.solver.page_constraints import PageConstraints

WorkPart = Literal["page", "relaxation", "causes", "moves"]
"""WorkParts of the work on a page that a budget can cut short (see `Receipt.cut_short`)."""

RELAXATION_SHARE, SOLVE_SHARE = 0.7, 0.85
"""Shares of the budget, without the part reserved for the receipt, after which no control is relaxed by less and no
page is improved any more; causes and moves may use the rest."""

FIRST_STAGE = 0.65
"""Factor on these shares for a page that may be solved again with more candidates."""

LINE_WORK, RECEIPT_WORK = 80.0, 2500.0
"""Work of the receipt: for each control, and for the moves and totals."""


@dataclass
class PageBudget:
    """The work that one page may take, and the parts that were cut short because of it.

    limit     microseconds by `clock`, or units of counted work without a clock
    clock     returns seconds of processor time; None: only counted work is spent
    reserved  part of the limit that is kept back for the receipt, which is always written
    stage     factor on all shares: below 1 while the page may have to be solved again
    cut       parts that were cut short
    """

    limit: float = math.inf
    clock: Callable[[], float] | None = None
    reserved: float = 0.0
    stage: float = 1.0
    cut: set[WorkPart] = field(default_factory=set)
    charged: float = 0.0
    _start: float = field(init=False)

    def __post_init__(self) -> None:
        self._start = self.clock() if self.clock else 0.0

    @property
    def limited(self) -> bool:
        """Whether the budget can run out."""
        return self.limit < math.inf

    @property
    def spent(self) -> float:
        """The work so far, in units of the limit."""
        return 1e6 * (self.clock() - self._start) if self.clock else self.charged

    @property
    def cut_short(self) -> tuple[WorkPart, ...]:
        """The parts that were cut short, in the order of the stages."""
        return tuple(part for part in get_args(WorkPart) if part in self.cut)

    def charge(self, work: float) -> None:
        """Count work that was done; it is spent only if there is no clock."""
        self.charged += work

    def reserve(self, constraints: PageConstraints) -> None:
        """Keep back what the receipt of a page under these constraints will take, at most half of the limit."""
        self.reserved = min(receipt_work(constraints), 0.5 * self.limit)

    def allows(self, part: WorkPart, share: float = 1.0, work: float = 0.0) -> bool:
        """Return whether `work` more fits into a share of the budget; if not, record that the part was cut short."""
        if not self.limited or self.spent + work <= self.stage * share * (self.limit - self.reserved):
            return True
        self.cut.add(part)
        return False


def receipt_work(constraints: PageConstraints) -> float:
    """Return the work of building the constraints of a page and of writing its receipt."""
    return RECEIPT_WORK + LINE_WORK * int(constraints.active.sum() + len(constraints.block_control))


def group_count(constraints: PageConstraints) -> int:
    """Return roughly how many groups of items the solver counts; a spacing limits several values."""
    return len(constraints.row_control) + 8 * len(constraints.spacing_control)


def build_work(constraints: PageConstraints) -> float:
    """Return the work of building a solver instance and its first prices."""
    n, groups = len(constraints), group_count(constraints)
    return 130.0 + n * (0.6 + 0.0006 * groups) + 0.25 * groups * constraints.slots


def round_work(groups: int, slots: int, steps: int, width: int) -> float:
    """Return the typical work of a round of prices and beam search."""
    return 60.0 + steps * slots * (0.5 + 0.03 * groups) + width * slots * (0.15 + 0.006 * groups)


def pricing_work(constraints: PageConstraints) -> float:
    """Return the work of a search for a feasible page by prices."""
    return build_work(constraints) + round_work(group_count(constraints), constraints.slots, 9, 40)


def search_work(constraints: PageConstraints, nodes: int) -> float:
    """Return the work of presolving a problem and searching it depth first for a number of nodes."""
    n, groups = len(constraints), group_count(constraints)
    return 450.0 + n * (0.6 + 0.01 * groups) + 0.3 * groups * constraints.slots + 2.0 * nodes


def proof_work(constraints: PageConstraints) -> float:
    """Return the work of a proof of infeasibility by prices."""
    groups = group_count(constraints)
    return build_work(constraints) + round_work(groups, constraints.slots, 60, 0)


def query_work(constraints: PageConstraints) -> float:
    """Return the work of one query of the search for a cause."""
    return search_work(constraints, 300) + pricing_work(constraints) + proof_work(constraints)


def leave_one_out_work(priced_controls: int, slots: int) -> float:
    """Return the work of solving the assignment without each of the controls that have a price."""
    return priced_controls * (10.0 + 0.1 * slots * slots)


class RoundMeter:
    """Predicts what the next round of a search costs, from the cost of the last one and the sizes of both."""

    def __init__(self, budget: PageBudget, groups: int, slots: int) -> None:
        self._budget, self._groups, self._slots = budget, groups, slots
        self._started, self._estimate = budget.spent, 0.0

    def affords(self, steps: int, width: int, has_page: bool) -> bool:
        """Return whether another round fits into the budget, and charge it. The first round always does."""
        estimate, spent = round_work(self._groups, self._slots, steps, width), self._budget.spent
        if self._estimate:
            cost = (spent - self._started) * estimate / self._estimate
            part: WorkPart = "page" if has_page else "relaxation"
            if not self._budget.allows(part, SOLVE_SHARE if has_page else RELAXATION_SHARE, cost):
                return False
        self._started, self._estimate = spent, estimate
        self._budget.charge(estimate)
        return True
