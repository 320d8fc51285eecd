"""Pages with target prices and hard controls, solved by the real page solver (`recsys.guidance.solver.solve.solve`).

The solver is a thousand times slower than `training.simulation.pages` and therefore used for days of a few thousand
pages. The controls are: public value on at least 30 % of the page and of each of its prefixes, no outlet twice within
four neighbouring slots, and commercial items on at most half of the page. Each page is checked against the definition
of its constraints.
"""

from __future__ import annotations

import numpy as np

from recsys.domain.types import F64, I32
from recsys.guidance.solver.page_constraints import PageConstraints
from recsys.guidance.solver.solve import solve
from training.simulation.pages import Pages, ServedPages
from training.simulation.world import Scenario

MIN_PUBLIC_VALUE, MAX_COMMERCIAL, SPACING_WINDOW = 0.3, 0.5, 4


class GuidedPages(Pages):
    """Pages with hard controls; `n_solved` counts the pages, `n_violating` those that violate a control."""

    def __init__(self, day: Scenario) -> None:
        super().__init__(day)
        self.n_solved = self.n_violating = 0

    def serve_with_bonus(self, first: int, last: int, bonus: F64) -> ServedPages:
        """Serve pages `first` up to `last` with a bonus per item ([I], play equivalents)."""
        day, credit, total_utility, priced_utility = self.day, np.zeros(self.day.member.shape[1]), 0.0, 0.0
        for t in range(first, last):
            rows = np.flatnonzero(day.embargo <= day.at[t]).astype(np.int32)
            constraints = _constraints(day, rows)
            utility = day.utility[t, rows].astype(np.float64)
            solution = solve(utility + bonus[rows], day.attention, constraints, effort="fast")
            self.n_solved += 1
            self.n_violating += bool(constraints.violated_by(solution.chosen).any())
            page = rows[solution.chosen]
            total_utility += float(day.attention @ utility[solution.chosen])
            priced_utility += float(day.attention @ (utility + bonus[rows])[solution.chosen])
            credit += day.attention @ day.member[page]
        return ServedPages(total_utility, priced_utility, credit)


def _constraints(day: Scenario, rows: I32) -> PageConstraints:
    k = np.arange(1, len(day.attention) + 1)
    minimum = np.floor(MIN_PUBLIC_VALUE * k + 1e-9).astype(np.int32)
    minimum[-1] = np.ceil(MIN_PUBLIC_VALUE * len(k) - 1e-9)
    maximum = k.astype(np.int32)
    maximum[-1] = int(MAX_COMMERCIAL * len(k))
    free = PageConstraints.free(rows, len(k))
    return PageConstraints(
        **{
            **vars(free),
            "active": np.ones(3, np.bool_),
            "member": np.stack([day.member[rows, -2], day.member[rows, -1]]),
            "lower": np.stack([minimum, np.zeros_like(minimum)]),
            "upper": np.stack([k.astype(np.int32), maximum]),
            "row_control": np.array([0, 1], np.int32),
            "code": day.outlet[rows][None].astype(np.int32),
            "at_most": np.array([1], np.int32),
            "within": np.array([SPACING_WINDOW], np.int32),
            "before": np.full((1, SPACING_WINDOW - 1), -1, np.int32),
            "spacing_control": np.array([2], np.int32),
        }
    )
