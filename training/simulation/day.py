"""A simulated day, page by page: who steers sees only what the counters show, as late as they show it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from recsys.domain.types import F64
from training.simulation.pages import Pages
from training.simulation.world import I64, Scenario

Plan = Callable[[int, float, float], float]
"""(target, attention served since its start, unix second) -> attention it should have by then."""


@dataclass(frozen=True)
class Counters:
    """What is known when a batch of pages is about to be served.

    page, now        number of the next page, and when it is asked for
    credit [C]       attention won by each target, as counted
    served [C]       attention of all pages since each target began, as counted
    upto             unix second of the newest page counted
    """

    page: int
    now: float
    delivered: F64
    served: F64
    counted_until: float


class Strategy(Protocol):
    """A way to steer. `push` [C]: how hard each target is pushed now, 0 = not at all."""

    push: F64

    def bonus(self, seen: Counters) -> F64:
        """[I] what is added to each item's utility on the next pages, in play equivalents."""

    def restart(self) -> None:
        """Every process ends and another begins."""


@dataclass(frozen=True)
class Disturbance:
    """What goes wrong. late: pages until an impression is counted; outage: first and last part of the day during which
    counters stand still; restart: part of the day after which every process is restarted (None = never)."""

    delay_pages: int = 50
    outage: tuple[float, float] | None = None
    restart_after: float | None = None


@dataclass(frozen=True)
class DayRecord:
    """What happened. P = 200 moments spread evenly over pages.

    utility          play equivalents x attention of all pages
    credit  [C]      attention won
    page    [P]      pages served at each moment
    won     [P, C]   attention won by then
    served  [P, C]   attention of all pages since each target began
    push    [P, C]   how hard each target was pushed: its price, where there is one
    """

    utility: float
    credit: F64
    page: I64
    delivered: F64
    available: F64
    push: F64


def run_day(
    day: Scenario, steer: Strategy, trouble: Disturbance | None = None, *, every: int = 50, pages: Pages | None = None
) -> DayRecord:
    """Serve the day. `every`: pages between two looks at the counters."""
    trouble, pages = trouble or Disturbance(), pages or Pages(day)
    t, c = len(day.at), len(day.amount)
    firsts = np.arange(0, t, every)
    marks = set(np.unique(np.linspace(0, len(firsts) - 1, 200).astype(int)).tolist())
    begin = np.searchsorted(day.at, day.start)
    won, history = np.zeros(c), [np.zeros(c)]
    utility, restarted = 0.0, False
    record: dict[str, list[object]] = {"page": [], "won": [], "served": [], "push": []}
    per_page = float(day.attention.sum())
    for b, first in enumerate(firsts.tolist()):
        last = min(first + every, t)
        if trouble.restart_after is not None and first >= trouble.restart_after * t and not restarted:
            steer.restart()
            restarted = True
        known = _known(first, trouble, t)
        served = np.maximum(known - begin, 0) * per_page
        upto = float(day.at[known - 1]) if known else day.start_at
        bonus = steer.bonus(Counters(first, float(day.at[first]), history[known // every], served, upto))
        batch = pages.serve_with_bonus(first, last, bonus)
        utility, won = utility + batch.utility, won + batch.credit
        history.append(won)
        if b in marks:
            record["page"].append(last)
            record["won"].append(won)
            record["served"].append(np.maximum(last - begin, 0) * per_page)
            record["push"].append(np.abs(steer.push))
    return DayRecord(
        utility,
        won,
        np.array(record["page"]),
        np.array(record["won"]),
        np.array(record["served"]),
        np.array(record["push"]),
    )


def _known(page: int, trouble: Disturbance, pages: int) -> int:
    """How many pages the counters show when `page` pages are served."""
    if trouble.outage is not None:
        first, last = (int(part * pages) for part in trouble.outage)
        if first <= page < last:
            page = first
    return max(page - trouble.delay_pages, 0)
