"""The search effort of the page solver, counted in steps and nodes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """Search effort, counted in steps and nodes, so that the result does not depend on the load of the machine.

    coarse_steps, fine_steps  AdaGrad steps for the first prices, on the first and on the second working set
    rounds         (Polyak steps, beam width) of each round
    short_rounds   the same for pages of at most SHORT_PAGE slots, for which a wide beam is cheaper and more useful
    final_rounds   (Polyak steps, beam width, gap): extra rounds for pages of at most LONG_PAGE slots whose relative gap
                   is within `gap`, so that a proof is likely
    gap_tolerance  relative gap at which the search stops
    max_moves      local search moves evaluated on the page found in a round
    explain        estimate which candidates would be on the page without each control
    prove          let HiGHS complete the proof of optimality
    """

    coarse_steps: int
    fine_steps: int
    rounds: tuple[tuple[int, int], ...]
    short_rounds: tuple[tuple[int, int], ...]
    final_rounds: tuple[tuple[int, int, float], ...] = ()
    gap_tolerance: float = 0.0
    max_moves: int = 300
    explain: bool = True
    prove: bool = False


EFFORTS: dict[str, Effort] = {
    "fast": Effort(
        coarse_steps=20,
        fine_steps=20,
        rounds=((4, 4), (8, 12), (10, 24)),
        short_rounds=((4, 12), (8, 36), (10, 72)),
        gap_tolerance=4e-3,
        max_moves=100,
        explain=False,
    ),
    "adaptive": Effort(
        coarse_steps=20,
        fine_steps=25,
        rounds=((3, 5), (10, 16), (12, 50), (15, 250)),
        short_rounds=((3, 15), (10, 48), (12, 150), (15, 6000)),
        final_rounds=((15, 1000, 2e-4), (20, 4000, 1e-4)),
    ),
    "exact": Effort(
        coarse_steps=20,
        fine_steps=25,
        rounds=((3, 5), (10, 16), (12, 50), (20, 250), (30, 2000)),
        short_rounds=((3, 15), (10, 48), (12, 150), (15, 6000)),
        prove=True,
    ),
}
