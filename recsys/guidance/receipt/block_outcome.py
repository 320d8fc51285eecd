"""What became of a block on a page: how many of its items stand there all the same, and for whose sake.

Items that a block hits and that are candidates were let in for harder floors and pins (`blocking`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recsys.domain.types import Bool
from recsys.guidance.policy.controls import Pin, Quota
from recsys.guidance.policy.inheritance import SourcedControl
from recsys.guidance.solver.page_constraints import PageConstraints, Solution


@dataclass(frozen=True)
class BlockOutcome:
    """By how many slots a block gave way, and the harder floors and pins that the items there serve.

    narrowed  each of these has an item that no other has
    """

    slack: int
    controls: tuple[int, ...]
    narrowed: bool


def block_outcome(
    controls: Sequence[SourcedControl], bounds: PageConstraints, solution: Solution, b: int
) -> BlockOutcome:
    """What the block of row `b` of `bounds.block_member` gave way to on the page."""
    hit = bounds.block_member[b]
    there = np.zeros(len(bounds), np.bool_)
    there[solution.chosen] = True
    there &= hit
    by, block = int(there.sum()), controls[int(bounds.block_control[b])]
    above = [c for c, origin in enumerate(controls) if bounds.active[c] and origin.outranks(block)]
    serves = {c: mine for c in above if (mine := _required(controls[c], bounds, c) & there).any()}
    alone = sum(serves.values(), np.zeros(len(bounds), np.int32)) == 1
    narrowed = bool(serves) and all((mine & alone).any() for mine in serves.values())
    return BlockOutcome(by, tuple(serves), narrowed)


def _required(origin: SourcedControl, bounds: PageConstraints, c: int) -> Bool:
    """[N] candidates that a floor or a pin is about."""
    mine = np.zeros(len(bounds), np.bool_)
    if isinstance(origin.control, Quota) and origin.control.at_least is not None:
        mine |= bounds.member[bounds.row_control == c].any(axis=0)
    elif isinstance(origin.control, Pin):
        mine[[item for item in bounds.pin_item[bounds.pin_control == c].tolist() if item >= 0]] = True
    return mine
