"""The figures of one page that a preview needs, small enough to send between processes by the thousand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from recsys.distribution.layouts import screen_layout
from recsys.domain.query import Query
from recsys.domain.types import ACTIONS, F64, I32
from recsys.messages import Message
from recsys.models.probabilities import PLAY
from recsys.page import Page


@dataclass(frozen=True)
class ControlOutcome:
    """The outcome of one control on one page. `price` is in play equivalents per unit; 0 if it costs nothing."""

    control_id: str
    origin: str
    action: str
    enforcement: str
    status: str  # met | active | relaxed | infeasible
    slack: int
    shortfall: int
    price: float
    reason: Message


@dataclass(frozen=True)
class PageSummary:
    """The summary of a page of K items.

    row        [K]  catalog rows in slot order
    attention  [K]  probability that each slot is viewed
    utility    [K]  expected utility for the viewer, in play equivalents
    p          [A]  expected number of each action of `recsys.domain.types.ACTIONS` on the page: attention x probability
    value           sum of attention x (utility + bonus), in play equivalents: what the page solver maximised
    """

    row: I32
    attention: F64
    utility: F64
    p: F64
    value: float
    outcomes: tuple[ControlOutcome, ...]

    @property
    def page_utility(self) -> float:
        """Utility of the page to its viewer, in play equivalents: sum of attention x utility."""
        return float(self.attention @ self.utility)

    @property
    def expected_plays(self) -> float:
        """Expected number of plays from the page: sum of attention x p(play)."""
        return float(self.p[PLAY])

    @property
    def has_relaxed(self) -> bool:
        """Whether a control was relaxed or infeasible."""
        return any(outcome.slack for outcome in self.outcomes)


class Changes(NamedTuple):
    """The changes of a page against an earlier one.

    replaced  items that were not on the earlier page
    moved     items that were on the earlier page, in another slot
    removed   slots that the page has less than the earlier one
    """

    replaced: int
    moved: int
    removed: int


def changes_of(before: PageSummary, after: PageSummary) -> Changes:
    """Return the changes from one page to another."""
    old, new = before.row, after.row
    was_there, size = np.isin(new, old), min(len(old), len(new))
    replaced, in_place = int((~was_there).sum()), int((new[:size] == old[:size]).sum())
    return Changes(replaced, len(new) - replaced - in_place, max(len(old) - len(new), 0))


def summarise(query: Query, page: Page) -> PageSummary:
    """Return the summary of a page."""
    price = {item_price.control_id: item_price.play_equivalents for item_price in page.receipt.price}
    attention = screen_layout(query.placement.screen).attention(query.slots)[: len(page.items)]
    p = np.array([[item.p[action] for action in ACTIONS] for item in page.items]).reshape(-1, len(ACTIONS))
    return PageSummary(
        row=np.array([item.row for item in page.items], np.int32),
        attention=attention,
        utility=np.array([item.utility for item in page.items], np.float64),
        p=attention @ p,
        value=page.receipt.value,
        outcomes=tuple(
            ControlOutcome(
                control_id=line.id,
                origin=line.origin,
                action=line.action,
                enforcement=line.enforcement,
                status=line.status,
                slack=line.slack,
                shortfall=line.shortfall,
                price=price.get(line.id, 0.0),
                reason=line.reason,
            )
            for line in page.receipt.controls
        ),
    )
