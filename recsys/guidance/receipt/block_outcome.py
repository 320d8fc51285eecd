"""The outcome of a block on a page: how many blocked items are shown, and which stronger controls require them.

A blocked item is a candidate only if a stronger minimum or pin needs it (see `compilation/exclusions.py`).
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
    """The amount by which a block was relaxed, and the controls for which it was.

    slack        number of blocked items on the page
    controls     indexes of the stronger quotas and pins that these items serve
    irreducible  every one of these controls has a blocked item on the page that serves no other of them
    """

    slack: int
    controls: tuple[int, ...]
    irreducible: bool


def block_outcome(
    controls: Sequence[SourcedControl], constraints: PageConstraints, solution: Solution, row: int
) -> BlockOutcome:
    """Return the outcome on the page of the block in row `row` of `constraints.block_member`."""
    matching = constraints.block_member[row]
    on_page = np.zeros(len(constraints), np.bool_)
    on_page[solution.chosen] = True
    on_page &= matching
    slack, block = int(on_page.sum()), controls[int(constraints.block_control[row])]
    stronger = [c for c, origin in enumerate(controls) if constraints.active[c] and origin.outranks(block)]
    required_items = {c: items for c in stronger if (items := _required(controls[c], constraints, c) & on_page).any()}
    exclusive = sum(required_items.values(), np.zeros(len(constraints), np.int32)) == 1
    irreducible = bool(required_items) and all((items & exclusive).any() for items in required_items.values())
    return BlockOutcome(slack, tuple(required_items), irreducible)


def _required(origin: SourcedControl, constraints: PageConstraints, c: int) -> Bool:
    """Return [N] the candidates that count towards a minimum or are pinned by a pin."""
    items = np.zeros(len(constraints), np.bool_)
    if isinstance(origin.control, Quota) and origin.control.at_least is not None:
        items |= constraints.member[constraints.row_control == c].any(axis=0)
    elif isinstance(origin.control, Pin):
        items[[item for item in constraints.pin_item[constraints.pin_control == c].tolist() if item >= 0]] = True
    return items
