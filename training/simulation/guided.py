"""Pages under prices and hard controls, by the real page solver (`recsys.guidance.solver.solve.solve`).

Slower than `training.simulation.pages` by a thousand times, so for days of some thousand pages. The controls: public
value on at least 30 % of the page and of every beginning of it, no outlet twice within four neighbouring slots, at most
half of the page commercial. Every page is counted again by the definition of its bounds.
"""

from __future__ import annotations

import numpy as np

from recsys.domain.types import F64, I32
from recsys.guidance.solver.page_constraints import PageConstraints
from recsys.guidance.solver.solve import solve
from training.simulation.pages import Pages, ServedPages
from training.simulation.world import Scenario

FLOOR, COMMERCIAL, WITHIN = 0.3, 0.5, 4


class GuidedPages(Pages):
    """As `Pages`. `solved` pages were made, `broken` of them break a control."""

    def __init__(self, day: Scenario) -> None:
        super().__init__(day)
        self.n_solved = self.n_violating = 0

    def serve_with_bonus(self, first: int, last: int, bonus: F64) -> ServedPages:
        """Pages `first` up to `last`."""
        day, credit, worth, priced = self.day, np.zeros(self.day.member.shape[1]), 0.0, 0.0
        for t in range(first, last):
            rows = np.flatnonzero(day.embargo <= day.at[t]).astype(np.int32)
            bounds = _bounds(day, rows)
            utility = day.utility[t, rows].astype(np.float64)
            solution = solve(utility + bonus[rows], day.attention, bounds, effort="fast")
            self.n_solved += 1
            self.n_violating += bool(bounds.violated_by(solution.chosen).any())
            page = rows[solution.chosen]
            worth += float(day.attention @ utility[solution.chosen])
            priced += float(day.attention @ (utility + bonus[rows])[solution.chosen])
            credit += day.attention @ day.member[page]
        return ServedPages(worth, priced, credit)


def _bounds(day: Scenario, rows: I32) -> PageConstraints:
    k = np.arange(1, len(day.attention) + 1)
    floor = np.floor(FLOOR * k + 1e-9).astype(np.int32)
    floor[-1] = np.ceil(FLOOR * len(k) - 1e-9)
    cap = k.astype(np.int32)
    cap[-1] = int(COMMERCIAL * len(k))
    free = PageConstraints.free(rows, len(k))
    return PageConstraints(
        **{
            **vars(free),
            "active": np.ones(3, np.bool_),
            "member": np.stack([day.member[rows, -2], day.member[rows, -1]]),
            "lower": np.stack([floor, np.zeros_like(floor)]),
            "upper": np.stack([k.astype(np.int32), cap]),
            "row_control": np.array([0, 1], np.int32),
            "code": day.outlet[rows][None].astype(np.int32),
            "at_most": np.array([1], np.int32),
            "within": np.array([WITHIN], np.int32),
            "before": np.full((1, WITHIN - 1), -1, np.int32),
            "space_control": np.array([2], np.int32),
        }
    )
