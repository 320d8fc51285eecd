"""One page boiled down to what a preview counts; small enough to travel between processes by the thousand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys.distribution.screens import layout
from recsys.messages import Message
from recsys.types import ACTIONS, F64, I32, Page, Query


@dataclass(frozen=True)
class Fate:
    """What became of one control on one page. `price` in clicks per unit of it; 0 where it cost nothing."""

    control_id: str
    origin: str
    action: str
    hardness: str
    status: str  # met | binding | relaxed | impossible
    by: int
    missing: int
    price: float
    reason: Message


@dataclass(frozen=True)
class Shown:
    """One page of K items.

    row        [K]  catalogue rows in slot order
    attention  [K]  chance that each slot is looked at
    utility    [K]  expected worth to the viewer, in clicks
    p          [A]  expected number of each action of `recsys.types.ACTIONS` on the page: attention x probability
    value           sum of attention x (utility + bonus), in clicks: what the page solver maximised
    """

    row: I32
    attention: F64
    utility: F64
    p: F64
    value: float
    fates: tuple[Fate, ...]

    @property
    def engagement(self) -> float:
        """Expected worth of the page to its viewer, in clicks: sum of attention x utility."""
        return float(self.attention @ self.utility)

    @property
    def gave_way(self) -> bool:
        """Whether a control was relaxed or impossible."""
        return any(fate.by for fate in self.fates)


def boil_down(query: Query, page: Page) -> Shown:
    """What a preview counts of a page."""
    price = {one.control_id: one.clicks for one in page.receipt.price}
    attention = layout(query.placement.screen).attention(query.slots)[: len(page.items)]
    p = np.array([[item.p[action] for action in ACTIONS] for item in page.items]).reshape(-1, len(ACTIONS))
    return Shown(
        row=np.array([item.row for item in page.items], np.int32),
        attention=attention,
        utility=np.array([item.utility for item in page.items], np.float64),
        p=attention @ p,
        value=page.receipt.value,
        fates=tuple(
            Fate(
                control_id=line.id,
                origin=line.origin,
                action=line.action,
                hardness=line.hardness,
                status=line.status,
                by=line.by,
                missing=line.missing,
                price=price.get(line.id, 0.0),
                reason=line.reason,
            )
            for line in page.receipt.controls
        ),
    )
